"""Take an answer in: the one write that has to be right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from annotations import selectors
from annotations.errors import refuse
from annotations.models import Response, Session, SessionStatus, Trial
from annotations.services import sessions
from elicit.labels import Elicited
from elicit.labels.elicited import check


@dataclass(frozen=True)
class Timing:
    """Milliseconds on the trial: with the tab visible, and hidden."""

    duration_ms: int
    hidden_ms: int = 0


@dataclass(frozen=True)
class Accepted:
    """A stored response, where the session stands now, and whether this call stored it."""

    response: Response
    created: bool
    done: int
    total: int
    next_trial: Trial | None


@transaction.atomic
def submit_response(
    *,
    session: Session,
    trial_id: UUID,
    response_id: UUID,
    named: Sequence[tuple[object, object]],
    impossible: Iterable[object],
    timing: Timing,
    now: datetime,
) -> Accepted:
    """Store what an annotator says of a trial of their session.

    The same id with the same answer again is the same response: an answer may be sent as often as the network needs.

    Raises:
        Contradiction: the answer contradicts itself or the study's rules; nothing is stored.
        AnnotationError: `trial_already_answered`, `response_id_taken`, `session_not_at_trials`, `place_given_away`.
        Trial.DoesNotExist: the session has no such trial.
    """
    session = sessions.lock(session.pk)
    trial = Trial.objects.select_related("image").get(pk=trial_id, session=session)
    categories = selectors.category_count(session.study)
    elicited = check(named, impossible, selectors.answer_rules(session.study, categories))
    if (stored := Response.objects.filter(trial=trial).first()) is not None:
        if stored.pk != response_id:
            raise refuse("trial_already_answered")
        if stored.elicited != elicited:
            raise refuse("response_id_taken")
        return _accepted(session, stored, created=False)
    session = sessions.come_back_locked(session, now)
    if session.status != SessionStatus.TRIALS:
        raise refuse("session_not_at_trials")
    try:
        with transaction.atomic():
            response = Response.objects.create(
                pk=response_id, trial=trial, received_at=now, **columns(elicited), **timing.__dict__
            )
    except IntegrityError as error:
        # This trial is locked with its session, so the id is what stands in the way: another trial's answer has it.
        raise refuse("response_id_taken") from error
    session.seen_at = now
    session.save(update_fields=["seen_at"])
    accepted = _accepted(session, response, created=True)
    if accepted.next_trial is None:
        sessions.after_last_answer(session, now)
    return accepted


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


def _accepted(session: Session, response: Response, *, created: bool) -> Accepted:
    done, total = selectors.trial_counts(session)
    return Accepted(response, created, done, total, selectors.next_trial(session))
