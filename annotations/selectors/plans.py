"""What a study's plan is worked out from, and the curve that it promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from django.core.cache import cache
from django.db.models import Avg, Count, Max, Min, Q
from numpy.typing import NDArray

from annotations.models import Framing, Plan, Response, Session, SessionStatus, Study, TrialKind
from annotations.selectors import samples
from annotations.selectors.answers import study_answers
from elicit.labels.planning import (
    PUBLISHED,
    ErrorCurve,
    Metric,
    Pilot,
    Published,
    Terms,
    against_reference,
    against_the_crowd,
)
from elicit.labels.varieties import RECOMMENDED

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PILOT = "pilot"
# A curve needs no more: beyond, a page would keep its reader waiting.
MOST_PILOT_SESSIONS = 200
MOST_PILOT_NUMBERS = 60_000
MOST_TIMED = 500
KEPT_SECONDS = 3600

# Whose answers tell of what a study will be like.
_SOUND = Q(excluded_at__isnull=True) & ~Q(status__in=[SessionStatus.WITHDRAWN, SessionStatus.SCREENED_OUT])


def terms_of(
    study: Study,
    *,
    seconds_per_response: float,
    minutes_per_session: float,
    pay_per_hour_minor: int,
    fee_share: float,
) -> Terms | None:
    """Of the study as it is set up now, every arm a study of its own; None without images."""
    images = study.study_images.count() * max(study.arms.count(), 1)
    if not images:
        return None
    return Terms(
        images=images,
        images_per_session=study.images_per_session,
        seconds_per_response=seconds_per_response,
        pay_per_hour_minor=pay_per_hour_minor,
        fee_share=fee_share,
        extra_per_session=study.repeats_per_session + study.check_items.count(),
        seconds_per_session=minutes_per_session * 60,
        questions=len(Framing(study.framing).asked),
    )


def seconds_per_response(study: Study) -> tuple[float, int] | None:
    """The median session's mean seconds per response, and of how many sessions, the latest; None before any answer."""
    latest = Session.objects.filter(_SOUND, study=study, trials_begun_at__isnull=False).order_by("-consented_at")
    means = (
        Response.objects.filter(trial__session__in=list(latest.values_list("pk", flat=True)[:MOST_TIMED]), current=True)
        .exclude(trial__kind=TrialKind.PRACTICE)
        .values("trial__session_id")
        .annotate(mean=Avg("duration_ms"))
        .order_by()
        .values_list("mean", flat=True)
    )
    found = np.array([float(mean) for mean in means])
    return (float(np.median(found)) / 1000, len(found)) if len(found) and np.median(found) > 0 else None


def pilots(study: Study) -> list[Study]:
    """Studies on the same dataset, this one too, in which people answered; this one first, then the newest."""
    found = (
        Study.objects.filter(dataset_id=study.dataset_id)
        .annotate(sittings=Count("sessions", filter=Q(sessions__status=SessionStatus.COMPLETED)))
        .filter(sittings__gte=2)
        .order_by("-created_at")
    )
    return sorted(found, key=lambda each: each.pk != study.pk)


def reference_exists(study: Study) -> bool:
    return study.dataset.images.filter(reference_distribution__isnull=False).exists()


def curve(study: Study, errors_from: str, metric: Metric, pilot: Study | None = None) -> ErrorCurve | None:
    """Published figures, or with a pilot's answers; None where these don't suffice."""
    if errors_from != PILOT:
        return PUBLISHED[Published(errors_from)][metric]
    return pilot_curve(pilot, metric) if pilot else None


def pilot_curve(pilot: Study, metric: Metric) -> ErrorCurve | None:
    """How the labels of this study's people err with their number: against the dataset's reference distributions where
    it has them, else against the crowd's own limit. Kept until somebody answers."""
    # Whoever answers is seen, and whoever is left out or comes back is counted.
    seen = pilot.sessions.filter(_SOUND).aggregate(number=Count("pk"), last=Max("seen_at"))
    last = seen["last"].timestamp() if seen["last"] else 0
    key = f"pilot-curve-{pilot.pk}-{metric}-{seen['number']}-{last}"
    found: dict[str, Any] | None = cache.get(key)
    if found is None:
        measured = _measured(pilot, metric)
        found = as_json(measured) if measured else {}
        cache.set(key, found, KEPT_SECONDS)
    return from_json(metric, found) if found else None


