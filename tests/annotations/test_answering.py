"""What each answer reads: few queries, which say what the slower ones say."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from annotations import selectors
from annotations.models import Session, SessionStatus, Study, Trial, TrialKind
from annotations.services import responses, sessions, studies
from annotations.services.arms import write_arms
from tests import factories as make

pytestmark = pytest.mark.django_db

# The session by its link; the trial, with the session's lock; where the session will stand; the answer. Savepoints are
# the test's own.
QUERIES_OF_AN_ANSWER = 4


def put(session: Session, trial: Trial) -> int:
    body = {"named": [{"category": 3, "percentage": 80}], "impossible": [1], "duration_ms": 900}
    return (
        Client()
        .put(
            f"/api/trials/{trial.pk}/responses/{uuid.uuid4()}",
            json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Session {session.token}"},
        )
        .status_code
    )


def queries_of_an_answer(study: Study) -> list[str]:
    session = make.begin(make.make_session(study))
    first, second, *_ = selectors.open_trials(session)
    # The first one notes a sign of life, which the others do for a minute.
    assert put(session, first) == 201
    with CaptureQueriesContext(connection) as asked:
        assert put(session, second) == 201
    return [each["sql"] for each in asked.captured_queries if "SAVEPOINT" not in each["sql"]]


@pytest.mark.parametrize("images", [4, 40])
def test_an_answer_takes_four_queries_however_many_images_there_are(images: int) -> None:
    study = make.make_study(dataset=make.make_dataset(images), images_per_session=4, repeats_per_session=1)

    assert len(queries_of_an_answer(study)) == QUERIES_OF_AN_ANSWER


def test_an_answer_reads_nothing_of_the_studys_texts() -> None:
    asked = " ".join(queries_of_an_answer(make.make_study()))

    assert "instructions" not in asked
    assert "comprehension" not in asked


def stands_as_before(session: Session) -> None:
    told = selectors.standing(session)

    assert (told.done, told.total) == selectors.trial_counts(session)
    assert told.next_trial == selectors.next_trial(session)
    following = selectors.next_trial(session)
    if told.next_trial is not None and following is not None:
        assert told.next_trial.image.sha256 == following.image.sha256
        assert told.next_trial.framing == following.framing
        assert (told.next_trial.check_item is None) == (following.check_item is None)


def test_where_a_session_stands_is_the_same_by_one_query_as_by_two() -> None:
    steps: dict[str, Any] = {"practice": [{"image": 15, "feedback": "Yes."}], "comprehension": []}
    study = make.make_study(launch=False, images_per_session=5, repeats_per_session=2, **steps)
    studies.choose_images(study, range(10), make.rng())
    session = make.make_session(studies.launch(study.pk, make.rng()))
    stands_as_before(session)
    session = sessions.leave_instructions(session_id=session.pk, now=make.NOON, rng=make.rng())
    assert session.status == SessionStatus.PRACTICE
    stands_as_before(session)
    make.respond(selectors.open_trials(session)[0])
    session.refresh_from_db()
    stands_as_before(session)
    session = sessions.leave_practice(session_id=session.pk, now=make.NOON, rng=make.rng())
    assert session.status == SessionStatus.TRIALS
    stands_as_before(session)
    first, second, third, *_ = selectors.open_trials(session)
    said = make.respond(first).response
    stands_as_before(session)
    make.respond(first, ((4, 70.0),), revises=said.pk)
    stands_as_before(session)
    # Out of turn, and passed over.
    make.respond(third)
    responses.skip_trial(session=session, trial_id=second.pk, now=make.NOON)
    stands_as_before(session)
    for trial in selectors.open_trials(session):
        make.respond(trial)
        stands_as_before(session)
    assert selectors.standing(session).next_trial is None


def test_a_trial_is_locked_only_for_its_own_session_and_knows_its_kind() -> None:
    study = make.make_study(images_per_session=3, repeats_per_session=1)
    session, other = (make.begin(make.make_session(study, seed=seed), seed=seed) for seed in (1, 2))
    for trial in selectors.open_trials(session):
        locked = selectors.locked_trial(session, trial.pk)
        assert locked is not None
        assert (locked, locked.kind, locked.position) == (trial, trial.kind, trial.position)
        assert (locked.session, locked.session.category_order) == (session, session.category_order)
        assert locked.session.seen_at == session.seen_at
        assert selectors.locked_trial(other, trial.pk) is None
        with pytest.raises(Trial.DoesNotExist):
            sessions.lock_trial(other, trial.pk)
    assert {trial.kind for trial in session.trials.all()} == {TrialKind.MAIN, TrialKind.REPEAT}


def test_a_session_that_answers_has_its_arms_rules_and_reads_the_rest_on_demand() -> None:
    study = make.make_study(launch=False)
    write_arms(study.pk, [{"name": "one", "settings": {"most_named": 1}, "weight": 1}])
    session = make.make_session(studies.launch(study.pk, make.rng()))

    lean = selectors.session_that_answers(session.token)
    full = selectors.session_by_token(session.token)
    assert lean is not None
    assert full is not None
    assert lean == full
    assert lean.study.most_named == full.study.most_named
    assert lean.study.instructions == full.study.instructions
    assert lean.participant == full.participant
    assert selectors.session_that_answers("nobody's") is None
    assert selectors.session_that_answers("\0") is None


@pytest.mark.postgres
def test_postgresql_keeps_the_plans_unless_it_is_told_not_to(settings: Settings) -> None:
    study = make.make_study()
    session = make.begin(make.make_session(study))
    with CaptureQueriesContext(connection) as asked:
        selectors.session_that_answers(session.token)
        kept = selectors.standing(session)
    settings.DATABASE_KEEPS_PLANS = False
    with CaptureQueriesContext(connection) as planned:
        selectors.session_that_answers(session.token)
        assert selectors.standing(session) == kept

    assert [each["sql"].split()[0] for each in asked.captured_queries][-1] == "EXECUTE"
    assert {each["sql"].split()[0] for each in planned.captured_queries} == {"SELECT"}
