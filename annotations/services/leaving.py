"""Sessions whose answers cease to count: people who withdraw, and sessions that a curator excludes."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from annotations import selectors
from annotations.errors import refuse
from annotations.models import ExclusionReason, Session, SessionStatus, TrialKind
from annotations.services import sessions
from annotations.signals import session_leaves


@transaction.atomic
def withdraw(*, session_id: UUID, now: datetime) -> Session:
    """Erase what a person gave: answers, questionnaire and platform id. Their place goes to somebody else.

    The row of the session stays, with its pseudonym, to say that somebody withdrew and when.

    Raises:
        AnnotationError: `already_withdrawn`.
    """
    session = sessions.lock(session_id)
    if session.status == SessionStatus.WITHDRAWN:
        raise refuse("already_withdrawn")
    session_leaves.send(Session, session=session, why="withdrawn", reason="")
    sessions.give_back_place(session)
    session.trials.all().delete()
    if check := getattr(session, "consistency", None):
        check.delete()
    session.status, session.withdrawn_at = SessionStatus.WITHDRAWN, now
    session.questionnaire, session.exclusion_note = {}, ""
    session.save()
    participant = session.participant
    participant.platform_id = ""
    participant.save(update_fields=["platform_id"])
    return session


@transaction.atomic
def exclude(*, session_id: UUID, reason: ExclusionReason, note: str, by: User | None, now: datetime) -> Session:
    """Leave a session out of every release from now on, and offer its place anew. Its answers stay.

    Raises:
        AnnotationError: `already_excluded`, `already_withdrawn`.
    """
    session = sessions.lock(session_id)
    if session.status == SessionStatus.WITHDRAWN:
        raise refuse("already_withdrawn")
    if session.excluded_at is not None:
        raise refuse("already_excluded")
    session_leaves.send(Session, session=session, why="excluded", reason=reason)
    sessions.give_back_place(session)
    session.excluded_at, session.excluded_by = now, by
    session.exclusion_reason, session.exclusion_note = reason, note
    session.save()
    return session


@transaction.atomic
def reinstate(*, session_id: UUID) -> Session:
    """Take an excluded session back in, if its images still have room. Releases that left it out stay as they are.

    Raises:
        AnnotationError: `not_excluded`, `place_taken`.
    """
    session = sessions.lock(session_id)
    if session.excluded_at is None:
        raise refuse("not_excluded")
    batch_id = selectors.batch_of(session)
    if batch_id is not None:
        place = sessions.claim_place(session, batch_id)
        if place is None:
            raise refuse("place_taken")
        session.trials.filter(kind=TrialKind.MAIN).update(place=place)
    session.excluded_at, session.excluded_by = None, None
    session.exclusion_reason = session.exclusion_note = ""
    session.save()
    return session
