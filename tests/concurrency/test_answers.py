"""One trial, one response, however often and however simultaneously it is sent."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from uuid import UUID

import pytest
from django.db import connection

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import Response, Session, SessionStatus, Trial
from annotations.services import sessions
from annotations.services.responses import Accepted
from jobs.models import Job
from tests import factories as make
from tests.concurrency.together import PATIENCE, together

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def session() -> Session:
    """At its trials: two images and one repeat."""
    study = make.make_study(
        dataset=make.make_dataset(2), labels_per_image=2, images_per_session=2, repeats_per_session=1
    )
    return make.begin(make.make_session(study))


def codes(outcomes: list[Accepted | Exception]) -> list[str]:
    """The codes of the refusals among the outcomes; anything else that was raised is raised here."""
    refused = []
    for outcome in outcomes:
        if isinstance(outcome, AnnotationError):
            refused.append(outcome.code)
        elif isinstance(outcome, Exception):
            raise outcome
    return refused


@contextmanager
def without_unique_trial() -> Iterator[None]:
    """The database as it would be if a trial could have several responses. These go at the end."""
    names = {"one_current_response_per_trial", "revision_once_per_trial"}
    unique = [constraint for constraint in Response._meta.constraints if constraint.name in names]
    with connection.schema_editor() as editor:
        for constraint in unique:
            editor.remove_constraint(Response, constraint)
    try:
        yield
    finally:
        Response.objects.all().delete()
        with connection.schema_editor() as editor:
            for constraint in unique:
                editor.add_constraint(Response, constraint)


def test_without_lock_and_constraint_two_answers_to_one_trial_are_both_stored(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the rivals below really meet."""
    both_have_read = threading.Barrier(2)

    def no_lock(session: Session, trial_id: UUID) -> Trial:
        return Trial.objects.select_related("session__study").get(pk=trial_id, session=session)

    def between_read_and_write(found: Session, now: datetime) -> Session:
        both_have_read.wait(PATIENCE)
        return found

    monkeypatch.setattr(sessions, "lock_trial", no_lock)
    monkeypatch.setattr(sessions, "come_back_locked", between_read_and_write)
    trial = selectors.open_trials(session)[0]
    with without_unique_trial():
        outcomes = together([partial(make.respond, trial, named=((category, 90),)) for category in (3, 5)])
        assert codes(outcomes) == []
        assert Response.objects.filter(trial=trial).count() == 2


def test_of_two_answers_to_one_trial_sent_at_the_same_moment_one_is_stored(session: Session) -> None:
    trial = selectors.open_trials(session)[0]
    outcomes = together([partial(make.respond, trial, named=((category, 90),)) for category in range(8)])
    assert codes(outcomes) == ["trial_already_answered"] * 7
    [accepted] = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    assert Response.objects.get(trial=trial) == accepted.response


def test_the_same_answer_sent_twice_at_the_same_moment_is_stored_once_and_accepted_twice(session: Session) -> None:
    trial = selectors.open_trials(session)[0]
    response_id = uuid.uuid4()
    outcomes = together([partial(make.respond, trial, response_id=response_id)] * 8)
    assert codes(outcomes) == []
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    assert sorted(each.created for each in accepted) == [False] * 7 + [True]
    assert {each.standing.done for each in accepted} == {1}
    assert Response.objects.get().pk == response_id


def test_several_corrections_of_one_answer_at_the_same_moment_make_one_revision(session: Session) -> None:
    trial = selectors.open_trials(session)[0]
    first = make.respond(trial).response
    outcomes = together([partial(make.respond, trial, ((category, 90),), revises=first.pk) for category in range(8)])
    assert codes(outcomes) == ["trial_already_answered"] * 7
    assert list(Response.objects.order_by("revision").values_list("revision", "current")) == [(1, False), (2, True)]


def test_one_id_sent_for_two_people_at_the_same_moment_is_one_person_s_and_refused_to_the_other() -> None:
    study = make.make_study(dataset=make.make_dataset(1), labels_per_image=8)
    trials = [selectors.open_trials(make.begin(make.make_session(study, seed=n), seed=n))[0] for n in range(8)]
    response_id = uuid.uuid4()
    outcomes = together([partial(make.respond, trial, response_id=response_id) for trial in trials])
    assert codes(outcomes) == ["response_id_taken"] * 7
    assert Response.objects.get().pk == response_id


def test_the_last_answers_of_a_session_sent_together_lead_on_once(session: Session) -> None:
    trials = list(Trial.objects.filter(session=session).select_related("session"))
    outcomes = together([partial(make.respond, trial) for trial in trials])
    assert codes(outcomes) == []
    session.refresh_from_db()
    assert session.status == SessionStatus.QUESTIONNAIRE
    ends = together([partial(sessions.save_questionnaire, session_id=session.pk, answers={}, now=make.NOON)] * 6)
    assert [end for end in ends if isinstance(end, Exception)] == []
    session.refresh_from_db()
    assert session.status == SessionStatus.COMPLETED
    assert Job.objects.get().subject == str(session.pk)
