"""All reads. `exports` sees this app through here alone: who is released, and under what name, is decided below."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, QuerySet, TextField
from django.db.models.functions import Cast

from annotations.models import (
    Consent,
    Framing,
    Image,
    Participant,
    Place,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyImage,
    StudyStatus,
    Trial,
    TrialKind,
)
from annotations.models.participation import OPEN_STATUSES
from annotations.return_links import return_url_problem
from elicit.labels import AnswerRules, CategorySet
from elicit.labels.consistency import Verdict
from elicit.labels.release_files import ResponseColumns

# --- Studies


def launch_problems(study: Study) -> list[str]:
    """What keeps a draft from being launched, in words; empty when nothing does."""
    problems = []
    if study.dataset.ready_at is None:
        problems.append(f"The images of the dataset “{study.dataset}” are not imported yet.")
    if study.dataset.categories.count() < 2:
        problems.append(f"The dataset “{study.dataset}” has fewer than two categories.")
    images = study.study_images.count()
    if images == 0:
        problems.append("The study has no images: choose some.")
    if current_consent(study) is None:
        problems.append("The consent text is missing.")
    if not study.instructions.strip():
        problems.append("The instructions are empty.")
    if study.sum_limit and study.most_named == 1:
        problems.append("With one category named there is no sum to limit: leave the limit empty.")
    for place, problem in practice_problems(study, study.practice).items():
        problems.append(f"Practice image {place + 1}: {problem}")
    if study.return_url and (problem := return_url_problem(study.return_url)):
        problems.append(f"The link back: {problem}")
    return problems


def practice_problems(
    study: Study, practice: Sequence[Mapping[str, Any]], *, leave_out: bool = False
) -> dict[int, str]:
    """What of a practice does not fit the study, a sentence for each item concerned, by its place from 0.

    With `leave_out` its images are about to be taken out of the study's own.
    """
    images = dict(
        study.dataset.images.filter(index__in=[item["image"] for item in practice]).values_list("index", "pk")
    )
    main = set(study.study_images.filter(image__in=images.values()).values_list("image_id", flat=True))
    known = set(category_names(study))
    problems: dict[int, str] = {}
    for place, item in enumerate(practice):
        unknown = [name for name in item.get("expected", {}) if name not in known]
        if item["image"] not in images:
            problems[place] = f"the dataset has no image {item['image']}."
        elif images[item["image"]] in main and not leave_out:
            problems[place] = (
                f"image {item['image']} is one of the study's own: whoever practised on it would know it already."
            )
        elif unknown:
            problems[place] = f"the dataset has no category “{unknown[0]}”."
    return problems


def dataset_image(study: Study, index: int) -> Image | None:
    return study.dataset.images.filter(index=index).first()


def practice_images(study: Study) -> dict[int, Image]:
    """The images of the study's practice, by their number in the dataset; those that it lacks are left out."""
    wanted = {item["image"] for item in study.practice}
    return {image.index: image for image in study.dataset.images.filter(index__in=wanted)}


def current_consent(study: Study) -> Consent | None:
    return study.consents.order_by("-version").first()


