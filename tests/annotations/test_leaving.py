from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import ExclusionReason, Place, Response, Session, SessionStatus, Study, Trial
from annotations.services import leaving, sessions
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def study() -> Study:
    dataset = factories.make_dataset(images=4)
    return factories.make_study(dataset=dataset, images_per_session=4, repeats_per_session=1, labels_per_image=2)


def exclude(session: Session, reason: ExclusionReason = ExclusionReason.INATTENTIVE) -> Session:
    return leaving.exclude(session_id=session.pk, reason=reason, note="asleep", by=None, now=factories.NOON)


def withdraw(session: Session) -> Session:
    return leaving.withdraw(session_id=session.pk, now=factories.NOON)


def facts(study: Study) -> Any:
    return selectors.study_facts(study.pk, until=factories.NOON, leave_out_inconsistent=False)


def test_withdrawal_erases_answers_questionnaire_and_platform_id(study: Study) -> None:
    session = factories.complete_session(study, platform_id="5f0c")

    withdrawn = withdraw(session)

    assert (withdrawn.status, withdrawn.withdrawn_at) == (SessionStatus.WITHDRAWN, factories.NOON)
    assert not Trial.objects.filter(session=session).exists()
    assert not Response.objects.exists()
    session.refresh_from_db()
    assert session.questionnaire == {}
    assert session.participant.platform_id == ""


def test_withdrawal_opens_the_place_again(study: Study) -> None:
    session = factories.complete_session(study)

    withdraw(session)

    assert Place.objects.filter(study=study, session__isnull=True).count() == 2


def test_withdrawal_is_possible_at_every_step(study: Study) -> None:
    reading = factories.make_session(study)
    answering = factories.begin(factories.make_session(study))

    assert withdraw(reading).status == withdraw(answering).status == SessionStatus.WITHDRAWN


def test_nobody_withdraws_twice(study: Study) -> None:
    session = withdraw(factories.complete_session(study))

    with pytest.raises(AnnotationError) as refused:
        withdraw(session)

    assert refused.value.code == "already_withdrawn"


def test_an_answer_to_a_withdrawn_session_finds_no_trial(study: Study) -> None:
    session = factories.begin(factories.make_session(study))
    trial = selectors.open_trials(session)[0]

    withdraw(session)

    with pytest.raises(Trial.DoesNotExist):
        factories.respond(trial)


def test_a_release_counts_withdrawals_and_holds_none_of_their_answers(study: Study) -> None:
    factories.complete_session(study)
    withdraw(factories.complete_session(study))

    told = facts(study)

    assert told["sessions"] == 1
    assert told["sessions_left_out"]["withdrawn"] == 1
    assert told["sessions_left_out"]["not_completed"] == 0


def test_exclusion_keeps_the_answers_and_opens_the_place(study: Study) -> None:
    session = exclude(factories.complete_session(study))

    assert Response.objects.filter(trial__session=session).count() == 5
    assert Place.objects.filter(study=study, session__isnull=True).count() == 2
    assert not Trial.objects.filter(session=session, place__isnull=False).exists()


def test_a_release_counts_exclusions_by_reason(study: Study) -> None:
    factories.complete_session(study)
    exclude(factories.complete_session(study), ExclusionReason.TECHNICAL)

    told = facts(study)

    assert told["sessions"] == 1
    assert told["sessions_left_out"]["excluded_technical"] == 1
    assert told["sessions_left_out"]["place_given_away"] == 0


def test_somebody_else_gets_the_place_of_an_excluded_session(study: Study) -> None:
    for session in (factories.complete_session(study), factories.complete_session(study)):
        exclude(session)

    factories.complete_session(study)

    assert facts(study)["sessions"] == 1


def test_an_excluded_session_comes_back_in_while_its_place_is_free(study: Study) -> None:
    session = exclude(factories.complete_session(study))

    leaving.reinstate(session_id=session.pk)

    assert facts(study)["sessions"] == 1
    assert selectors.study_progress(study).labels == 4


def test_an_excluded_session_stays_out_once_others_have_its_place(study: Study) -> None:
    session = exclude(factories.complete_session(study))
    for _ in range(2):
        factories.complete_session(study)

    with pytest.raises(AnnotationError) as refused:
        leaving.reinstate(session_id=session.pk)

    assert refused.value.code == "place_taken"
    session.refresh_from_db()
    assert session.excluded_at is not None


def test_an_excluded_person_who_comes_back_takes_no_place_from_others(study: Study) -> None:
    session = factories.begin(factories.make_session(study))
    exclude(session)
    sessions.give_back_places(factories.NOON + 120 * factories.MINUTE)

    back = sessions.come_back(session_id=session.pk, now=factories.NOON)

    assert back.status == SessionStatus.TRIALS
    assert Place.objects.filter(study=study, session__isnull=True).count() == 2


@pytest.mark.parametrize("twice", [exclude, lambda session: leaving.reinstate(session_id=session.pk)])
def test_exclusion_and_its_undoing_happen_once(study: Study, twice: Any) -> None:
    session = exclude(factories.complete_session(study))
    if twice is not exclude:
        leaving.reinstate(session_id=session.pk)

    with pytest.raises(AnnotationError) as refused:
        twice(session)

    assert refused.value.code in {"already_excluded", "not_excluded"}


# --- By the admin


def post(client: Client, session: Session, action: str, **data: str) -> Any:
    body = {"action": action, "_selected_action": [str(session.pk)], **data}
    return client.post("/admin/annotations/session/", body, follow=True)


def test_a_curator_excludes_with_a_reason_and_takes_back(study: Study, client: Client) -> None:
    session = factories.complete_session(study)
    client.force_login(factories.make_curator())

    asked = post(client, session, "exclude_sessions")
    assert "superseded" in asked.content.decode()
    done = post(client, session, "exclude_sessions", confirmed="yes", reason="duplicate", note="same laptop")

    assert "1 session excluded" in done.content.decode()
    session.refresh_from_db()
    assert (session.exclusion_reason, session.exclusion_note) == ("duplicate", "same laptop")
    assert session.excluded_by is not None
    assert "1 session taken back in" in post(client, session, "reinstate_sessions").content.decode()


def test_an_exclusion_without_a_reason_changes_nothing(study: Study, client: Client) -> None:
    session = factories.complete_session(study)
    client.force_login(factories.make_curator())

    answer = post(client, session, "exclude_sessions", confirmed="yes", note="just so")

    assert "This field is required" in answer.content.decode()
    session.refresh_from_db()
    assert session.excluded_at is None


def test_only_those_with_the_permission_exclude(study: Study, client: Client) -> None:
    session = factories.complete_session(study)
    client.force_login(factories.make_staff("helper", "annotations.view_session"))

    post(client, session, "exclude_sessions", confirmed="yes", reason="duplicate")

    session.refresh_from_db()
    assert session.excluded_at is None