def _measured(study: Study, metric: Metric) -> ErrorCurve | None:
    # Those who saw the same images lie side by side, so that the first ones share as many as possible.
    sound = Session.objects.filter(_SOUND, study=study)
    # To look at the images of all would be dear where they are very many.
    if samples.is_too_much(study):
        few = MOST_PILOT_SESSIONS * samples.answers_of_a_session(study)
        if drawn := samples.draw(study, np.random.default_rng(study.pk), few):
            sound = sound.filter(pk__in=drawn.sessions)
    sessions = (
        sound.annotate(first=Min("trials__image_id", filter=Q(trials__kind=TrialKind.MAIN)))
        .order_by("first", "pk")
        .values_list("pk", flat=True)[:MOST_PILOT_SESSIONS]
    )
    said = study_answers(study, Q(pk__in=list(sessions)))
    asked = Framing(study.framing).asked[0]
    rows = np.flatnonzero(said.counts & (said.framing == str(asked)))
    if not len(rows):
        return None
    categories = said.answers.percentages.shape[1]
    most = max(1, MOST_PILOT_NUMBERS // categories)
    if len(rows) > most:
        kept = np.cumsum(np.bincount(said.image[rows])) <= most
        rows = rows[kept[said.image[rows]]]
    labels = RECOMMENDED.soft_labels(said.answers)[rows]
    pilot = Pilot(labels, said.image_keys[said.image[rows]], said.session[rows])
    random = np.random.default_rng(study.pk)
    reference: dict[int, Any] = dict(
        study.dataset.images.filter(
            pk__in=np.unique(pilot.images).tolist(), reference_distribution__isnull=False
        ).values_list("pk", "reference_distribution")
    )
    if reference:
        return against_reference(pilot, reference, metric, random=random)
    return None if metric is Metric.KL else against_the_crowd(pilot, metric, random=random)


def as_json(found: ErrorCurve) -> dict[str, Any]:
    """As `Plan.curve` keeps it."""
    return {
        "labels": found.labels.tolist(),
        "errors": found.errors.tolist(),
        **{name: [None if np.isnan(end) else end for end in getattr(found, name).tolist()] for name in ("low", "high")},
    }


def from_json(metric: Metric, kept: Mapping[str, Any]) -> ErrorCurve:
    low, high = (np.array(kept[name], dtype=np.float64) for name in ("low", "high"))
    return ErrorCurve(metric, np.array(kept["labels"]), np.array(kept["errors"], dtype=np.float64), low, high)


def plan_of(study: Study) -> Plan | None:
    return Plan.objects.filter(study=study).first()


def planned_curve(study: Study) -> tuple[Integers, Integers, Floats, str] | None:
    """What the saved plan promises of 1, 2, ... labels per image, to twice what it chose and 12 at least.

    Labels of all images together (M,), what they cost in minor units of the plan's currency (M,), the expected error
    (M,), and the metric's name; None where no plan is saved or the study has no images.
    """
    plan = plan_of(study)
    terms = plan and terms_of(
        study,
        seconds_per_response=plan.seconds_per_response,
        minutes_per_session=plan.minutes_per_session,
        pay_per_hour_minor=plan.pay_per_hour_minor,
        fee_share=plan.fee_share,
    )
    if not plan or not terms:
        return None
    labels = np.arange(1, max(12, 2 * plan.labels_per_image) + 1)
    costs = np.array([terms.cost(number).total_minor for number in labels.tolist()], dtype=np.int64)
    errors = from_json(Metric(plan.metric), plan.curve).at(labels)
    return labels * terms.images * terms.questions, costs, errors, plan.metric
