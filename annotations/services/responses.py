"""Take an answer in: the one write that has to be right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from annotations import selectors
from annotations.errors import AnnotationError, refuse
from annotations.models import Response, Session, SessionStatus, Trial, TrialKind
from annotations.selectors.sessions import Standing
from annotations.services import places, sessions
from annotations.statements import insertion
from elicit.labels import Elicited
from elicit.labels.elicited import check


@dataclass(frozen=True)
class Making:
    """How an answer came about: milliseconds with the tab visible and hidden, and what the browser noted.

    `process` holds the times of each field and the warnings shown, in the form that the API documents.
    """

    duration_ms: int
    hidden_ms: int = 0
    input_device: str = ""
    first_touch_ms: int | None = None
    changes: int = 0
    process: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """A stored response, whether this call stored it, and where the session stands now."""

    response: Response
    created: bool
    standing: Standing


def submit_response(
    *,
    session: Session,
    trial_id: UUID,
    response_id: UUID,
    named: Sequence[tuple[object, object]],
    impossible: Iterable[object],
    making: Making,
    now: datetime,
    revises: UUID | None = None,
) -> Accepted:
    """Store what an annotator says of a trial of their session.

    The same id with the same answer again is the same response: an answer may be sent as often as the network needs.
    A correction names the response that it revises, which stays. An answer that arrives after the session's place was
    given to somebody else is kept as well: it counts towards no K.

    Raises:
        Contradiction: the answer contradicts itself or the study's rules; nothing is stored.
        AnnotationError: `trial_already_answered`, `response_id_taken`, `session_not_at_trials`.
        Trial.DoesNotExist: the session has no such trial.
    """
    try:
        with transaction.atomic():
            trial = sessions.lock_trial(session, trial_id)
            session = trial.session
            categories = len(session.category_order) or selectors.category_count(session.study)
            elicited = check(named, impossible, selectors.answer_rules(session.study, categories))
            ahead, spoken_of = selectors.standing_once_answered(session, trial)
            said = selectors.said_of(trial) if spoken_of else []
            if (stored := next((each for each in said if each.pk == response_id), None)) is not None:
                if stored.elicited != elicited:
                    raise refuse("response_id_taken")
                return Accepted(stored, False, selectors.standing(session))
            current = next((each for each in said if each.current), None)
            if current is not None and current.pk != revises:
                raise refuse("trial_already_answered")
            was_open = session.is_open
            session, late = _at_its_step(session, trial, now)
            if current is not None:
                Response.objects.filter(pk=current.pk).update(current=False)
            response = Response(
                pk=response_id,
                trial=trial,
                revision=1 if current is None else current.revision + 1,
                received_at=now,
                **columns(elicited),
                **vars(making),
            )
            insertion(Response).store(response)
            # Somebody who comes back may have lost trials.
            return Accepted(response, True, _moved_on(session, late, now, ahead if was_open else None))
    except IntegrityError as error:
        # The trial was locked with its session, so the id is what stands in the way: another trial's answer has it.
        if not Response.objects.filter(pk=response_id).exists():
            raise
        raise refuse("response_id_taken") from error


@transaction.atomic
def skip_trial(*, session: Session, trial_id: UUID, now: datetime) -> Standing:
    """Note that a trial's image could not be shown, and go on without it. Doing it again changes nothing.

    Where images are handed out one by one, somebody else is asked about it.

    Raises:
        AnnotationError: `trial_already_answered`, `session_not_at_trials`.
        Trial.DoesNotExist: the session has no such trial.
    """
    trial = sessions.lock_trial(session, trial_id)
    session = trial.session
    if Response.objects.filter(trial=trial).exists():
        raise refuse("trial_already_answered")
    if trial.skipped_at is not None:
        return selectors.standing(session)
    session, late = _at_its_step(session, trial, now)
    trial.skipped_at = now
    trial.save(update_fields=["skipped_at"])
    places.passed_over(trial)
    return _moved_on(session, late, now)


def columns(elicited: Elicited) -> dict[str, Any]:
    """A checked answer as `Response` stores it."""
    top_category, top_percentage = elicited.named[0]
    return {
        "named": [list(pair) for pair in elicited.named],
        "impossible": sorted(elicited.impossible),
        "top_category": top_category,
        "top_percentage": top_percentage,
        "sum_percentage": sum(percentage for _, percentage in elicited.named),
    }


def _at_its_step(session: Session, trial: Trial, now: datetime) -> tuple[Session, bool]:
    """The locked session, back if it had been given up, and whether the trial's place is gone for good."""
    was_away = session.status == SessionStatus.ABANDONED
    try:
        session = sessions.come_back_locked(session, now)
    except AnnotationError as error:
        if error.code != "place_given_away":
            raise
        return session, True
    step = SessionStatus.PRACTICE if trial.kind == TrialKind.PRACTICE else SessionStatus.TRIALS
    if session.status != step:
        passed_over = Trial.objects.filter(pk=trial.pk, skipped_at__isnull=False)
        if was_away and step == SessionStatus.TRIALS and passed_over.exists():
            # Others have the places of all that was left, and the session has just gone on without it.
            return session, True
        raise refuse("session_not_at_trials")
    return session, False


def _moved_on(session: Session, late: bool, now: datetime, standing: Standing | None = None) -> Standing:
    """Note the sign of life, and end the session's step where that was its last trial. Where it stands is read where
    it is not known."""
    standing = standing or selectors.standing(session)
    if late:
        # Not open, and yet somebody is there.
        session.seen_at = now
        session.save(update_fields=["seen_at"])
        if standing.next_trial is None:
            sessions.come_back_locked(session, now)
        return Standing(standing.done, standing.total, None)
    sessions.saw(session, now)
    if standing.next_trial is None:
        if session.status == SessionStatus.PRACTICE:
            sessions.after_practice(session, now)
        else:
            sessions.after_last_answer(session, now)
    return standing
