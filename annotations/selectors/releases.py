"""For exports: the single door. Who is released, and under what name, is decided here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, TextField
from django.db.models.functions import Cast

from annotations import image_store
from annotations.models import (
    Arm,
    Framing,
    Image,
    Place,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    TrialKind,
)
from annotations.selectors.studies import category_names
from elicit.labels import CategorySet
from elicit.labels.consistency import Verdict
from elicit.labels.release_files import ResponseColumns


def study_categories(study_id: int) -> CategorySet:
    return CategorySet(tuple(category_names(Study.objects.select_related("dataset").get(pk=study_id))))


def releasable_studies() -> QuerySet[Study]:
    return Study.objects.exclude(status=StudyStatus.DRAFT)


_HOLDS_A_PLACE = Exists(Place.objects.filter(session=OuterRef("pk")))


def _released_sessions(
    study_id: int, *, until: datetime, leave_out_inconsistent: bool, arm: str = ""
) -> QuerySet[Session]:
    """Completed by `until`, not excluded, and holding a place: whose place was given away came too late for K.

    Where inconsistent sessions stay out, so do those that were not checked by `until`: whether a worker has been there
    in the meantime must not change the bytes.
    """
    sessions = Session.objects.filter(
        study_id=study_id,
        status=SessionStatus.COMPLETED,
        completed_at__lte=until,
        excluded_at__isnull=True,
    ).filter(_HOLDS_A_PLACE)
    if arm:
        sessions = sessions.filter(arm__name=arm)
    return (
        sessions.filter(_checked(until)).exclude(consistency__verdict=Verdict.INCONSISTENT)
        if leave_out_inconsistent
        else sessions
    )


def _checked(until: datetime) -> Q:
    return Q(consistency__checked_at__lte=until)


def was_released(session: Session, *, until: datetime, leave_out_inconsistent: bool, arm: str = "") -> bool:
    """Whether a release of that moment and recipe holds the session's answers."""
    released = _released_sessions(session.study_id, until=until, leave_out_inconsistent=leave_out_inconsistent, arm=arm)
    return released.filter(pk=session.pk).exists()


def released_sessions(
    study_id: int, *, until: datetime, leave_out_inconsistent: bool, besides: UUID, arm: str = ""
) -> int:
    """How many sessions a release of that moment and recipe holds, `besides` not counted."""
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent, arm=arm)
    return released.exclude(pk=besides).count()


def released_framing(study_id: int, wanted: str, arm: str = "") -> str:
    """Which question's answers a release holds: the study's own, or where several are asked the one `wanted`
    (empty: the first one asked)."""
    asked = _asked(study_id, arm)
    return wanted if wanted in asked else asked[0]


def framing_to_name(study_id: int, wanted: str, arm: str = "") -> str:
    """The question that a recipe has to name: none where the study, or its arm, asks but one."""
    return released_framing(study_id, wanted, arm) if len(_asked(study_id, arm)) > 1 else ""


def study_arms(study_id: int) -> list[str]:
    """The names of the study's arms, in their order."""
    return list(Arm.objects.filter(study_id=study_id).order_by("pk").values_list("name", flat=True))


def arms_by_name() -> dict[str, list[str]]:
    """The arms of all studies that can be released: name -> the names of the studies that have it."""
    found: dict[str, list[str]] = {}
    arms = Arm.objects.filter(study__in=releasable_studies()).order_by("name", "study__name")
    for name, study in arms.values_list("name", "study__name"):
        found.setdefault(name, []).append(study)
    return found


def _asked(study_id: int, arm: str = "") -> tuple[Framing, ...]:
    own = Study.objects.values_list("framing", flat=True).get(pk=study_id)
    arms = Arm.objects.filter(study_id=study_id, **({"name": arm} if arm else {})).order_by("pk")
    framings = [settings.get("framing", own) for settings in arms.values_list("settings", flat=True)] or [own]
    asked = {each for framing in framings for each in Framing(framing).asked}
    return tuple(each for each in Framing.BOTH.asked if each in asked)


# Responses that a release reads at a time.
_RELEASED_AT_ONCE = 10_000


