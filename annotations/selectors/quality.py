"""How people answered: measures, rules, what an exclusion would do, and one annotator beside the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet
from numpy.typing import NDArray

from annotations.models import (
    CheckOutcome,
    Framing,
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
    "latest",
    "measured_sessions",
    "neighbours",
    "sittings",
]

MEASURED = Q(status=SessionStatus.COMPLETED)
"""Whose answers are measured."""


def sittings(study: Study, which: Q = MEASURED, besides: Q | None = None) -> tuple[StudyAnswers, Sittings]:
    """The answers of completed sessions as they are measured; excluded ones are, but have no voice. `besides`: further
    answers, as `study_answers` takes them."""
    found = study_answers(study, which, besides)
    if besides is not None:
        which = Q(pk__in=found.sessions)
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


def to_measure(study: Study, since: datetime | None, most: int) -> list[UUID]:
    """Completed sessions that were never measured or, with `since`, not since then; the first `most` of them."""
    stale = Q(quality__isnull=True)
    if since is not None:
        stale |= Q(quality__computed_at__lt=since)
    waiting = study.sessions.filter(MEASURED & stale).order_by("pk")
    return list(waiting.values_list("pk", flat=True)[:most])


def beside(study: Study, sessions: Sequence[UUID]) -> tuple[StudyAnswers, Sittings]:
    """These sessions' answers, and what everybody else who completed said first of the same images."""
    images = list(
        Trial.objects.filter(session__in=sessions, kind=TrialKind.MAIN)
        .order_by()
        .values_list("image_id", flat=True)
        .distinct()
    )
    others = Q(trial__image__in=images, trial__kind=TrialKind.MAIN, trial__session__status=SessionStatus.COMPLETED)
    return sittings(study, Q(pk__in=list(sessions)), others)


def known_values(study: Study, name: Measure, most: int) -> NDArray[np.float64]:
    """A measure of those who were measured last, `most` at the most, in order."""
    rows = SessionQuality.objects.filter(session__study=study, **{f"measures__{name.value}__isnull": False})
    values = rows.order_by("-pk").values_list(f"measures__{name.value}__0", flat=True)[:most]
    return np.sort(np.array([float(value) for value in values], dtype=np.float64))


@dataclass(frozen=True)
class Counted:
    """Completed sessions: ``finished``, of these ``measured``, and of those the ones that are ``included``."""

    finished: int
    measured: int
    included: int
    measured_at: datetime | None

    def shown(self, show: str, flagged: int) -> int:
        """How many a list shows, see `SHOWN`."""
        by_name = {"all": self.measured, "in": self.included, "excluded": self.measured - self.included}
        return by_name.get(show, flagged)


def count_measured(study: Study) -> Counted:
    """In one walk through the study's sessions."""
    counts = study.sessions.filter(MEASURED).aggregate(
        finished=Count("pk"),
        measured=Count("quality"),
        included=Count("quality", filter=Q(excluded_at__isnull=True)),
        measured_at=Max("quality__computed_at"),
    )
    return Counted(**counts)


@dataclass(frozen=True)
class MeasuredSession:
    """A session, its known measures with what each rests on, and the rules that it breaks."""

    session: Session
    measures: Mapping[str, tuple[float, int]]
    broken: Sequence[QualityRule]

    @property
    def annotator(self) -> str:
        return self.session.participant.annotator


_BREAKS = SessionQuality.breaks.through.objects.filter(sessionquality=OuterRef("pk"))
SHOWN = {
    "all": Q(),
    "flagged": Q(Exists(_BREAKS)) & Q(session__excluded_at__isnull=True),
    "in": Q(session__excluded_at__isnull=True),
    "excluded": Q(session__excluded_at__isnull=False),
}
"""Whom a list of sessions may show, by name."""
MOST_COMPARED = 2000
"""Sessions that a page reads to compare one, or a rule, with: the latest of a study that has more."""


def _measured(study: Study, show: str = "all") -> QuerySet[SessionQuality]:
    return SessionQuality.objects.filter(
        SHOWN[show], session__study=study, session__status=SessionStatus.COMPLETED
    ).order_by("session__consented_at", "session_id")


def _as_rows(rows: QuerySet[SessionQuality]) -> list[MeasuredSession]:
    session = (
        "id",
        "study",
        "excluded_at",
        "exclusion_reason",
        "consented_at",
        "completed_at",
        "participant__annotator",
    )
    lean = rows.select_related("session__participant").only("measures", *(f"session__{name}" for name in session))
    return [
        MeasuredSession(
            row.session, {name: (value, n) for name, (value, n) in row.measures.items()}, list(row.breaks.all())
        )
        for row in lean.prefetch_related("breaks")
    ]


AT_ONCE = 1000


def measured_sessions(study: Study) -> Iterator[MeasuredSession]:
    """All that are measured, oldest first, read a thousand at a time."""
    rows = _measured(study)
    while some := _as_rows(rows[:AT_ONCE]):
        yield from some
        last = some[-1].session
        rows = _measured(study).filter(
            Q(session__consented_at__gt=last.consented_at)
            | Q(session__consented_at=last.consented_at, session_id__gt=last.pk),
            session__consented_at__gte=last.consented_at,
        )


@dataclass(frozen=True)
class Latest:
    """The latest sessions that are measured, oldest first, `MOST_COMPARED` at the most: then there may be more
    (``some``)."""

    sessions: list[UUID]
    measures: dict[Measure, Measured]

    @property
    def some(self) -> bool:
        return len(self.sessions) == MOST_COMPARED


