from __future__ import annotations

import uuid

import pytest

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import Response, Session, Trial
from elicit.labels.elicited import Contradiction
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def session() -> Session:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    return make.begin(make.make_session(study))


@pytest.fixture
def trial(session: Session) -> Trial:
    return selectors.open_trials(session)[0]


def test_an_answer_is_stored_as_it_was_said(trial: Trial) -> None:
    accepted = make.respond(trial, ((3, 60), (5, 30.5)), (9, 0, 0), duration_ms=1234)

    stored = Response.objects.get()
    assert stored.pk == accepted.response.pk
    assert stored.named == [[3, 60.0], [5, 30.5]]
    assert stored.impossible == [0, 9]
    assert (stored.top_category, stored.top_percentage, stored.sum_percentage) == (3, 60.0, 90.5)
    assert (stored.duration_ms, stored.hidden_ms, stored.received_at) == (1234, 0, make.NOON)
    assert stored.elicited.named == ((3, 60.0), (5, 30.5))
    assert stored.elicited.impossible == {0, 9}


def test_an_answer_tells_what_comes_next(session: Session, trial: Trial) -> None:
    accepted = make.respond(trial)

    standing = accepted.standing
    assert (accepted.created, standing.done, standing.total) == (True, 1, 5)
    assert standing.next_trial == selectors.open_trials(session)[0]


def test_answers_may_come_in_any_order(session: Session) -> None:
    for trial in reversed(selectors.open_trials(session)):
        last = make.respond(trial)

    assert last.standing.next_trial is None
    session.refresh_from_db()
    assert session.status == "questionnaire"


def test_the_same_answer_under_the_same_id_is_one_answer(trial: Trial) -> None:
    key = uuid.uuid4()

    first, again = make.respond(trial, response_id=key), make.respond(trial, response_id=key)

    assert (first.created, again.created) == (True, False)
    assert again.response.pk == first.response.pk
    assert Response.objects.count() == 1


def test_the_last_answer_may_be_sent_again_after_the_session_moved_on(session: Session) -> None:
    keys = {trial: uuid.uuid4() for trial in selectors.open_trials(session)}
    for trial, key in keys.items():
        make.respond(trial, response_id=key)

    again = make.respond(trial, response_id=key)

    assert (again.created, again.standing.next_trial, again.standing.done) == (False, None, 5)


def test_another_answer_under_the_same_id_is_refused(trial: Trial) -> None:
    key = uuid.uuid4()
    make.respond(trial, response_id=key)

    with pytest.raises(AnnotationError) as refused:
        make.respond(trial, ((4, 80.0),), response_id=key)

    assert refused.value.code == "response_id_taken"
    assert Response.objects.get().top_category == 3


def test_a_second_answer_to_a_trial_is_refused(trial: Trial) -> None:
    make.respond(trial)

    with pytest.raises(AnnotationError) as refused:
        make.respond(trial)

    assert refused.value.code == "trial_already_answered"
    assert Response.objects.count() == 1


def test_an_id_serves_one_trial_only(session: Session) -> None:
    first, second = selectors.open_trials(session)[:2]
    key = uuid.uuid4()
    make.respond(first, response_id=key)

    with pytest.raises(AnnotationError) as refused:
        make.respond(second, response_id=key)

    assert refused.value.code == "response_id_taken"


def test_a_contradiction_is_refused_and_nothing_is_stored(session: Session, trial: Trial) -> None:
    with pytest.raises(Contradiction):
        make.respond(trial, ((3, 30), (4, 60)))

    assert not Response.objects.exists()
    session.refresh_from_db()
    assert len(selectors.open_trials(session)) == 5


def test_a_completed_session_takes_no_answer_to_a_trial_that_it_lacks() -> None:
    study = make.make_study(dataset=make.make_dataset(4), questionnaire=[])
    session = make.answer_all(make.begin(make.make_session(study)))
    trial = session.trials.get(position=1)
    trial.responses.all().delete()

    with pytest.raises(AnnotationError) as refused:
        make.respond(trial)

    assert refused.value.code == "session_not_at_trials"


def test_a_trial_of_another_session_is_not_there(trial: Trial) -> None:
    other = make.begin(make.make_session(trial.session.study))
    trial.session = other

    with pytest.raises(Trial.DoesNotExist):
        make.respond(trial)
