"""How people answered: measures, rules, what an exclusion would do, and one annotator beside the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from django.db.models import Exists, Max, OuterRef, Q, QuerySet
from numpy.typing import NDArray

from annotations.models import (
    CheckOutcome,
    Framing,
    Image,
    QualityRule,
    Response,
    Session,
    SessionQuality,
    SessionStatus,
    Study,
    Trial,
    TrialKind,
)
from annotations.selectors.answers import StudyAnswers, study_answers
from annotations.selectors.checks import check_items, check_problems, item_problem
from annotations.selectors.recruitment import cost_so_far
from elicit.labels import quality
from elicit.labels.intervals import Bootstrap, Estimate, estimate, ratio_of_sums
from elicit.labels.quality import Measure, Measured, Others, Sittings
from elicit.labels.scoring import Calibration, calibration

__all__ = [
    "Card",
    "DryRun",
    "MeasuredSession",
    "RuleRun",
    "card",
    "check_items",
    "check_problems",
    "dry_run",
    "flagged",
    "item_problem",
    "measured_sessions",
    "measures_of",
    "neighbours",
    "sittings",
    "unmeasured",
]

MEASURED = Q(status=SessionStatus.COMPLETED)
"""Whose answers are measured."""


def sittings(study: Study, which: Q = MEASURED) -> tuple[StudyAnswers, Sittings]:
    """The answers of completed sessions as they are measured; excluded ones are, but have no voice."""
    found = study_answers(study, which)
    facts = {
        pk: (attempts, excluded)
        for pk, attempts, excluded in Session.objects.filter(pk__in=_within(study, which)).values_list(
            "pk", "comprehension_attempts", "excluded_at"
        )
    }
    outcomes = {
        trial: (passed, distance)
        for trial, passed, distance in CheckOutcome.objects.filter(trial__session__in=_within(study, which))
        .order_by()
        .values_list("trial_id", "passed", "distance")
    }
    judged = [outcomes.get(trial) for trial in found.trials]
    known = np.array([each is not None for each in judged], dtype=np.bool_)
    nothing = (0, None)
    return found, Sittings(
        session=found.session,
        stimulus=found.image * 2 + (found.framing == Framing.SELF),
        main=found.kind == TrialKind.MAIN,
        first=found.first,
        attention=(found.kind == TrialKind.ATTENTION) & known,
        gold=(found.kind == TrialKind.GOLD) & known,
        passed=np.array([each is not None and each[0] for each in judged], dtype=np.bool_),
        gold_distance=np.array(
            [np.nan if each is None or each[1] is None else each[1] for each in judged], dtype=np.float64
        ),
        duration_ms=found.duration_ms,
        changes=found.changes,
        warnings_kept=found.warnings_kept,
        answers=found.answers,
        comprehension=np.array([facts.get(pk, nothing)[0] for pk in found.sessions], dtype=np.int64),
        voices=np.array([facts.get(pk, nothing)[1] is None for pk in found.sessions], dtype=np.bool_),
    )


def _within(study: Study, which: Q) -> QuerySet[Session, UUID]:
    return Session.objects.filter(which, study=study).order_by().values_list("pk", flat=True)


def flagged(study: Study) -> QuerySet[Session]:
    """Completed sessions that break a rule and are not excluded."""
    breaks = SessionQuality.breaks.through.objects.filter(sessionquality__session=OuterRef("pk"))
    return study.sessions.filter(MEASURED, Exists(breaks), excluded_at__isnull=True)


def unmeasured(study: Study) -> int:
    """How many completed sessions wait to be measured."""
    return study.sessions.filter(MEASURED, quality__isnull=True).count()


def measured_at(study: Study) -> datetime | None:
    """When the newest measures were taken."""
    newest: datetime | None = SessionQuality.objects.filter(session__study=study).aggregate(at=Max("computed_at"))["at"]
    return newest


@dataclass(frozen=True)
class MeasuredSession:
    """A session, its known measures with what each rests on, and the rules that it breaks."""

    session: Session
    measures: Mapping[str, tuple[float, int]]
    broken: Sequence[QualityRule]

    @property
    def annotator(self) -> str:
        return self.session.participant.annotator


def measured_sessions(study: Study) -> list[MeasuredSession]:
    """All that are measured, oldest first."""
    rows = (
        SessionQuality.objects.filter(session__study=study, session__status=SessionStatus.COMPLETED)
        .select_related("session__participant")
        .prefetch_related("breaks")
        .order_by("session__consented_at", "session_id")
    )
    return [
        MeasuredSession(
            row.session, {name: (value, n) for name, (value, n) in row.measures.items()}, list(row.breaks.all())
        )
        for row in rows
    ]


def measures_of(rows: Sequence[MeasuredSession]) -> dict[Measure, Measured]:
    """The rows' measures as arrays."""
    found = {}
    for name in Measure:
        pairs = [row.measures.get(name.value, (0.0, 0)) for row in rows]
        found[name] = Measured(
            np.array([value for value, _ in pairs], dtype=np.float64), np.array([n for _, n in pairs], dtype=np.int64)
        )
    return found