def latest(study: Study, show: str = "all") -> Latest:
    """What a session, or a rule, is compared with."""
    rows = list(_measured(study, show).reverse().values_list("session_id", "measures")[:MOST_COMPARED])[::-1]
    found = {}
    for name in Measure:
        pairs = [measures.get(name.value, (0.0, 0)) for _, measures in rows]
        found[name] = Measured(
            np.array([value for value, _ in pairs], dtype=np.float64), np.array([n for _, n in pairs], dtype=np.int64)
        )
    return Latest([session for session, _ in rows], found)


def measured_session(session: Session) -> MeasuredSession | None:
    """One of them."""
    return next(iter(_as_rows(_measured(session.study).filter(session=session))), None)


def listed_sessions(
    study: Study, show: str, sort: str, backwards: bool, start: int, number: int
) -> list[MeasuredSession]:
    """Some of a list that the database sorts. `sort`: a measure, `annotator`, `breaks` or nothing; those of whom a
    measure is not known come last."""
    rows = _measured(study, show)
    if sort == "annotator":
        by = F("session__participant__annotator")
    elif sort == "breaks":
        rows = rows.annotate(broken=Count("breaks"))
        by = F("broken")
    elif sort:
        by = F(f"measures__{sort}__0")
    if sort:
        key = by.desc(nulls_last=True) if backwards else by.asc(nulls_last=True)
        rows = rows.order_by(key, "session__consented_at", "session_id")
    return _as_rows(rows[start : start + number])


@dataclass(frozen=True)
class Flagged:
    """Whom the stored rules flag: ``would`` of those who are in, and each rule with how many break it."""

    would: int
    rules: list[tuple[QualityRule, int]]


def flag_counts(study: Study) -> Flagged | None:
    """As the last measuring flagged them; None where there are no rules."""
    rules = list(study.quality_rules.all())
    if not rules:
        return None
    broken = SessionQuality.breaks.through.objects.filter(
        qualityrule__in=rules,
        sessionquality__session__status=SessionStatus.COMPLETED,
        sessionquality__session__excluded_at__isnull=True,
    )
    by_rule = dict(broken.order_by().values_list("qualityrule_id").annotate(Count("pk")))
    return Flagged(flagged(study).count(), [(rule, by_rule.get(rule.pk, 0)) for rule in rules])


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
    ``measures``: of those that were looked at, ``some`` of all.
    """

    rules: list[RuleRun]
    would: list[tuple[MeasuredSession, list[QualityRule]]]
    of: int
    labels: int
    labels_wanted: int
    images: int
    replacing_minor: int | None
    currency: str
    measures: Mapping[Measure, Measured]
    some: bool = False


def dry_run(study: Study, rules: Sequence[QualityRule] | None = None, *, to_apply: bool = False) -> DryRun:
    """What the study's rules, or those given, would exclude: of its completed sessions, those that are in; of a study
    with more than `MOST_COMPARED`, the latest (``some``) or, `to_apply` the stored rules, the latest that they flag."""
    tried = list(study.quality_rules.all()) if rules is None else list(rules)
    looked_at = latest(study, "in")
    of, some = len(looked_at.sessions), looked_at.some
    if some and to_apply:
        looked_at, of = latest(study, "flagged"), count_measured(study).included
    broken = quality.broken_rules(looked_at.measures, [rule.rule for rule in tried])
    breaking = np.flatnonzero(broken.any(axis=1))
    keys = [looked_at.sessions[place] for place in breaking]
    known = {row.session.pk: row for row in _as_rows(_measured(study).filter(session__in=keys))}
    rows = {place: known[key] for place, key in zip(breaking.tolist(), keys, strict=True) if key in known}
    runs = [
        RuleRun(
            rule,
            [row for place, row in rows.items() if broken[place, column]],
            int((looked_at.measures[Measure(rule.measure)].counts >= rule.least).sum()),
        )
        for column, rule in enumerate(tried)
    ]
    would = [(row, [tried[column] for column in np.flatnonzero(broken[place])]) for place, row in rows.items()]
    lost = Response.objects.filter(
        trial__session__in=[row.session.pk for row, _ in would], trial__place__isnull=False, current=True
    ).aggregate(labels=Count("pk"), images=Count("trial__image", distinct=True))
    cost = cost_so_far(study)
    finished = study.sessions.filter(MEASURED).count()
    return DryRun(
        rules=runs,
        would=would,
        of=of,
        labels=lost["labels"],
        labels_wanted=study.study_images.count() * study.labels_per_image * len(Framing(study.framing).asked),
        images=lost["images"],
        replacing_minor=round(cost.total_minor / finished * len(would)) if finished and cost.total_minor else None,
        currency=cost.currency,
        measures=looked_at.measures,
        some=some,
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
    # Everybody who saw one of these images: nobody else bears on it.
    images = list(session.trials.order_by().values_list("image_id", flat=True).distinct())
    seen_by = Trial.objects.filter(image__in=images, session__study=study, session__status=SessionStatus.COMPLETED)
    others = list(seen_by.order_by().values_list("session_id", flat=True).distinct())
    found, taken = sittings(study, Q(pk__in=[session.pk, *others]))
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


def in_table(rows: Iterable[MeasuredSession]) -> Iterator[list[str]]:
    """For a file: a head, and a line for each session, under its pseudonym."""
    head = ["annotator", "completed_at", "excluded", "breaks"]
    yield [*head, *(part for name in Measure for part in (name.value, f"{name.value}_n"))]
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
        yield line
