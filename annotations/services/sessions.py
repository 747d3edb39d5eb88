"""A session from consent to completion, and what becomes of one that nobody comes back to.

Every function that changes a session locks its row first: one session's writes happen one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from annotations import selectors
from annotations.assignment import draw_category_order, plan_session, with_checks
from annotations.errors import refuse
from annotations.kinds import CHECK_SESSION
from annotations.models import (
    Arm,
    Framing,
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
from annotations.models.participation import OPEN_STATUSES, SIGN_OF_LIFE, new_annotator, pseudonym
from annotations.questionnaire import wrong_answers
from annotations.services import bulk, places
from annotations.statements import Change, Statement, insertion
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
    arm, drawn_from = draw_arm(study, rng)
    if not selectors.has_free_place(study, arm):
        raise refuse("study_full")
    order = draw_category_order(selectors.category_count(study), rng, shuffle=study.shuffle_categories)
    try:
        # Nobody else can be the same person where no platform says who they are.
        with transaction.atomic(savepoint=bool(platform_id)):
            participant = _enrol(study, platform_id)
            session = Session(
                study=study,
                participant=participant,
                consent=consent,
                arm=arm,
                arms_drawn_from=drawn_from,
                consented_at=now,
                seen_at=now,
                category_order=order,
            )
            insertion(Session).store(session)
            return session
    except IntegrityError:
        # The same person pressed twice: the first press won.
        if known := selectors.resumable_session(study, platform_id):
            return known
        raise


def _enrol(study: Study, platform_id: str) -> Participant:
    participant = Participant.of(study, platform_id)
    attempt = 0
    while _named().first(study.pk, participant.annotator) is not None:
        attempt += 1
        participant.annotator = pseudonym(study.pk, platform_id, attempt) if platform_id else new_annotator()
    insertion(Participant).store(participant)
    return participant


@cache
def _named() -> Statement:
    return Statement(
        "SELECT 1 FROM {participant} WHERE participant.study_id = %s AND participant.annotator = %s",
        tables={"participant": Participant},
        parameters="participant.study participant.annotator",
    )


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


def draw_arm(study: Study, rng: np.random.Generator) -> tuple[Arm | None, list[str]]:
    """An arm for a new session, drawn at random among those least filled, and their names; None where there are none.

    An arm is filled by sessions under way and completed, in proportion to its weight; one without a free place is not
    drawn. What the draw depends on does not grow with the number of images.
    """
    arms = selectors.arms_to_draw_from(study)
    if not arms:
        return None, []
    return arms[int(rng.integers(len(arms)))], [arm.name for arm in arms]


def _next_step(session: Session, now: datetime, rng: np.random.Generator) -> Session:
    """The step after the instructions or the practice. Steps whose setting is empty are passed over."""
    study = session.study
    if study.practice and session.status == SessionStatus.INSTRUCTIONS:
        _welcome(session)
        _lay_out_practice(session)
        return _set(session, status=SessionStatus.PRACTICE, seen_at=now)
    if study.comprehension:
        _welcome(session)
        return _set(session, status=SessionStatus.COMPREHENSION, seen_at=now)
    return _begin_trials(session, now, rng)


def _welcome(session: Session) -> None:
    """Let nobody practise for a place that is gone already."""
    study = session.study
    if study.status != StudyStatus.LIVE:
        raise refuse("study_not_live")
    if not selectors.has_free_place(study, session.arm):
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
    if not places.claim(session):
        raise refuse("study_full")
    place_on = selectors.places_on_images(session)
    checks = selectors.checks_to_show(study)
    plan = with_checks(
        plan_session(list(place_on), study.repeats_per_session, rng), [check.image_id for check in checks], rng
    )
    # In a study that asks two questions, one right after the other about the same image.
    asked = Framing(study.framing).asked
    laid_out: dict[tuple[int, Framing], dict[str, Any]] = {}
    for number, planned in enumerate(plan):
        check = None if planned.check is None else checks[planned.check]
        for framing in asked if check is None else asked[:1]:
            first = planned.repeat_of is None
            kind = TrialKind(check.kind) if check else TrialKind.MAIN if first else TrialKind.REPEAT
            laid_out[number, framing] = {
                "id": uuid4(),
                "image_id": planned.image,
                "position": len(laid_out) + 1,
                "kind": kind,
                "framing": framing,
                "place_id": place_on[planned.image] if kind == TrialKind.MAIN else None,
                "repeat_of_id": None if planned.repeat_of is None else laid_out[planned.repeat_of, framing]["id"],
                "check_item_id": check.pk if check else None,
            }
    columns = zip(*(trial.values() for trial in laid_out.values()), strict=True)
    names = next(iter(laid_out.values())).keys()
    bulk.insert(Trial, {"session_id": session.pk}, dict(zip(names, columns, strict=True)))
    return _set(session, status=SessionStatus.TRIALS, trials_begun_at=now, seen_at=now)


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
    places.answered(session)
    enqueue(CHECK_SESSION, session.pk)


def wake(session: Session, now: datetime) -> Session:
    """The session of somebody who is there: come back if it was given up, with this sign of life noted.

    Raises:
        AnnotationError: `place_given_away`.
    """
    if session.status == SessionStatus.ABANDONED:
        session = come_back(session_id=session.pk, now=now)
    saw(session, now)
    return session


def saw(session: Session, now: datetime) -> None:
    """Note a sign of life, but not with each answer: the row's index entries are all written anew."""
    if session.is_open and now - session.seen_at > SIGN_OF_LIFE:
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


