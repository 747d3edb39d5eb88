"""Sessions whose answers cease to count: people who withdraw, and sessions that a curator excludes."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from annotations import audit, selectors
from annotations.errors import refuse
from annotations.models import ExclusionReason, Session, SessionStatus
from annotations.services import erasing, places, sessions
from annotations.signals import session_leaves


@transaction.atomic
def withdraw(*, session_id: UUID, now: datetime) -> Session:
    """Erase what a person gave: answers, questionnaire, platform id, and whatever was made of them (`erasing.FATES`).
    Their place goes to somebody else.

    The row of the session stays, under a new pseudonym, to say that somebody withdrew and when.

    Raises:
        AnnotationError: `already_withdrawn`.
    """
    session = sessions.lock(session_id)
    if session.status == SessionStatus.WITHDRAWN:
        raise refuse("already_withdrawn")
    session_leaves.send(Session, session=session, why="withdrawn", reason="")
    places.give_back(session)
    erasing.erase(session)
    session.refresh_from_db()
    session.status, session.withdrawn_at = SessionStatus.WITHDRAWN, now
    session.save(update_fields=["status", "withdrawn_at"])
    audit.record("withdrew", session, study=session.study_id)
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
    places.give_back(session)
    session.excluded_at, session.excluded_by = now, by
    session.exclusion_reason, session.exclusion_note = reason, note
    session.save()
    audit.record(
        "excluded", session, study=session.study_id, actor=by, details={"reason": ExclusionReason(reason).label}
    )
    return session


@transaction.atomic
def reinstate(*, session_id: UUID) -> Session:
    """Take an excluded session back in, if its images still have room. Releases that left it out stay as they are.

    Of images handed out one by one its answers on those count that have.

    Raises:
        AnnotationError: `not_excluded`, `place_taken`.
    """
    session = sessions.lock(session_id)
    if session.excluded_at is None:
        raise refuse("not_excluded")
    if batches := selectors.batches_of(session):
        held = places.claim_again(session, batches)
        if not held:
            raise refuse("place_taken")
        sessions.take_up(session, held)
    session.excluded_at, session.excluded_by = None, None
    session.exclusion_reason = session.exclusion_note = ""
    session.save()
    audit.record("took back in", session, study=session.study_id)
    return session