def released_responses(
    study_id: int,
    *,
    until: datetime,
    leave_out_inconsistent: bool,
    framing: str = "",
    arm: str = "",
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ResponseColumns]:
    """Every response that a release may hold, main trials and repeats, under the annotator's pseudonym.

    Of several revisions the last; of two questions one, by `released_framing`; of a session that lost some of its
    places what it said in the others.

    In chunks of about ten thousand, session by session: no statement stays open between two chunks, so that a long
    release holds no snapshot and SQLite can be written to meanwhile. ``told`` hears of (sessions read, all sessions).
    """
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent, arm=arm)
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
    asked = released_framing(study_id, framing, arm)
    sizes = Study.objects.values_list("images_per_session", "repeats_per_session").get(pk=study_id)
    # Not image by image: for each chunk a database may choose to go through all that the study has.
    at_once = max(1, _RELEASED_AT_ONCE // sum(sizes))
    told(0, len(keys))
    for start in range(0, len(keys), at_once):
        rows = list(
            Response.objects.filter(
                trial__session_id__in=keys[start : start + at_once],
                trial__framing=asked,
                current=True,
            )
            .filter(
                Q(trial__kind=TrialKind.MAIN, trial__place__isnull=False)
                | Q(trial__kind=TrialKind.REPEAT, trial__repeat_of__place__isnull=False)
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
    study_id: int, *, until: datetime, leave_out_inconsistent: bool, framing: str = "", arm: str = ""
) -> Mapping[str, Any]:
    """What a release says of its study: how it was asked, of how many, and who was left out for what reason."""
    study = Study.objects.select_related("dataset").get(pk=study_id)
    released = _released_sessions(study_id, until=until, leave_out_inconsistent=leave_out_inconsistent, arm=arm)
    kept = released.aggregate(sessions=Count("pk"), annotators=Count("participant", distinct=True))
    ended = Session.objects.filter(study_id=study_id, consented_at__lte=until)
    if arm:
        ended = ended.filter(arm__name=arm)
    asked = _settings_asked(study, arm)
    completed = ended.filter(status=SessionStatus.COMPLETED, completed_at__lte=until)
    excluded = completed.filter(excluded_at__isnull=False)
    not_excluded = completed.filter(excluded_at__isnull=True)
    in_place = not_excluded.filter(_HOLDS_A_PLACE)
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
        "framing": Framing(released_framing(study_id, framing, arm)).label,
        "most_named": asked.most_named,
        "sum_limit": asked.sum_limit,
        "ask_impossible": asked.ask_impossible,
        **({"assignment": study.assignment} if study.one_by_one else {}),
        **({"version_of_study": study.version} if study.version > 1 else {}),
        **_arm_facts(study, arm),
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
            "place_given_away": not_excluded.exclude(_HOLDS_A_PLACE).count(),
            "inconsistent": in_place.filter(_checked(until), consistency__verdict=Verdict.INCONSISTENT).count()
            if leave_out_inconsistent
            else 0,
            "not_checked_yet": in_place.exclude(_checked(until)).count() if leave_out_inconsistent else 0,
        },
    }


# Images that a page of `stored_images` holds.
_STORED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of a study: its number, what its file is found by, and the dataset's own labels, where it has any.

    ``category`` names the reference label; ``distribution``: the reference distribution, or None.
    """

    index: int
    sha256: str
    category: str
    distribution: list[float] | None


def stored_images(study_id: int, least: int = 0) -> Iterator[StoredImage]:
    """The study's images from number ``least`` on, by number; a page is read at a time, and no statement stays open."""
    study = Study.objects.select_related("dataset").get(pk=study_id)
    names = category_names(study)
    images = Image.objects.filter(study_images__study_id=study_id).order_by("index")
    while True:
        page = list(
            images.filter(index__gte=least).values_list("index", "sha256", "reference", "reference_distribution")[
                :_STORED_AT_ONCE
            ]
        )
        for index, sha256, reference, distribution in page:
            yield StoredImage(index, sha256, "" if reference is None else names[reference], distribution)
        if len(page) < _STORED_AT_ONCE:
            return
        least = page[-1][0] + 1


def stored_png(sha256: str) -> bytes:
    """A stored image's file. Raises FileNotFoundError."""
    return image_store.rendered(sha256, 1)


def without_reference_distribution(study_id: int) -> int:
    """How many of the study's images lack one."""
    return Image.objects.filter(study_images__study_id=study_id, reference_distribution__isnull=True).count()


def _settings_asked(study: Study, arm: str) -> Study:
    return Arm.objects.get(study=study, name=arm).dress(study) if arm else study


def _arm_facts(study: Study, arm: str) -> dict[str, Any]:
    """What a release says of arms: nothing where the study has none."""
    arms = {each.name: each.settings for each in study.arms.order_by("pk")}
    return {"arm": arm, "arms": {arm: arms[arm]} if arm else arms} if arms else {}


def _excluded_by_reason(excluded: QuerySet[Session]) -> dict[str, int]:
    counts = excluded.order_by().values_list("exclusion_reason").annotate(number=Count("pk"))
    return {f"excluded_{reason}": number for reason, number in sorted(counts)}
