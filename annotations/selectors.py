"""All reads. `exports` sees this app through here alone: who is released, and under what name, is decided below."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.models import Count, Max, Q, QuerySet, TextField
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
    StudyStatus,
    Trial,
    TrialKind,
)
from annotations.models.participation import OPEN_STATUSES
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
    return problems


def current_consent(study: Study) -> Consent | None:
    return study.consents.order_by("-version").first()


def trials_in_session(study: Study) -> int:
    """How many trials a session of this study has, at the most where batches are uneven."""
    sizes = study.batches.annotate(size=Count("study_images"))
    largest = sizes.aggregate(largest=Max("size"))["largest"] or 0
    return largest + min(study.repeats_per_session, -(-largest // 2))


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
        labels=Response.objects.filter(trial__place__study=study).count(),
        labels_wanted=images * study.labels_per_image,
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


def open_trials(session: Session) -> list[Trial]:
    """The session's trials without an answer, in order, each with its image."""
    return list(_open_trials(session))


def next_trial(session: Session) -> Trial | None:
    """The first of `open_trials`, without reading the others."""
    return _open_trials(session).first()


def _open_trials(session: Session) -> QuerySet[Trial]:
    return session.trials.filter(response__isnull=True).select_related("image").order_by("position")


def trial_counts(session: Session) -> tuple[int, int]:
    """(answered, all)."""
    counts = session.trials.aggregate(done=Count("response"), all=Count("pk"))
    return counts["done"], counts["all"]


# --- For exports: the single door


def study_categories(study_id: int) -> CategorySet:
    return CategorySet(tuple(category_names(Study.objects.select_related("dataset").get(pk=study_id))))


def releasable_studies() -> QuerySet[Study]:
    return Study.objects.exclude(status=StudyStatus.DRAFT)


def _released_sessions(study_id: int, *, until: datetime, leave_out_inconsistent: bool) -> QuerySet[Session]:
    """Completed by `until`, and holding a place: a session whose place was given away came too late for K.

    Where inconsistent sessions stay out, so do those that were not checked by `until`: whether a worker has been there
    in the meantime must not change the bytes.
    """
    sessions = Session.objects.filter(
        study_id=study_id, status=SessionStatus.COMPLETED, completed_at__lte=until, place__isnull=False
    )
    return (
        sessions.filter(_checked(until)).exclude(consistency__verdict=Verdict.INCONSISTENT)
        if leave_out_inconsistent
        else sessions
    )


def _checked(until: datetime) -> Q:
    return Q(consistency__checked_at__lte=until)


# Responses that a release reads at a time.
_RELEASED_AT_ONCE = 10_000


def released_responses(
    study_id: int,
    *,
    until: datetime,
    leave_out_inconsistent: bool,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ResponseColumns]:
    """Every response that a release may hold, main trials and repeats, under the annotator's pseudonym.

    In chunks of about ten thousand, image by image: no statement stays open between two chunks, so that a long
    release holds no snapshot and SQLite can be written to meanwhile. ``told`` hears of (images read, all images).
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
    keys = list(images)
    # About as many as K annotators give, repeats apart.
    at_once = max(1, _RELEASED_AT_ONCE // Study.objects.values_list("labels_per_image", flat=True).get(pk=study_id))
    told(0, len(keys))
    for start in range(0, len(keys), at_once):
        rows = [
            row
            for row in Response.objects.filter(
                trial__session__study_id=study_id,
                trial__image_id__in=keys[start : start + at_once],
                trial__kind__in=[TrialKind.MAIN, TrialKind.REPEAT],
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
            if row[0] in sessions
        ]
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


def study_facts(study_id: int, *, until: datetime, leave_out_inconsistent: bool) -> Mapping[str, Any]:
    """What a release says of its study: how it was asked, of how many, and who was left out for what reason."""
    study = Study.objects.select_related("dataset").get(pk=study_id)
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent)
    kept = released.aggregate(sessions=Count("pk"), annotators=Count("participant", distinct=True))
    ended = Session.objects.filter(study_id=study_id, consented_at__lte=until)
    completed = ended.filter(status=SessionStatus.COMPLETED, completed_at__lte=until)
    in_place = completed.filter(place__isnull=False)
    consents = dict(sorted(released.order_by().values_list("consent__version", "consent__text").distinct()))
    return {
        "study": study.slug,
        "study_name": study.name,
        "preset": study.preset,
        "dataset": study.dataset.slug,
        "dataset_origin": study.dataset.origin,
        "images_in_study": study.study_images.count(),
        "labels_per_image_wanted": study.labels_per_image,
        "framing": Framing(study.framing).label,
        "most_named": study.most_named,
        "sum_limit": study.sum_limit,
        "ask_impossible": study.ask_impossible,
        "category_order_shuffled": study.shuffle_categories,
        "repeats_per_session": study.repeats_per_session,
        "repeat_distance": study.repeat_distance,
        "consent_versions": list(consents),
        "consent_texts": {str(version): text for version, text in consents.items()},
        "pay": study.pay_note,
        "time_estimate": study.time_estimate,
        "sessions": kept["sessions"],
        "annotators": kept["annotators"],
        "sessions_left_out": {
            "not_completed": ended.count() - completed.count(),
            "place_given_away": completed.filter(place__isnull=True).count(),
            "inconsistent": in_place.filter(_checked(until), consistency__verdict=Verdict.INCONSISTENT).count()
            if leave_out_inconsistent
            else 0,
            "not_checked_yet": in_place.exclude(_checked(until)).count() if leave_out_inconsistent else 0,
        },
    }
