"""Judge completed sessions: against themselves, against known images, against the others. Rules only flag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from annotations import selectors
from annotations.errors import refuse
from annotations.kinds import MEASURE_STUDY
from annotations.models import (
    Appeal,
    AppealOutcome,
    CheckItem,
    CheckOutcome,
    ConsistencyCheck,
    ExclusionReason,
    QualityRule,
    Response,
    Session,
    SessionQuality,
    SessionStatus,
    Study,
    StudyStatus,
)
from annotations.selectors import quality as found_out
from annotations.selectors import samples
from annotations.selectors.answers import StudyAnswers
from annotations.services import leaving
from elicit.labels import Answers, consistency, quality
from elicit.labels.errors import Refusal
from elicit.labels.quality import Measure, Measured
from jobs.services import enqueue

TOGETHER = 30
"""Sessions that complete within so many seconds are measured in one go."""
SETTLING = timedelta(seconds=5)
ROWS_AT_ONCE = 500
NOW = "now"
"""In place of the time, in a job that somebody asks for."""
SESSIONS_AT_ONCE = 200
"""Of a study too large to be measured in one go."""
SESSIONS_RANKED = 2000
"""Measured before, whom a session of such a study is ranked among."""

REASONS = {
    Measure.REPEAT_DISTANCE: ExclusionReason.INCONSISTENT,
    Measure.REPEATS_CHANGED: ExclusionReason.INCONSISTENT,
    Measure.COMPREHENSION: ExclusionReason.MISUNDERSTOOD,
    Measure.TINY_SHARE: ExclusionReason.MISUNDERSTOOD,
}
"""What an exclusion by a rule about the measure is called; inattentive where it is not named."""


@transaction.atomic
def check_session(session_id: str, now: datetime) -> ConsistencyCheck:
    """Compare every repeat with its first answer, judge the check items, and store what comes of it; then have the
    study measured. Doing it again gives the same rows."""
    session = Session.objects.select_related("study").get(pk=session_id)
    categories = selectors.category_count(session.study)
    comparisons = [
        consistency.compare(first.elicited, again.elicited, categories)
        for first, again in selectors.repeated_answers(session)
    ]
    changes = [c.percentage_change for c in comparisons if c.percentage_change is not None]
    row, _ = ConsistencyCheck.objects.update_or_create(
        session=session,
        defaults={
            "rule_version": consistency.RULE_VERSION,
            "verdict": consistency.judge(comparisons, most_distance=session.study.repeat_distance),
            "repeats": len(comparisons),
            "same_top": sum(c.same_top for c in comparisons),
            "mean_distance": fmean(c.total_variation for c in comparisons) if comparisons else None,
            "mean_change": fmean(changes) if changes else None,
            "checked_at": now,
        },
    )
    _judge_checks(session, categories)
    measure_soon(session.study_id, now)
    return row


def _judge_checks(session: Session, categories: int) -> None:
    """Store whether each answer to a check item passes."""
    said = Response.objects.filter(trial__session=session, trial__check_item__isnull=False, current=True)
    for response in said.select_related("trial__check_item"):
        item = response.trial.check_item
        assert item is not None  # noqa: S101 (the filter)
        (outcome,) = quality.judge_check(
            Answers.from_elicited([response.elicited], categories=categories),
            allowed=item.allowed,
            target=item.target or None,
            tolerance=item.tolerance or 0.0,
        )
        CheckOutcome.objects.update_or_create(
            trial_id=response.trial_id, defaults={"passed": outcome.passed, "distance": outcome.distance}
        )


def measure_soon(study_id: int, now: datetime) -> None:
    """Have the study measured once for all that happens in this half minute.

    The job is due when that is over: one that runs already may not have seen what has just happened.
    """
    over = (int(now.timestamp()) // TOGETHER + 1) * TOGETHER
    enqueue(MEASURE_STUDY, f"{study_id} {over}", delay=timedelta(seconds=over - now.timestamp()) + SETTLING)


def measure_now(study_id: int) -> None:
    """Have the study measured as soon as a worker is free."""
    enqueue(MEASURE_STUDY, f"{study_id} {NOW}")


def measure_study(
    study_id: int, now: datetime, *, since: datetime | None = None, told: Callable[[str], None] = lambda stage: None
) -> int:
    """Measure every completed session of the study and store it; returns how many. Doing it again gives the same.

    Of a study whose answers are too many to be read at once those alone that were never measured or, with `since`, not
    since then: some at a time, each beside everybody who saw the same images. What another's coming or going changes in
    the measures of those before is found when all are measured anew.
    """
    study = Study.objects.get(pk=study_id)
    if not samples.is_too_much(study):
        answers, taken = found_out.sittings(study)
        return _store(study, answers, quality.measure(taken), set(answers.sessions), now)
    done = 0
    excess = found_out.known_values(study, Measure.CROWD_EXCESS, SESSIONS_RANKED)
    while waiting := found_out.to_measure(study, since, SESSIONS_AT_ONCE):
        told(f"measuring, {done} done")
        answers, taken = found_out.beside(study, waiting)
        found = quality.measure(taken)
        if len(excess):
            found[Measure.CROWD_PERCENTILE] = quality.ranked_among(found[Measure.CROWD_EXCESS], excess)
        stored = _store(study, answers, found, set(waiting), now)
        done += stored
        if not stored:
            break  # they left meanwhile, or have no answers
    return done


def _store(
    study: Study, answers: StudyAnswers, found: dict[Measure, Measured], wanted: set[UUID], now: datetime
) -> int:
    """Keep the measures of those sessions that are `wanted`, and which rules they break. Returns how many."""
    rules = list(study.quality_rules.all())
    broken = quality.broken_rules(found, [rule.rule for rule in rules])
    with transaction.atomic():
        # Whoever withdraws meanwhile is waited for, and left out.
        here = set(
            study.sessions.select_for_update(of=("self",))
            .filter(status=SessionStatus.COMPLETED, pk__in=answers.sessions)
            .order_by("pk")
            .values_list("pk", flat=True)
        )
        kept = [place for place, pk in enumerate(answers.sessions) if pk in here and pk in wanted]
        SessionQuality.objects.bulk_create(
            (
                SessionQuality(
                    session_id=answers.sessions[place],
                    measures={
                        name.value: [round(float(each.values[place]), 9), int(each.counts[place])]
                        for name, each in found.items()
                        if each.counts[place]
                    },
                    version=quality.VERSION,
                    computed_at=now,
                )
                for place in kept
            ),
            batch_size=ROWS_AT_ONCE,
            update_conflicts=True,
            unique_fields=["session"],
            update_fields=["measures", "version", "computed_at"],
        )
        _flag(study, {answers.sessions[place]: [rules[n] for n in broken[place].nonzero()[0]] for place in kept})
    return len(kept)


def _flag(study: Study, breaks: dict[UUID, list[QualityRule]]) -> None:
    """Store which of these sessions breaks which rule, in place of what was stored of them."""
    through = SessionQuality.breaks.through
    rows: dict[UUID, int] = {}
    sessions = list(breaks)
    for start in range(0, len(sessions), ROWS_AT_ONCE):
        some = SessionQuality.objects.filter(session__in=sessions[start : start + ROWS_AT_ONCE])
        through.objects.filter(sessionquality__in=some).delete()
        rows.update(some.values_list("session_id", "pk"))
    alive = set(study.quality_rules.values_list("pk", flat=True))
    through.objects.bulk_create(
        (
            through(sessionquality_id=rows[session], qualityrule_id=rule.pk)
            for session, rules in breaks.items()
            for rule in rules
            if session in rows and rule.pk in alive
        ),
        batch_size=ROWS_AT_ONCE,
        ignore_conflicts=True,
    )


# --- Rules


@dataclass(frozen=True)
class WantedRule:
    """A rule as a curator gives it."""

    measure: Measure
    threshold: float
    at_least: bool = True
    least: int = 1


@transaction.atomic
def write_rules(study_id: int, wanted: Iterable[WantedRule | quality.Rule]) -> list[QualityRule]:
    """Put these rules in place of the study's, and flag by them what is measured; of very many sessions the latest,
    and the others once they are measured anew. Nobody is excluded by it."""
    study = Study.objects.select_for_update().get(pk=study_id)
    study.quality_rules.all().delete()
    rules = [
        QualityRule.objects.create(
            study=study,
            measure=each.measure,
            threshold=each.threshold,
            at_least=each.at_least,
            least=each.least,
            reason=REASONS.get(each.measure, ExclusionReason.INATTENTIVE),
        )
        for each in wanted
    ]
    latest = found_out.latest(study)
    if latest.some:
        measure_now(study_id)  # those before them
    broken = quality.broken_rules(latest.measures, [rule.rule for rule in rules])
    _flag(study, {pk: [rules[n] for n in broken[place].nonzero()[0]] for place, pk in enumerate(latest.sessions)})
    return rules


@dataclass(frozen=True)
class Applied:
    """What became of those whom the rules would exclude: pseudonyms, and of those that could not be, why."""

    excluded: list[str]
    refused: dict[str, str]


def apply_rules(study_id: int, *, expected: Sequence[UUID], by: User | None, now: datetime) -> Applied:
    """Exclude, one after another, whoever breaks a rule now and was shown to the curator before (`expected`)."""
    study = Study.objects.get(pk=study_id)
    done, refused = [], {}
    shown = set(expected)
    for row, rules in found_out.dry_run(study, to_apply=True).would:
        if row.session.pk not in shown:
            continue
        try:
            leaving.exclude(
                session_id=row.session.pk,
                reason=ExclusionReason(rules[0].reason),
                note="By rule: " + "; ".join(str(rule) for rule in rules) + ".",
                by=by,
                now=now,
            )
        except Refusal as error:
            refused[row.annotator] = error.message
        else:
            done.append(row.annotator)
    if done:
        measure_soon(study_id, now)
    return Applied(done, refused)


# --- Known images


@transaction.atomic
def write_check_items(study_id: int, items: Sequence[CheckItem]) -> None:
    """Put these items in place of a draft's.

    Raises:
        AnnotationError: `settings_frozen`.
    """
    study = Study.objects.select_for_update().get(pk=study_id)
    if study.status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    study.check_items.all().delete()
    for item in items:
        item.study = study
        item.save()


# --- Appeals


def write_appeal(*, session_id: UUID, text: str, by: User | None, now: datetime) -> Appeal:
    """Note what somebody says against their exclusion."""
    return Appeal.objects.create(session_id=session_id, text=text, written_by=by, written_at=now)


def decide_appeal(*, session_id: UUID, appeal_id: int, outcome: AppealOutcome, by: User | None, now: datetime) -> None:
    """Note what came of it. What is decided once stays; a second thought is an appeal of its own.

    Raises:
        Appeal.DoesNotExist: the session has no such appeal that is open.
    """
    decided = Appeal.objects.filter(pk=appeal_id, session_id=session_id, outcome=AppealOutcome.OPEN).update(
        outcome=outcome, decided_by=by, decided_at=now
    )
    if not decided:
        raise Appeal.DoesNotExist