def trials_in_session(study: Study) -> int:
    """How many trials a session of this study has, at the most where batches are uneven."""
    sizes = study.batches.annotate(size=Count("study_images"))
    largest = sizes.aggregate(largest=Max("size"))["largest"] or 0
    return (largest + min(study.repeats_per_session, -(-largest // 2))) * len(Framing(study.framing).asked)


def has_free_place(study: Study) -> bool:
    return Place.objects.filter(study=study, session__isnull=True).exists()


def answer_rules(study: Study, categories: int) -> AnswerRules:
    return AnswerRules(
        categories=categories,
        most_named=study.most_named,
        sum_limit=study.sum_limit,
        ask_impossible=study.ask_impossible,
    )


@dataclass(frozen=True)
class StudyProgress:
    """How far a study has come, in sessions and labels."""

    images: int
    places: int
    places_taken: int
    open_sessions: int
    completed: int
    abandoned: int
    screened_out: int
    withdrawn: int
    excluded: int
    labels: int
    labels_wanted: int
    inconsistent: int

    @property
    def percent(self) -> int:
        return round(100 * self.labels / self.labels_wanted) if self.labels_wanted else 0


def study_progress(study: Study) -> StudyProgress:
    sessions = study.sessions.aggregate(
        open=Count("pk", filter=Q(status__in=OPEN_STATUSES)),
        completed=Count("pk", filter=Q(status=SessionStatus.COMPLETED)),
        abandoned=Count("pk", filter=Q(status=SessionStatus.ABANDONED)),
        screened_out=Count("pk", filter=Q(status=SessionStatus.SCREENED_OUT)),
        withdrawn=Count("pk", filter=Q(status=SessionStatus.WITHDRAWN)),
        excluded=Count("pk", filter=Q(excluded_at__isnull=False)),
        inconsistent=Count("pk", filter=Q(consistency__verdict=Verdict.INCONSISTENT)),
    )
    places = study.places.aggregate(all=Count("pk"), taken=Count("session"))
    images = study.study_images.count()
    return StudyProgress(
        images=images,
        places=places["all"],
        places_taken=places["taken"],
        open_sessions=sessions["open"],
        completed=sessions["completed"],
        abandoned=sessions["abandoned"],
        screened_out=sessions["screened_out"],
        withdrawn=sessions["withdrawn"],
        excluded=sessions["excluded"],
        labels=Response.objects.filter(trial__place__study=study, current=True).count(),
        labels_wanted=images * study.labels_per_image * len(Framing(study.framing).asked),
        inconsistent=sessions["inconsistent"],
    )


# --- Sessions and trials


def session_by_token(token: str) -> Session | None:
    if "\0" in token:  # PostgreSQL can't even be asked
        return None
    return Session.objects.select_related("study", "study__dataset", "participant").filter(token=token).first()


def resumable_session(study: Study, platform_id: str) -> Session | None:
    """The session that a returning person has in this study."""
    participant = Participant.objects.filter(study=study, platform_id=platform_id).first() if platform_id else None
    return participant.sessions.order_by("-consented_at").first() if participant else None


def category_names(study: Study) -> list[str]:
    return list(study.dataset.categories.order_by("index").values_list("name", flat=True))


def category_count(study: Study) -> int:
    """K, the length of every soft label."""
    return study.dataset.categories.count()


# How many trials an annotator may go back to correct one.
MOST_STEPS_BACK = 3

# A trial that nothing is left to do for.
_ANSWERED = Exists(Response.objects.filter(trial=OuterRef("pk"), current=True))
_DONE = _ANSWERED | Q(skipped_at__isnull=False)


def stage_trials(session: Session) -> QuerySet[Trial]:
    """The trials of the step at which the session stands: those of the practice, or all others."""
    practising = session.status == SessionStatus.PRACTICE
    practice = Q(kind=TrialKind.PRACTICE)
    return session.trials.filter(practice if practising else ~practice).order_by("position")


def open_trials(session: Session) -> list[Trial]:
    """The trials of the session's step that are neither answered nor passed over, in order, each with its image."""
    return list(_open_trials(session))


def next_trial(session: Session) -> Trial | None:
    """The first of `open_trials`, without reading the others."""
    return _open_trials(session).first()


def _open_trials(session: Session) -> QuerySet[Trial]:
    return stage_trials(session).exclude(_DONE).select_related("image")


def answered_trials(session: Session) -> list[tuple[Trial, Response]]:
    """Those that the annotator may go back to, oldest first, each with what was said last."""
    answered = stage_trials(session).filter(_ANSWERED).select_related("image").reverse()
    last = list(answered[: steps_back(session)])[::-1]
    said = {response.trial_id: response for response in Response.objects.filter(trial__in=last, current=True)}
    return [(trial, said[trial.pk]) for trial in last]


def steps_back(session: Session) -> int:
    """How far an annotator may go back: never so far that a first answer can be seen from its repeat."""
    repeats = session.trials.filter(repeat_of__isnull=False)
    nearest = repeats.aggregate(nearest=Min(F("position") - F("repeat_of__position")))["nearest"]
    return MOST_STEPS_BACK if nearest is None else min(MOST_STEPS_BACK, nearest - 1)


def trial_counts(session: Session) -> tuple[int, int]:
    """(done, all) of the step at which the session stands; a trial that was passed over is done."""
    counts = stage_trials(session).order_by().aggregate(done=Count("pk", filter=_DONE), all=Count("pk"))
    return counts["done"], counts["all"]


def batch_of(session: Session) -> int | None:
    """The batch whose images the session shows; None before its trials are laid out."""
    first = session.trials.filter(kind=TrialKind.MAIN).order_by("position").first()
    if first is None:
        return None
    return StudyImage.objects.values_list("batch_id", flat=True).get(study_id=session.study_id, image_id=first.image_id)


def repeated_answers(session: Session) -> list[tuple[Response, Response]]:
    """Each image's first answer and its repeat, as far as both were given; of a corrected one the correction."""
    said = Response.objects.filter(trial__session=session, current=True).select_related("trial")
    by_trial = {response.trial_id: response for response in said.order_by("trial__position")}
    return [
        (by_trial[again.trial.repeat_of_id], again)
        for again in by_trial.values()
        if again.trial.repeat_of_id is not None and again.trial.repeat_of_id in by_trial
    ]


# --- For exports: the single door


def study_categories(study_id: int) -> CategorySet:
    return CategorySet(tuple(category_names(Study.objects.select_related("dataset").get(pk=study_id))))


def releasable_studies() -> QuerySet[Study]:
    return Study.objects.exclude(status=StudyStatus.DRAFT)


def _released_sessions(study_id: int, *, until: datetime, leave_out_inconsistent: bool) -> QuerySet[Session]:
    """Completed by `until`, not excluded, and holding a place: whose place was given away came too late for K.

    Where inconsistent sessions stay out, so do those that were not checked by `until`: whether a worker has been there
    in the meantime must not change the bytes.
    """
    sessions = Session.objects.filter(
        study_id=study_id,
        status=SessionStatus.COMPLETED,
        completed_at__lte=until,
        place__isnull=False,
        excluded_at__isnull=True,
    )
    return (
        sessions.filter(_checked(until)).exclude(consistency__verdict=Verdict.INCONSISTENT)
        if leave_out_inconsistent
        else sessions
    )


def _checked(until: datetime) -> Q:
    return Q(consistency__checked_at__lte=until)


def was_released(session: Session, *, until: datetime, leave_out_inconsistent: bool) -> bool:
    """Whether a release of that moment and recipe holds the session's answers."""
    released = _released_sessions(session.study_id, until=until, leave_out_inconsistent=leave_out_inconsistent)
    return released.filter(pk=session.pk).exists()


def released_sessions(study_id: int, *, until: datetime, leave_out_inconsistent: bool, besides: UUID) -> int:
    """How many sessions a release of that moment and recipe holds, `besides` not counted."""
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent)
    return released.exclude(pk=besides).count()


def released_framing(study_id: int, wanted: str) -> str:
    """Which question's answers a release holds: the study's own, or in a study that asks both the one `wanted`
    (empty: the first one asked)."""
    asked = _asked(study_id)
    return wanted if wanted in asked else asked[0]


def framing_to_name(study_id: int, wanted: str) -> str:
    """The question that a recipe has to name: none where the study asks but one."""
    return released_framing(study_id, wanted) if len(_asked(study_id)) > 1 else ""


def _asked(study_id: int) -> tuple[Framing, ...]:
    return Framing(Study.objects.values_list("framing", flat=True).get(pk=study_id)).asked


# Responses that a release reads at a time.
_RELEASED_AT_ONCE = 10_000


def released_responses(
    study_id: int,
    *,
    until: datetime,
    leave_out_inconsistent: bool,
    framing: str = "",
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ResponseColumns]:
    """Every response that a release may hold, main trials and repeats, under the annotator's pseudonym.

    Of several revisions the last; of two questions one, by `released_framing`.

    In chunks of about ten thousand, session by session: no statement stays open between two chunks, so that a long
    release holds no snapshot and SQLite can be written to meanwhile. ``told`` hears of (sessions read, all sessions).
    """
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent)
    sessions: dict[UUID, tuple[str, tuple[int, ...]]] = {
        session: (annotator, tuple(order))
        for session, annotator, order in released.values_list(
            "pk", "participant__annotator", "category_order"
        ).iterator()
    }
    images = {
        pk: (index, sha256)
        for pk, index, sha256 in Image.objects.filter(study_images__study_id=study_id)
        .order_by("index")
        .values_list("pk", "index", "sha256")
        .iterator()
    }
    keys = list(sessions)
    asked = released_framing(study_id, framing)
    sizes = Study.objects.values_list("images_per_session", "repeats_per_session").get(pk=study_id)
    # Not image by image: for each chunk a database may choose to go through all that the study has.
    at_once = max(1, _RELEASED_AT_ONCE // sum(sizes))
    told(0, len(keys))
    for start in range(0, len(keys), at_once):
        rows = list(
            Response.objects.filter(
                trial__session_id__in=keys[start : start + at_once],
                trial__kind__in=[TrialKind.MAIN, TrialKind.REPEAT],
                trial__framing=asked,
                current=True,
            )
            .order_by()
            .values_list(
                "trial__session_id",
                "trial__image_id",
                "trial__kind",
                "trial__position",
                "duration_ms",
                # As text: all of a chunk's are read at once below, rather than each by itself.
                Cast("named", TextField()),
                Cast("impossible", TextField()),
            )
        )
        if rows:
            yield _as_columns(rows, sessions, images)
        told(min(start + at_once, len(keys)), len(keys))


def _as_columns(
    rows: Sequence[tuple[Any, ...]],
    sessions: Mapping[UUID, tuple[str, tuple[int, ...]]],
    images: Mapping[int, tuple[int, str]],
) -> ResponseColumns:
    session, image, kinds, positions, durations, named_texts, impossible_texts = zip(*rows, strict=True)
    named: list[list[tuple[int, float]]] = json.loads(f"[{','.join(named_texts)}]")
    impossible: list[list[int]] = json.loads(f"[{','.join(impossible_texts)}]")
    return ResponseColumns(
        annotators=[sessions[pk][0] for pk in session],
        images=[images[pk][0] for pk in image],
        image_sha256=[images[pk][1] for pk in image],
        kinds=kinds,
        positions=positions,
        durations=durations,
        category_orders=[sessions[pk][1] for pk in session],
        named_lengths=list(map(len, named)),
        named_categories=[category for each in named for category, _ in each],
        named_percentages=[percentage for each in named for _, percentage in each],
        impossible_lengths=list(map(len, impossible)),
        impossible_categories=list(chain.from_iterable(impossible)),
    )


def study_facts(
    study_id: int, *, until: datetime, leave_out_inconsistent: bool, framing: str = ""
) -> Mapping[str, Any]:
    """What a release says of its study: how it was asked, of how many, and who was left out for what reason."""
    study = Study.objects.select_related("dataset").get(pk=study_id)
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent)
    kept = released.aggregate(sessions=Count("pk"), annotators=Count("participant", distinct=True))
    ended = Session.objects.filter(study_id=study_id, consented_at__lte=until)
    completed = ended.filter(status=SessionStatus.COMPLETED, completed_at__lte=until)
    excluded = completed.filter(excluded_at__isnull=False)
    not_excluded = completed.filter(excluded_at__isnull=True)
    in_place = not_excluded.filter(place__isnull=False)
    withdrawn = ended.filter(status=SessionStatus.WITHDRAWN).count()
    screened_out = ended.filter(status=SessionStatus.SCREENED_OUT).count()
    consents = dict(sorted(released.order_by().values_list("consent__version", "consent__text").distinct()))
    return {
        "study": study.slug,
        "study_name": study.name,
        "preset": study.preset,
        "dataset": study.dataset.slug,
        "dataset_origin": study.dataset.origin,
        "images_in_study": study.study_images.count(),
        "labels_per_image_wanted": study.labels_per_image,
        "framing": Framing(released_framing(study_id, framing)).label,
        "most_named": study.most_named,
        "sum_limit": study.sum_limit,
        "ask_impossible": study.ask_impossible,
        "category_order_shuffled": study.shuffle_categories,
        "repeats_per_session": study.repeats_per_session,
        "repeat_distance": study.repeat_distance,
        "consent_versions": list(consents),
        "consent_texts": {str(version): text for version, text in consents.items()},
        "pay": study.pay_note,
        "licence": study.licence,
        "recruitment": study.recruitment,
        "demographics": study.demographics,
        "time_estimate": study.time_estimate,
        "sessions": kept["sessions"],
        "annotators": kept["annotators"],
        "sessions_left_out": {
            "not_completed": ended.count() - completed.count() - withdrawn - screened_out,
            "screened_out": screened_out,
            "withdrawn": withdrawn,
            **_excluded_by_reason(excluded),
            "place_given_away": not_excluded.filter(place__isnull=True).count(),
            "inconsistent": in_place.filter(_checked(until), consistency__verdict=Verdict.INCONSISTENT).count()
            if leave_out_inconsistent
            else 0,
            "not_checked_yet": in_place.exclude(_checked(until)).count() if leave_out_inconsistent else 0,
        },
    }


def _excluded_by_reason(excluded: QuerySet[Session]) -> dict[str, int]:
    counts = excluded.order_by().values_list("exclusion_reason").annotate(number=Count("pk"))
    return {f"excluded_{reason}": number for reason, number in sorted(counts)}