@dataclass(frozen=True)
class RuleRun:
    """One rule over those who are in: ``would``: who breaks it; ``judged``: of how many enough is known."""

    rule: QualityRule
    would: list[MeasuredSession]
    judged: int


@dataclass(frozen=True)
class DryRun:
    """What the rules together would do to ``of`` sessions.

    ``labels``: labels that cease to count, of ``labels_wanted`` in the study; their places reopen. ``images``: how
    many images lose some. ``replacing_minor``: what as many sessions cost so far, None where nothing was paid yet.
    """

    rules: list[RuleRun]
    would: list[tuple[MeasuredSession, list[QualityRule]]]
    of: int
    labels: int
    labels_wanted: int
    images: int
    replacing_minor: int | None
    currency: str


def dry_run(study: Study, rules: Sequence[QualityRule] | None = None) -> DryRun:
    """What the study's rules, or those given, would exclude: of its completed sessions, those that are in."""
    tried = list(study.quality_rules.all()) if rules is None else list(rules)
    rows = [row for row in measured_sessions(study) if row.session.excluded_at is None]
    found = measures_of(rows)
    broken = quality.broken_rules(found, [rule.rule for rule in tried])
    runs = [
        RuleRun(
            rule,
            [rows[place] for place in np.flatnonzero(broken[:, column])],
            int((found[Measure(rule.measure)].counts >= rule.least).sum()),
        )
        for column, rule in enumerate(tried)
    ]
    would = [
        (rows[place], [tried[column] for column in np.flatnonzero(broken[place])])
        for place in np.flatnonzero(broken.any(axis=1))
    ]
    lost = Response.objects.filter(
        trial__session__in=[row.session.pk for row, _ in would], trial__place__isnull=False, current=True
    )
    cost = cost_so_far(study)
    finished = study.sessions.filter(MEASURED).count()
    return DryRun(
        rules=runs,
        would=would,
        of=len(rows),
        labels=lost.count(),
        labels_wanted=study.study_images.count() * study.labels_per_image * len(Framing(study.framing).asked),
        images=lost.order_by().values("trial__image").distinct().count(),
        replacing_minor=round(cost.total_minor / finished * len(would)) if finished and cost.total_minor else None,
        currency=cost.currency,
    )


def neighbours(study: Study, session: Session) -> tuple[Session | None, Session | None]:
    """The completed sessions before and after this one, by when they began."""
    done = study.sessions.filter(MEASURED).select_related("participant").order_by("consented_at", "pk")
    earlier = Q(consented_at__lt=session.consented_at) | Q(consented_at=session.consented_at, pk__lt=session.pk)
    later = Q(consented_at__gt=session.consented_at) | Q(consented_at=session.consented_at, pk__gt=session.pk)
    return done.filter(earlier).last(), done.filter(later).first()


@dataclass(frozen=True)
class ShownTrial:
    """One trial on the strip: what was said and what the others say, as soft labels (K,); no others: None."""

    trial: Trial
    response: Response
    label: NDArray[np.float64]
    crowd: NDArray[np.float64] | None
    others: int
    distance: float | None
    again: ShownTrial | None