@transaction.atomic
def give_up(*, session_id: UUID) -> bool:
    """Free the place of a session whose person left, as their platform says. Whether it was at work until now."""
    session = lock(session_id)
    if not session.is_open:
        return False
    _abandon(session)
    return True


def _abandon(session: Session) -> None:
    places.give_back(session)
    _set(session, status=SessionStatus.ABANDONED)


def come_back(*, session_id: UUID, now: datetime) -> Session:
    """Let an abandoned session go on, if its images still have places or nothing is left to answer.

    Of images handed out one by one it goes on with those that have; the others are passed over.

    Raises:
        AnnotationError: `place_given_away`.
    """
    with transaction.atomic():
        return come_back_locked(lock(session_id), now)


def come_back_locked(session: Session, now: datetime) -> Session:
    """`come_back` for a session whose row the caller has locked."""
    if session.status != SessionStatus.ABANDONED:
        return session
    if not session.trials.filter(kind=TrialKind.MAIN).exists():
        return _set(session, status=_step_before_trials(session), seen_at=now)
    done, all_trials = selectors.trial_counts(session)
    # Whoever is excluded may finish all the same, but takes nobody's place.
    if not session.excluded_at:
        held = places.claim_again(session, selectors.batches_of(session))
        if not held and done < all_trials:
            raise refuse("place_given_away")
        take_up(session, held)
        selectors.unplaced_trials(session).update(skipped_at=now)
        done, all_trials = selectors.trial_counts(session)
    if done < all_trials:
        return _set(session, status=SessionStatus.TRIALS, seen_at=now)
    after_last_answer(session, now)
    return session


def take_up(session: Session, held: Sequence[Place]) -> None:
    """Let the session's main trials count in these places, each on its own batch's images."""
    for place in held:
        images = StudyImage.objects.filter(batch_id=place.batch_id).values("image_id")
        session.trials.filter(kind=TrialKind.MAIN, image_id__in=images).update(place=place)


def _step_before_trials(session: Session) -> SessionStatus:
    """Where a session stood that had no trials yet. At worst it is asked to read the instructions again."""
    if session.comprehension_attempts:
        return SessionStatus.COMPREHENSION
    return SessionStatus.PRACTICE if session.trials.exists() else SessionStatus.INSTRUCTIONS


def lock(session_id: UUID) -> Session:
    """The session's row, to be written by nobody else. Its study comes with the settings of the session's arm."""
    session = selectors.locked_session(session_id)
    if session is None:
        raise Session.DoesNotExist
    return session


def lock_trial(session: Session, trial_id: UUID) -> Trial:
    """A trial of this session, the session's row locked and as it is now, its study as the caller's session has it.

    Raises:
        Trial.DoesNotExist: the session has no such trial.
    """
    trial = selectors.locked_trial(session, trial_id)
    if trial is None:
        raise Trial.DoesNotExist
    return trial


def _set(session: Session, **values: Any) -> Session:
    for name, value in values.items():
        setattr(session, name, value)
    _change(tuple(values)).store(session)
    return session


@cache
def _change(names: tuple[str, ...]) -> Change:
    return Change(Session, names)
