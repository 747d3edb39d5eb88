"""A session from consent to completion, and what becomes of one that nobody comes back to.

Every function that changes a session locks its row first: one session's writes happen one after the other.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet

from annotations import selectors
from annotations.assignment import draw_category_order, plan_session
from annotations.errors import refuse
from annotations.kinds import CHECK_SESSION
from annotations.models import (
    Participant,
    Place,
    Session,
    SessionStatus,
    Study,
    StudyImage,
    StudyStatus,
    Trial,
    TrialKind,
)
from annotations.models.participation import OPEN_STATUSES
from jobs.services import enqueue


def begin_session(
    *, study: Study, consent_version: int, platform_id: str, now: datetime, rng: np.random.Generator
) -> Session:
    """Record that a person agrees to the consent text they were shown, and give them a session.

    A person who is known by their platform id gets the session that they have.

    Raises:
        AnnotationError: the study is not live, is full, or the consent text has changed meanwhile.
    """
    if known := selectors.resumable_session(study, platform_id):
        return known
    if study.status != StudyStatus.LIVE:
        raise refuse("study_not_live")
    consent = selectors.current_consent(study)
    if consent is None or consent.version != consent_version:
        raise refuse("consent_missing", "The text has changed: please read it again.")
    if not selectors.has_free_place(study):
        raise refuse("study_full")
    order = draw_category_order(study.dataset.categories.count(), rng, shuffle=study.shuffle_categories)
    try:
        with transaction.atomic():
            participant = Participant.objects.create(study=study, platform_id=platform_id)
            return Session.objects.create(
                study=study,
                participant=participant,
                consent=consent,
                consented_at=now,
                seen_at=now,
                category_order=order,
            )
    except IntegrityError:
        # The same person pressed twice: the first press won.
        if known := selectors.resumable_session(study, platform_id):
            return known
        raise


@transaction.atomic
def begin_trials(*, session_id: UUID, now: datetime, rng: np.random.Generator) -> Session:
    """Take a place and lay out the session's trials. Once: a second call changes nothing.

    Raises:
        AnnotationError: `study_full` when the last place has gone, `study_not_live`.
    """
    session = lock(session_id)
    if session.status != SessionStatus.INSTRUCTIONS:
        return session
    study = session.study
    if study.status != StudyStatus.LIVE:
        raise refuse("study_not_live")
    place = claim_place(session)
    if place is None:
        raise refuse("study_full")
    images = list(place.batch.study_images.order_by("pk").values_list("image_id", flat=True))
    plan = plan_session(images, study.repeats_per_session, rng)
    trials = [
        Trial(
            session=session,
            image_id=planned.image,
            position=position,
            kind=TrialKind.MAIN if planned.repeat_of is None else TrialKind.REPEAT,
            place=place if planned.repeat_of is None else None,
        )
        for position, planned in enumerate(plan, 1)
    ]
    for trial, planned in zip(trials, plan, strict=True):
        if planned.repeat_of is not None:
            trial.repeat_of = trials[planned.repeat_of]
    Trial.objects.bulk_create(trials)
    return _set(session, status=SessionStatus.TRIALS, trials_begun_at=now, seen_at=now)


def claim_place(session: Session, batch_id: int | None = None) -> Place | None:
    """Give the session a free place of its study (on one batch, or any: least filled first, then at random).

    Rows that another transaction is just taking are passed over; only when no other is free does it wait for them,
    in case that transaction fails.
    """
    free = Place.objects.filter(study_id=session.study_id, session__isnull=True).order_by("number", "rank")
    if batch_id is not None:
        free = free.filter(batch_id=batch_id)
    # On SQLite the transaction itself, IMMEDIATE, is the lock.
    skip = connection.features.has_select_for_update_skip_locked
    place = _first_locked(free.select_for_update(skip_locked=skip))
    if place is None and skip:
        place = _first_locked(free.select_for_update())
    if place is not None:
        place.session = session
        place.save(update_fields=["session"])
    return place


def _first_locked(free: QuerySet[Place]) -> Place | None:
    """The first row of a locking query; no lock stays behind where there is none.

    PostgreSQL keeps the lock on a row that turns out to be taken meanwhile. Two who found nothing would go on to wait
    for each other's: only the end of a savepoint gives such locks back.
    """
    with transaction.atomic():
        place = free.first()
        if place is None:
            transaction.set_rollback(True)
    return place


def save_questionnaire(*, session_id: UUID, answers: dict[str, Any], now: datetime) -> Session:
    """Store the answers to the questionnaire and complete the session. Once."""
    with transaction.atomic():
        session = lock(session_id)
        if session.status == SessionStatus.QUESTIONNAIRE:
            session.questionnaire = answers
            session.save(update_fields=["questionnaire"])
            complete(session, now)
        return session


def after_last_answer(session: Session, now: datetime) -> None:
    """Move on from the trials of a locked session: to the questionnaire, or to the end where there is none."""
    if session.study.questionnaire:
        _set(session, status=SessionStatus.QUESTIONNAIRE, seen_at=now)
    else:
        complete(session, now)


def complete(session: Session, now: datetime) -> None:
    """Close a locked session and queue its check, in one transaction."""
    _set(session, status=SessionStatus.COMPLETED, completed_at=now, seen_at=now)
    enqueue(CHECK_SESSION, session.pk)


def saw(session: Session, now: datetime) -> None:
    """Note a sign of life, a write a minute at most."""
    if session.is_open and now - session.seen_at > timedelta(minutes=1):
        Session.objects.filter(pk=session.pk, status__in=OPEN_STATUSES).update(seen_at=now)


def give_back_places(now: datetime) -> int:
    """Free the places of sessions that showed no sign for their study's `idle_minutes`. Returns how many sessions.

    Their answers stay. Idempotent, and safe in several processes at once.
    """
    given = 0
    studies = Study.objects.filter(sessions__status__in=OPEN_STATUSES).distinct()
    for study in studies:
        cut = now - timedelta(minutes=study.idle_minutes)
        idle = study.sessions.filter(status__in=OPEN_STATUSES, seen_at__lt=cut).values_list("pk", flat=True)
        for pk in list(idle):
            with transaction.atomic():
                session = lock(pk)
                # It may have come back between the two queries.
                if session.is_open and session.seen_at < cut:
                    _abandon(session)
                    given += 1
    return given


def _abandon(session: Session) -> None:
    session.trials.update(place=None)
    Place.objects.filter(session=session).update(session=None)
    _set(session, status=SessionStatus.ABANDONED)


def come_back(*, session_id: UUID, now: datetime) -> Session:
    """Let an abandoned session go on, if its batch still has a place or nothing is left to answer.

    Raises:
        AnnotationError: `place_given_away`.
    """
    with transaction.atomic():
        return come_back_locked(lock(session_id), now)


def come_back_locked(session: Session, now: datetime) -> Session:
    """`come_back` for a session whose row the caller has locked."""
    if session.status != SessionStatus.ABANDONED:
        return session
    first = session.trials.filter(kind=TrialKind.MAIN).order_by("position").first()
    if first is None:
        return _set(session, status=SessionStatus.INSTRUCTIONS, seen_at=now)
    batch_id = StudyImage.objects.values_list("batch_id", flat=True).get(
        study_id=session.study_id, image_id=first.image_id
    )
    done, all_trials = selectors.trial_counts(session)
    place = claim_place(session, batch_id)
    if place is not None:
        session.trials.filter(kind=TrialKind.MAIN).update(place=place)
    elif done < all_trials:
        raise refuse("place_given_away")
    if done < all_trials:
        return _set(session, status=SessionStatus.TRIALS, seen_at=now)
    after_last_answer(session, now)
    return session


def lock(session_id: UUID) -> Session:
    return Session.objects.select_for_update(of=("self",)).select_related("study", "study__dataset").get(pk=session_id)


def _set(session: Session, **values: Any) -> Session:
    for name, value in values.items():
        setattr(session, name, value)
    session.save(update_fields=list(values))
    return session