@dataclass(frozen=True)
class Card:
    """One annotator: their answers in the order shown, beside the others'."""

    session: Session
    strip: list[ShownTrial]
    checks: list[tuple[Trial, Response, CheckOutcome | None]]
    calibration: Calibration | None
    seconds: list[tuple[int, float, str]]
    nearness: NDArray[np.float64]


def card(session: Session) -> Card:
    """What a curator looks at before deciding about a session."""
    study = session.study
    images = Image.objects.filter(trials__session=session)
    # Everybody who saw one of these images: nobody else bears on it.
    which = Q(pk=session.pk) | (MEASURED & Q(trials__image__in=images.values("pk")))
    found, taken = sittings(study, which)
    mine = found.sessions.index(session.pk)
    beside = quality.beside_others(taken)
    place = {row: at for at, row in enumerate(beside.rows.tolist())}
    rows = np.flatnonzero(found.session == mine).tolist()
    trials = {
        trial.pk: trial
        for trial in session.trials.exclude(kind=TrialKind.PRACTICE).select_related("image", "check_item", "outcome")
    }
    said = {r.trial_id: r for r in Response.objects.filter(trial__session=session, current=True)}
    labels = quality.soft_labels(taken.answers)

    def shown(row: int, again: ShownTrial | None) -> ShownTrial:
        key = found.trials[row]
        at = place.get(row)
        known = at is not None and beside.others[at] > 0
        return ShownTrial(
            trial=trials[key],
            response=said[key],
            label=labels[row],
            crowd=beside.crowd[at] if known else None,
            others=int(beside.others[at]) if at is not None else 0,
            distance=float(beside.distance[at]) if known and at is not None else None,
            again=again,
        )

    repeats = {int(found.first[row]): shown(row, None) for row in rows if found.first[row] >= 0}
    strip = [shown(row, repeats.get(row)) for row in rows if found.kind[row] == TrialKind.MAIN]
    checks = [
        (trials[key], said[key], getattr(trials[key], "outcome", None))
        for key in (found.trials[row] for row in rows)
        if trials[key].check_item is not None
    ]
    return Card(
        session=session,
        strip=strip,
        checks=checks,
        calibration=_calibration(found, taken, beside, mine),
        seconds=[
            (int(found.position[row]), float(found.duration_ms[row]) / 1000, str(found.kind[row])) for row in rows
        ],
        nearness=np.array([each.distance for each in strip if each.distance is not None], dtype=np.float64),
    )


def nearness(seen: Card) -> Estimate | None:
    """The mean total variation from the others, with an interval over the images; None without others."""
    distances = seen.nearness
    mean = ratio_of_sums(distances, np.ones(len(distances)))
    return estimate(mean, len(distances), Bootstrap(np.random.default_rng(0)))


def _calibration(found: StudyAnswers, taken: Sittings, beside: Others, mine: int) -> Calibration | None:
    """Stated percentages against the share of the others who agree."""
    own = (found.session[beside.rows] == mine) & (beside.others > 0)
    rows = beside.rows[own]
    if not len(rows):
        return None
    tops = np.argmax(taken.answers.ranks[rows] == 1, axis=1)
    return calibration(taken.answers.percentages[rows, tops], tops, beside.crowd[own])


def in_table(rows: Iterable[MeasuredSession]) -> list[list[str]]:
    """For a file: a head, and a line for each session, under its pseudonym."""
    head = ["annotator", "completed_at", "excluded", "breaks"]
    lines = [[*head, *(part for name in Measure for part in (name.value, f"{name.value}_n"))]]
    for row in rows:
        done = row.session.completed_at
        line = [
            row.annotator,
            done.isoformat() if done else "",
            row.session.exclusion_reason,
            "; ".join(str(rule) for rule in row.broken),
        ]
        for name in Measure:
            value, count = row.measures.get(name.value, (None, 0))
            line += ["" if value is None else f"{value:.6g}", str(count)]
        lines.append(line)
    return lines
