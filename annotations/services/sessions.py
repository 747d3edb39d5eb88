"""A session from consent to completion, and what becomes of one that nobody comes back to.

Every function that changes a session locks its row first: one session's writes happen one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from annotations import selectors
from annotations.assignment import draw_category_order, plan_session
from annotations.errors import refuse
from annotations.kinds import CHECK_SESSION
from annotations.models import (
    Framing,
    Participant,
    Place,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    Trial,
    TrialKind,
)
from annotations.models.participation import OPEN_STATUSES
from annotations.questionnaire import wrong_answers
from jobs.services import enqueue

COMPREHENSION_ATTEMPTS = 2
BEFORE_TRIALS = (SessionStatus.INSTRUCTIONS, SessionStatus.PRACTICE, SessionStatus.COMPREHENSION)


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
        raise refuse("consent_missing", _("The text has changed: please read it again."))
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
def leave_instructions(*, session_id: UUID, now: datetime, rng: np.random.Generator) -> Session:
    """Go on to the next step that the study has: practice, comprehension check or trials. Once.

    Raises:
        AnnotationError: `study_full` when the last place has gone, `study_not_live`.
    """
    session = lock(session_id)
    return _next_step(session, now, rng) if session.status == SessionStatus.INSTRUCTIONS else session


@transaction.atomic
def leave_practice(*, session_id: UUID, now: datetime, rng: np.random.Generator) -> Session:
    """As `leave_instructions`, once every practice trial is answered."""
    session = lock(session_id)
    if session.status != SessionStatus.PRACTICE or selectors.next_trial(session) is not None:
        return session
    return _next_step(session, now, rng)


@transaction.atomic
def check_comprehension(
    *, session_id: UUID, attempt: int, answers: Mapping[str, object], now: datetime, rng: np.random.Generator
) -> tuple[Session, list[str]]:
    """Judge the answers to the comprehension check: on to the trials, another attempt, or the way out.

    Args:
        attempt: how many attempts there had been when the questions were shown. Answers to an earlier showing change
            nothing: a form that is sent twice counts once.

    Returns:
        The session, and the names of the questions that were answered wrongly.

    Raises:
        AnnotationError: the answers are right, but `study_full` or `study_not_live`.
    """
    session = lock(session_id)
    if session.status != SessionStatus.COMPREHENSION or attempt != session.comprehension_attempts:
        return session, []
    wrong = wrong_answers(session.study.comprehension, answers)
    _set(session, comprehension_attempts=attempt + 1, seen_at=now)
    if not wrong:
        return _begin_trials(session, now, rng), []
    if session.comprehension_attempts >= COMPREHENSION_ATTEMPTS:
        _set(session, status=SessionStatus.SCREENED_OUT)
    return session, wrong


@transaction.atomic
def begin_trials(*, session_id: UUID, now: datetime, rng: np.random.Generator) -> Session:
    """Take a place and lay out the session's trials, whatever steps would come before. Once.

    Raises:
        AnnotationError: `study_full` when the last place has gone, `study_not_live`.
    """
    session = lock(session_id)
    return _begin_trials(session, now, rng) if session.status in BEFORE_TRIALS else session


def _next_step(session: Session, now: datetime, rng: np.random.Generator) -> Session:
    """The step after the instructions or the practice. Steps whose setting is empty are passed over."""
    study = session.study
    if study.practice and session.status == SessionStatus.INSTRUCTIONS:
        _welcome(study)
        _lay_out_practice(session)
        return _set(session, status=SessionStatus.PRACTICE, seen_at=now)
    if study.comprehension:
        _welcome(study)
        return _set(session, status=SessionStatus.COMPREHENSION, seen_at=now)
    return _begin_trials(session, now, rng)


def _welcome(study: Study) -> None:
    """Let nobody practise for a place that is gone already."""
    if study.status != StudyStatus.LIVE:
        raise refuse("study_not_live")
    if not selectors.has_free_place(study):
        raise refuse("study_full")


def _lay_out_practice(session: Session) -> None:
    study = session.study
    asked = Framing(study.framing).asked
    images = selectors.practice_images(study)
    Trial.objects.bulk_create(
        Trial(
            session=session,
            image=images[item["image"]],
            position=number * len(asked) + offset,
            kind=TrialKind.PRACTICE,
            framing=framing,
        )
        for number, item in enumerate(study.practice)
        for offset, framing in enumerate(asked, 1)
    )


def _begin_trials(session: Session, now: datetime, rng: np.random.Generator) -> Session:
    study = session.study
    if study.status != StudyStatus.LIVE:
        raise refuse("study_not_live")
    place = claim_place(session)
    if place is None:
        raise refuse("study_full")
    images = list(place.batch.study_images.order_by("pk").values_list("image_id", flat=True))
    plan = plan_session(images, study.repeats_per_session, rng)
    # In a study that asks two questions, one right after the other about the same image.
    asked = Framing(study.framing).asked
    trials: dict[tuple[int, Framing], Trial] = {}
    for number, planned in enumerate(plan):
        for framing in asked:
            trials[number, framing] = Trial(
                session=session,
                image_id=planned.image,
                position=len(trials) + 1,
                kind=TrialKind.MAIN if planned.repeat_of is None else TrialKind.REPEAT,
                framing=framing,
                place=place if planned.repeat_of is None else None,
                repeat_of=None if planned.repeat_of is None else trials[planned.repeat_of, framing],
            )
    Trial.objects.bulk_create(trials.values())
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


def after_practice(session: Session, now: datetime) -> None:
    """Move on from the practice of a locked session: to the comprehension check. Where there is none the session
    waits for the annotator, who says when the trials shall begin."""
    if session.study.comprehension:
        _set(session, status=SessionStatus.COMPREHENSION, seen_at=now)


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
    give_back_place(session)
    _set(session, status=SessionStatus.ABANDONED)


def give_back_place(session: Session) -> None:
    """Offer a locked session's place to others. Its answers stay, but count towards no K."""
    session.trials.update(place=None)
    Place.objects.filter(session=session).update(session=None)


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
    batch_id = selectors.batch_of(session)
    if batch_id is None:
        return _set(session, status=_step_before_trials(session), seen_at=now)
    done, all_trials = selectors.trial_counts(session)
    # Whoever is excluded may finish all the same, but takes nobody's place.
    place = None if session.excluded_at else claim_place(session, batch_id)
    if place is not None:
        session.trials.filter(kind=TrialKind.MAIN).update(place=place)
    elif done < all_trials and not session.excluded_at:
        raise refuse("place_given_away")
    if done < all_trials:
        return _set(session, status=SessionStatus.TRIALS, seen_at=now)
    after_last_answer(session, now)
    return session


def _step_before_trials(session: Session) -> SessionStatus:
    """Where a session stood that had no trials yet. At worst it is asked to read the instructions again."""
    if session.comprehension_attempts:
        return SessionStatus.COMPREHENSION
    return SessionStatus.PRACTICE if session.trials.exists() else SessionStatus.INSTRUCTIONS


def lock(session_id: UUID) -> Session:
    return Session.objects.select_for_update(of=("self",)).select_related("study", "study__dataset").get(pk=session_id)


def _set(session: Session, **values: Any) -> Session:
    for name, value in values.items():
        setattr(session, name, value)
    session.save(update_fields=list(values))
    return session
