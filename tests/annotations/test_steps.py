"""Practice, comprehension check and withdrawal: the services, and the pages as a browser sees them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import Participant, Place, Response, Session, SessionStatus, Study, Trial, TrialKind
from annotations.services import leaving, sessions, studies
from tests import factories as make
from tests.annotations.test_pages import arrive, page_of, text_of
from tests.shown import trial_data

pytestmark = pytest.mark.django_db

PRACTICE = [
    {"image": 4, "feedback": "Most say **cat**.", "expected": {"Dog": 20, "Cat": 70}},
    {"image": 5, "feedback": "![A dog](image:5)"},
]
QUESTIONS = [
    {"name": "whose", "question": "Whose view?", "kind": "choice", "choices": ["Mine", "Others’"], "answer": "Others’"},
    {"name": "sum", "question": "Must it be 100?", "kind": "choice", "choices": ["Yes", "No"], "answer": "No"},
]
RIGHT = {"whose": "Others’", "sum": "No"}
WRONG = {"whose": "Mine", "sum": "No"}
LATER = make.NOON + timedelta(minutes=61)


def make_study(**settings: Any) -> Study:
    """Four images and a repeat a session; images 4 and 5 are left to practise on."""
    wanted = {"practice": PRACTICE, "comprehension": QUESTIONS, "screenout_code": "0UT", **settings}
    study = make.make_study(dataset=make.make_dataset(6), launch=False, images_per_session=4, **wanted)
    studies.choose_images(study, range(4), make.rng())
    return studies.launch(study.pk, make.rng())


@pytest.fixture
def study() -> Study:
    return make_study()


def at_practice(study: Study) -> Session:
    return sessions.leave_instructions(session_id=arrive(study).pk, now=make.NOON, rng=make.rng())


def practise(session: Session) -> Session:
    return make.answer_all(session)


def at_comprehension(study: Study) -> Session:
    session = practise(at_practice(study))
    assert session.status == SessionStatus.COMPREHENSION
    return session


def check(session: Session, answers: dict[str, str], attempt: int = 0) -> tuple[Session, list[str]]:
    return sessions.check_comprehension(
        session_id=session.pk, attempt=attempt, answers=answers, now=make.NOON, rng=make.rng()
    )


def send_check(session: Session, answers: dict[str, str], attempt: int, client: Client | None = None) -> Any:
    form = {**answers, "_attempt": attempt}
    return (client or Client()).post(page_of(session) + "comprehension", form, follow=True)


def status_of(session: Session) -> str:
    return str(Session.objects.values_list("status", flat=True).get(pk=session.pk))


# --- Practice


def test_the_practice_shows_its_images_in_their_order_before_any_place_is_taken(study: Study) -> None:
    session = at_practice(study)

    trials = selectors.open_trials(session)
    assert [trial.image.index for trial in trials] == [4, 5]
    assert {trial.kind for trial in trials} == {TrialKind.PRACTICE}
    assert not Place.objects.filter(session__isnull=False).exists()


def test_the_practice_page_says_that_it_is_practice(study: Study) -> None:
    data = trial_data(Client().get(page_of(at_practice(study))))

    assert (data["stage"], data["done"], data["total"], len(data["trials"])) == ("practice", 0, 2, 2)
    assert data["break_every"] is None


def put(data: dict[str, Any], number: int) -> Any:
    return (
        Client()
        .put(
            data["api"].format(trial=data["trials"][number]["id"], response=uuid.uuid4()),
            {"named": [{"category": 3, "percentage": 70}], "duration_ms": 10},
            content_type="application/json",
            headers={"Authorization": data["authorization"]},
        )
        .json()
    )


def test_each_practice_answer_comes_back_with_what_is_told_about_its_image(study: Study) -> None:
    data = trial_data(Client().get(page_of(at_practice(study))))

    first, second = put(data, 0), put(data, 1)

    assert "<strong>cat</strong>" in first["feedback"]["html"]
    assert first["feedback"]["shares"] == [{"category": 3, "percentage": 70}, {"category": 5, "percentage": 20}]
    assert f'<img src="/image/{5:064x}-5x.png" alt="A dog">' in second["feedback"]["html"]
    assert second["feedback"]["shares"] == []
    assert second["next"] is None


def test_a_main_trial_tells_nothing(study: Study) -> None:
    session = make.begin(arrive(study))

    assert put(trial_data(Client().get(page_of(session))), 0)["feedback"] is None


def test_with_two_questions_an_image_it_is_told_about_after_the_second() -> None:
    session = at_practice(make_study(framing="both"))
    data = trial_data(Client().get(page_of(session)))

    told = [put(data, number)["feedback"] for number in range(4)]

    assert [trial["framing"] for trial in data["trials"]] == ["others", "self"] * 2
    assert [None if each is None else each["html"][:7] for each in told] == [None, "<p>Most", None, "<p><img"]


def test_practice_answers_count_towards_nothing(study: Study) -> None:
    session = at_comprehension(study)

    assert Response.objects.filter(trial__session=session).count() == 2
    assert selectors.study_progress(study).labels == 0


def test_without_a_comprehension_check_the_practice_ends_with_a_word_and_a_button() -> None:
    session = practise(at_practice(make_study(comprehension=[])))
    assert status_of(session) == SessionStatus.PRACTICE

    response = Client().get(page_of(session))
    assert "The practice is over" in text_of(response)
    for _ in range(2):
        assert Client().post(page_of(session) + "practice").status_code == 302

    assert status_of(session) == SessionStatus.TRIALS
    assert session.trials.filter(kind=TrialKind.MAIN).count() == 4


def test_the_practice_can_not_be_left_before_it_is_done(study: Study) -> None:
    session = at_practice(study)

    Client().post(page_of(session) + "practice")

    assert status_of(session) == SessionStatus.PRACTICE


def test_nobody_practises_for_a_place_that_is_gone() -> None:
    study = make_study(labels_per_image=1)
    session = arrive(study)
    make.begin(make.make_session(study))

    response = Client().post(page_of(session) + "instructions")

    assert response.status_code == 409
    assert "others took the last places" in text_of(response)
    assert status_of(session) == SessionStatus.INSTRUCTIONS


def test_a_practice_image_that_is_passed_over_does_not_hold_the_practice_up(study: Study) -> None:
    session = at_practice(study)
    data = trial_data(Client().get(page_of(session)))
    headers = {"Authorization": data["authorization"]}

    for trial in data["trials"]:
        Client().put(
            data["skip_api"].format(trial=trial["id"]),
            {"reason": "image_failed"},
            content_type="application/json",
            headers=headers,
        )

    assert status_of(session) == SessionStatus.COMPREHENSION


# --- The comprehension check


def test_who_understood_gets_a_place_and_the_trials(study: Study) -> None:
    session = at_comprehension(study)
    assert not Place.objects.filter(session=session).exists()

    response = send_check(session, RIGHT, 0)

    assert "trial-data" in text_of(response)
    session.refresh_from_db()
    assert (session.status, session.comprehension_attempts) == (SessionStatus.TRIALS, 1)
    assert Place.objects.filter(session=session).exists()


def test_the_first_failure_gets_a_kind_word_the_instructions_and_the_questions_that_were_wrong(study: Study) -> None:
    session = at_comprehension(study)

    response = send_check(session, WRONG, 0)

    text = text_of(response)
    assert "No harm done" in text
    assert "100 other people" in text
    note = text.split('class="note"')[1].split("</div>")[0]
    assert "Whose view?" in note
    assert "Must it be 100?" not in note
    assert "Others’" not in note
    assert status_of(session) == SessionStatus.COMPREHENSION


def test_the_right_answers_are_never_on_a_page(study: Study) -> None:
    session = at_comprehension(study)

    for response in (Client().get(page_of(session)), send_check(session, WRONG, 0)):
        assert "checked" not in response.content.decode()
        assert "answer" not in {name for form in response.context["form"].fields.values() for name in vars(form)}


def test_the_second_failure_ends_kindly_with_the_code_and_without_a_place(study: Study) -> None:
    session = at_comprehension(study)
    send_check(session, WRONG, 0)

    text = text_of(send_check(session, WRONG, 1))

    assert "Thank you for your time" in text
    assert "0UT" in text
    session.refresh_from_db()
    assert (session.status, session.comprehension_attempts) == (SessionStatus.SCREENED_OUT, 2)
    assert not Place.objects.filter(session=session).exists()
    assert not session.trials.exclude(kind=TrialKind.PRACTICE).exists()
    assert selectors.study_progress(study).screened_out == 1


def test_who_understood_at_the_second_attempt_goes_on(study: Study) -> None:
    session = at_comprehension(study)
    send_check(session, WRONG, 0)

    send_check(session, RIGHT, 1)

    assert status_of(session) == SessionStatus.TRIALS


@pytest.mark.parametrize("answers", [WRONG, RIGHT])
def test_a_form_that_is_sent_twice_is_one_attempt(study: Study, answers: dict[str, str]) -> None:
    session = at_comprehension(study)

    for _ in range(3):
        assert send_check(session, answers, 0).status_code == 200

    session.refresh_from_db()
    assert session.comprehension_attempts == 1
    assert session.status == (SessionStatus.TRIALS if answers == RIGHT else SessionStatus.COMPREHENSION)


@pytest.mark.parametrize("attempt", ["", "x", "-1", "7", "99999999999999999999"])
def test_a_form_that_lies_about_its_attempt_changes_nothing(study: Study, attempt: str) -> None:
    session = at_comprehension(study)

    response = Client().post(page_of(session) + "comprehension", {**RIGHT, "_attempt": attempt}, follow=True)

    assert response.status_code == 200
    session.refresh_from_db()
    assert (session.status, session.comprehension_attempts) == (SessionStatus.COMPREHENSION, 0)


def test_a_question_left_out_is_pointed_at_and_costs_no_attempt(study: Study) -> None:
    session = at_comprehension(study)

    response = Client().post(page_of(session) + "comprehension", {"whose": "Others’", "_attempt": 0})

    assert response.status_code == 422
    assert "Please look at this again" in text_of(response)
    session.refresh_from_db()
    assert session.comprehension_attempts == 0


def test_a_study_that_filled_up_meanwhile_says_so_and_takes_no_attempt() -> None:
    study = make_study(labels_per_image=1)
    session = at_comprehension(study)
    make.begin(make.make_session(study))

    response = Client().post(page_of(session) + "comprehension", {**RIGHT, "_attempt": 0})

    assert response.status_code == 409
    assert "others took the last places" in text_of(response)
    session.refresh_from_db()
    assert (session.status, session.comprehension_attempts) == (SessionStatus.COMPREHENSION, 0)


def test_a_study_may_check_without_practice_and_without_a_questionnaire() -> None:
    study = make_study(practice=[], questionnaire=[])
    session = arrive(study)
    Client().post(page_of(session) + "instructions")
    assert status_of(session) == SessionStatus.COMPREHENSION

    session, wrong = check(session, RIGHT)

    assert wrong == []
    assert make.answer_all(session).status == SessionStatus.COMPLETED


def test_who_is_screened_out_stays_so(study: Study) -> None:
    session = arrive(study, "p1")
    sessions.leave_instructions(session_id=session.pk, now=make.NOON, rng=make.rng())
    session.refresh_from_db()
    practise(session)
    check(session, WRONG, 0)
    check(session, WRONG, 1)

    for step in ("instructions", "practice", "questionnaire"):
        Client().post(page_of(session) + step)
    assert check(session, RIGHT, 2)[0].status == SessionStatus.SCREENED_OUT
    response = Client().get(page_of(session))
    assert "Thank you for your time" in text_of(response)
    assert sessions.give_back_places(LATER) == 0


# --- Every step


def at_end_of_practice(study: Study) -> Session:
    Study.objects.update(comprehension=[])
    study.refresh_from_db()
    return practise(at_practice(study))


def at_second_attempt(study: Study) -> Session:
    return check(at_comprehension(study), WRONG)[0]


def screened_out(study: Study) -> Session:
    return check(at_second_attempt(study), WRONG, 1)[0]


def withdrawn(study: Study) -> Session:
    return leaving.withdraw(session_id=at_practice(study).pk, now=make.NOON)


STEPS = {
    "practice": (at_practice, "trial-data"),
    "end of practice": (at_end_of_practice, "The practice is over"),
    "comprehension": (at_comprehension, "Whose view?"),
    "second attempt": (at_second_attempt, "second and last attempt"),
    "screened out": (screened_out, "0UT"),
    "withdrawn": (withdrawn, "Nothing of yours is kept"),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_survives_reload_another_tab_and_another_device(study: Study, step: str) -> None:
    go, words = STEPS[step]
    session = go(study)
    browser = Client()

    for client in (browser, browser, Client()):
        response = client.get(page_of(session))
        assert response.status_code == 200
        assert words in text_of(response)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("action", ["instructions", "practice", "comprehension", "questionnaire"])
def test_a_form_of_another_step_changes_nothing(study: Study, step: str, action: str) -> None:
    go, words = STEPS[step]
    session = go(study)
    if action in step or (step, action) == ("second attempt", "comprehension"):
        return
    columns = "status", "comprehension_attempts", "trials_begun_at", "withdrawn_at"
    before = Session.objects.values(*columns).get(pk=session.pk)

    response = Client().post(page_of(session) + action, {**WRONG, "_attempt": 0}, follow=True)

    assert words in text_of(response)
    assert Session.objects.values(*columns).get(pk=session.pk) == before


@pytest.mark.parametrize("step", ["practice", "end of practice", "comprehension", "second attempt"])
def test_who_was_away_for_long_before_the_trials_goes_on_without_practising_again(study: Study, step: str) -> None:
    session = STEPS[step][0](study)
    trials = set(session.trials.values_list("pk", flat=True))
    assert sessions.give_back_places(LATER) == 1

    back = sessions.come_back(session_id=session.pk, now=LATER)

    if step == "comprehension":  # whether the check had begun is not known any more: a press leads on to it
        assert "The practice is over" in text_of(Client().get(page_of(session)))
        back = sessions.leave_practice(session_id=session.pk, now=LATER, rng=make.rng())
    assert back.status == session.status
    assert set(session.trials.values_list("pk", flat=True)) == trials


def test_a_late_practice_answer_brings_an_abandoned_session_back(study: Study) -> None:
    session = at_practice(study)
    first = selectors.open_trials(session)[0]
    sessions.give_back_places(LATER)

    make.respond(first, now=LATER)

    assert status_of(session) == SessionStatus.PRACTICE


# --- Withdrawal


def withdraw_page(session: Session) -> str:
    return reverse("withdraw", args=[session.token])


ALL_STEPS: dict[str, Callable[[Study], Session]] = {
    "instructions": arrive,
    **{step: go for step, (go, _) in STEPS.items() if step != "withdrawn"},
    "trials": lambda study: make.begin(arrive(study)),
    "questionnaire": lambda study: make.answer_all(make.begin(arrive(study))),
    "end": make.complete_session,
}


@pytest.mark.parametrize("step", ALL_STEPS)
def test_every_page_of_a_session_leads_to_the_way_out(study: Study, step: str) -> None:
    session = ALL_STEPS[step](study)

    assert f'href="{withdraw_page(session)}"' in Client().get(page_of(session)).content.decode()


@pytest.mark.parametrize("step", ALL_STEPS)
def test_who_withdraws_leaves_nothing_behind_at_whatever_step(study: Study, step: str) -> None:
    session = ALL_STEPS[step](study)
    session.participant.platform_id = "p1"
    session.participant.save()
    assert "are erased here" in text_of(Client().get(withdraw_page(session)))

    response = Client().post(withdraw_page(session), {"sure": "on"}, follow=True)

    assert "Nothing of yours is kept" in text_of(response)
    session.refresh_from_db()
    assert (session.status, session.questionnaire) == (SessionStatus.WITHDRAWN, {})
    assert not Trial.objects.filter(session=session).exists()
    assert not Response.objects.exists()
    assert not Place.objects.filter(session=session).exists()
    assert not Participant.objects.exclude(platform_id_sealed="", platform_id_key="").exists()


def test_a_withdrawal_needs_the_tick(study: Study) -> None:
    session = make.begin(arrive(study))

    response = Client().post(withdraw_page(session), {})

    assert response.status_code == 422
    assert "Please tick this first" in text_of(response)
    assert status_of(session) == SessionStatus.TRIALS


def test_a_link_or_another_site_withdraws_nobody(study: Study) -> None:
    session = make.begin(arrive(study))

    Client().get(withdraw_page(session) + "?sure=on")
    assert Client(enforce_csrf_checks=True).post(withdraw_page(session), {"sure": "on"}).status_code == 403

    assert status_of(session) == SessionStatus.TRIALS


def test_withdrawing_twice_is_withdrawing_once(study: Study) -> None:
    session = make.begin(arrive(study))
    with time_machine.travel(make.NOON, tick=False):
        Client().post(withdraw_page(session), {"sure": "on"})

    response = Client().post(withdraw_page(session), {"sure": "on"}, follow=True)

    assert "Nothing of yours is kept" in text_of(response)
    session.refresh_from_db()
    assert session.withdrawn_at == make.NOON


def test_two_presses_at_once_withdraw_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make.begin(arrive(study))
    find = selectors.session_by_token

    def find_then_withdraw(token: str) -> Session | None:
        stale = find(token)
        leaving.withdraw(session_id=session.pk, now=make.NOON)
        monkeypatch.setattr(selectors, "session_by_token", find)
        return stale

    monkeypatch.setattr(selectors, "session_by_token", find_then_withdraw)

    assert "Nothing of yours is kept" in text_of(Client().post(withdraw_page(session), {"sure": "on"}, follow=True))


def test_who_lost_the_place_can_withdraw_all_the_same() -> None:
    study = make_study(labels_per_image=1)
    session = make.begin(arrive(study))
    make.respond(selectors.open_trials(session)[0])
    sessions.give_back_places(make.NOON.replace(year=2100))
    make.begin(make.make_session(study))
    stopped = Client().get(page_of(session))
    assert stopped.status_code == 409

    Client().post(withdraw_page(session), {"sure": "on"})

    assert status_of(session) == SessionStatus.WITHDRAWN
    assert not Response.objects.exists()


def test_the_place_of_who_withdrew_goes_to_somebody_else() -> None:
    study = make_study(labels_per_image=1)
    session = make.begin(arrive(study))
    with pytest.raises(AnnotationError):
        make.make_session(study)

    leaving.withdraw(session_id=session.pk, now=make.NOON)

    assert make.begin(make.make_session(study)).status == SessionStatus.TRIALS


def test_nobody_withdraws_by_an_unknown_link() -> None:
    for response in (Client().get("/session/nobody/withdraw"), Client().post("/session/%00/withdraw", {"sure": "on"})):
        assert response.status_code == 404
        assert "This link is not known" in text_of(response)


# --- The last page


RETURN = "https://app.prolific.com/submissions/complete?cc=C0DE"


def last_page(study: Study, later: timedelta = timedelta()) -> str:
    session = make.complete_session(study)
    with time_machine.travel(make.NOON + later, tick=False):
        return text_of(Client().get(page_of(session)))


def test_the_last_page_leads_back_to_the_platform() -> None:
    text = last_page(make_study(return_url=RETURN, completion_code="C0DE"))

    assert f'href="{RETURN}"' in text
    assert 'data-seconds="15"' in text
    assert 'value="C0DE"' in text


def test_who_comes_back_later_is_not_sent_away() -> None:
    text = last_page(make_study(return_url=RETURN), timedelta(minutes=11))

    assert f'href="{RETURN}"' in text
    assert "data-seconds" not in text


def test_a_link_to_a_host_that_is_not_allowed_any_more_is_not_shown(settings: Any) -> None:
    study = make_study(return_url=RETURN)
    settings.RETURN_HOSTS = ["example.org"]

    text = last_page(study)

    assert "prolific" not in text
    assert "You can close this page now" in text


@pytest.mark.parametrize("query", ["next", "return_url", "url", "return"])
def test_the_address_has_no_say_in_where_the_last_page_leads(query: str) -> None:
    session = make.complete_session(make_study(return_url=RETURN))

    text = text_of(Client().get(f"{page_of(session)}?{query}=https://evil.example/"))

    assert 'id="return" href="https://app.prolific.com' in text
    assert 'href="https://evil' not in text
