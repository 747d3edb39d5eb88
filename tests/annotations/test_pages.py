"""The annotator's pages, as a browser sees them."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from annotations import selectors
from annotations.models import Session, SessionStatus, Study
from annotations.services import sessions, studies
from tests import factories as make
from tests.shown import trial_data

pytestmark = pytest.mark.django_db

AGREED = {"agree": "on", "version": 1}
ANSWERS = {"clarity": "9", "difficulty": "3", "remarks": "Thank you"}


@pytest.fixture
def study() -> Study:
    return make.make_study(dataset=make.make_dataset(4), images_per_session=4, completion_code="C0DE")


def link(study: Study, platform_id: str = "") -> str:
    return reverse("study", args=[study.slug]) + (f"?pid={platform_id}" if platform_id else "")


def page_of(session: Session) -> str:
    return reverse("session", args=[session.token])


def arrive(study: Study, platform_id: str = "", client: Client | None = None) -> Session:
    """Agree as a person in a browser does."""
    response = (client or Client()).post(link(study, platform_id), AGREED)
    assert response.status_code == 302, response.content
    session = selectors.session_by_token(response["Location"].split("/")[2])
    assert session is not None
    return session


def text_of(response: Any) -> str:
    return html.unescape(response.content.decode())


# --- The whole way


def test_a_person_goes_from_the_link_to_the_completion_code(study: Study) -> None:
    browser = Client()
    assert "How it works" not in text_of(browser.get(link(study)))
    response = browser.post(link(study), AGREED, follow=True)
    address = response.redirect_chain[-1][0]
    assert "How it works" in text_of(response)

    response = browser.post(f"{address}instructions", follow=True)
    data = trial_data(response)
    assert (data["done"], data["total"], len(data["trials"])) == (0, 6, 6)
    for trial in data["trials"]:
        answer = {"named": [{"category": data["categories"][0]["index"], "percentage": 70}], "duration_ms": 10}
        put = browser.put(
            data["api"].format(trial=trial["id"], response=uuid.uuid4()),
            answer,
            content_type="application/json",
            headers={"Authorization": data["authorization"]},
        )
        assert put.status_code == 201
    assert put.json()["next"] is None

    response = browser.get(data["next_url"])
    assert "A few last questions" in text_of(response)
    response = browser.post(f"{address}questionnaire", ANSWERS, follow=True)
    assert "C0DE" in text_of(response)
    session = Session.objects.get()
    assert session.status == SessionStatus.COMPLETED
    assert session.questionnaire == {"clarity": 9, "difficulty": 3, "remarks": "Thank you"}


def at_instructions(study: Study) -> Session:
    return arrive(study)


def at_trials(study: Study) -> Session:
    return make.begin(arrive(study))


def at_questionnaire(study: Study) -> Session:
    return make.answer_all(make.begin(arrive(study)))


def at_the_end(study: Study) -> Session:
    session = at_questionnaire(study)
    return sessions.save_questionnaire(session_id=session.pk, answers={}, now=make.NOON)


STEPS: dict[str, tuple[Callable[[Study], Session], str]] = {
    "instructions": (at_instructions, "How it works"),
    "trials": (at_trials, "trial-data"),
    "questionnaire": (at_questionnaire, "A few last questions"),
    "end": (at_the_end, "C0DE"),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_survives_reload_another_tab_and_another_device(study: Study, step: str) -> None:
    go, words = STEPS[step]
    session = go(study)
    browser, other_device = Client(), Client()

    for client in (browser, browser, other_device):
        response = client.get(page_of(session))
        assert response.status_code == 200
        assert words in text_of(response)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("action", ["instructions", "questionnaire"])
def test_a_form_of_another_step_changes_nothing(study: Study, step: str, action: str) -> None:
    go, words = STEPS[step]
    session = go(study)
    if step == action:
        return
    before = Session.objects.values("status", "questionnaire", "trials_begun_at", "completed_at").get(pk=session.pk)

    response = Client().post(page_of(session) + action, ANSWERS, follow=True)

    assert words in text_of(response)
    assert (
        Session.objects.values("status", "questionnaire", "trials_begun_at", "completed_at").get(pk=session.pk)
        == before
    )


def test_the_start_button_pressed_twice_starts_once(study: Study) -> None:
    session = arrive(study)

    for _ in range(2):
        assert Client().post(page_of(session) + "instructions").status_code == 302

    assert session.trials.count() == 6


# --- Consent


def test_the_consent_page_shows_the_text_the_time_and_the_pay() -> None:
    study = make.make_study(pay_note="2 Euro", time_estimate="20 minutes")

    text = text_of(Client().get(link(study)))

    assert "Taking part is voluntary" in text
    assert "2 Euro" in text
    assert "20 minutes" in text
    assert "version 1" in text


@pytest.mark.parametrize("form", [{}, {"version": 1}, {"agree": "on"}, {"agree": "on", "version": "x"}])
def test_without_consent_there_is_no_session(study: Study, form: dict[str, Any]) -> None:
    response = Client().post(link(study), form)

    assert response.status_code == 422
    assert "alert" in text_of(response)
    assert not Session.objects.exists()


def test_who_has_not_agreed_is_asked_to_in_words(study: Study) -> None:
    assert "please agree first" in text_of(Client().post(link(study), {"version": 1}))


def test_a_text_that_changed_while_it_was_read_is_shown_anew_and_said_so(study: Study) -> None:
    browser = Client()
    browser.get(link(study))
    studies.add_consent(study, "Everything is **different** now.")

    response = browser.post(link(study), AGREED)

    assert response.status_code == 422
    text = text_of(response)
    assert "The text has changed" in text
    assert "<strong>different</strong>" in text
    assert 'name="version" value="2"' in text
    assert "checked" not in text
    assert not Session.objects.exists()
    browser.post(link(study), {"agree": "on", "version": 2})
    assert Session.objects.get().consent.version == 2


def test_consent_is_stored_with_the_time_of_the_press(study: Study) -> None:
    with time_machine.travel(make.NOON, tick=False):
        session = arrive(study)

    assert (session.consented_at, session.consent.version) == (make.NOON, 1)


def test_a_form_from_another_site_is_refused(study: Study) -> None:
    browser = Client(enforce_csrf_checks=True)

    assert browser.post(link(study), AGREED).status_code == 403
    assert not Session.objects.exists()


# --- Coming back


def test_the_studys_link_leads_a_browser_back_to_its_session(study: Study) -> None:
    browser = Client()
    session = arrive(study, client=browser)

    response = browser.get(link(study))

    assert response.status_code == 302
    assert response["Location"] == page_of(session)
    assert Client().get(link(study)).status_code == 200


def test_the_cookie_is_signed_kept_from_scripts_and_from_other_sites(study: Study) -> None:
    browser = Client()
    session = arrive(study, client=browser)
    (cookie,) = (each for each in browser.cookies.values() if each.key == f"elicit-{study.pk}")

    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    forger = Client()
    forger.cookies[f"elicit-{study.pk}"] = session.token
    assert forger.get(link(study)).status_code == 200


def test_the_cookie_of_one_study_does_not_lead_into_another(study: Study) -> None:
    other = make.make_study(dataset=study.dataset, name="Other")
    browser = Client()
    arrive(study, client=browser)

    browser.cookies[f"elicit-{other.pk}"] = browser.cookies[f"elicit-{study.pk}"].value

    assert browser.get(link(other)).status_code == 200


def test_a_persons_link_leads_back_in_their_own_browser_and_tells_others_of_the_personal_link(study: Study) -> None:
    browser = Client()
    session = arrive(study, "p1", browser)

    assert browser.get(link(study, "p1"))["Location"] == page_of(session)
    for foreign in (Client().get(link(study, "p1")), Client().post(link(study, "p1"), AGREED)):
        assert foreign.status_code == 409
        assert "personal link" in text_of(foreign)
        assert session.token not in text_of(foreign)


def test_another_persons_link_does_not_lead_to_this_browsers_session(study: Study) -> None:
    browser = Client()
    mine = arrive(study, "p1", browser)

    assert browser.get(link(study, "p2")).status_code == 200
    theirs = arrive(study, "p2", browser)

    assert theirs.pk != mine.pk
    assert theirs.participant.platform_id == "p2"


def test_a_named_person_does_not_get_the_session_that_a_nameless_one_had_here(study: Study) -> None:
    browser = Client()
    arrive(study, client=browser)

    assert browser.get(link(study, "p1")).status_code == 200


@pytest.mark.parametrize("platform_id", ["%00", "a%00b", "x" * 121])
def test_a_link_with_an_id_that_no_platform_gives_is_told(study: Study, platform_id: str) -> None:
    for response in (Client().get(link(study, platform_id)), Client().post(link(study, platform_id), AGREED)):
        assert response.status_code == 404
        assert "This link is not known" in text_of(response)
    assert not Session.objects.exists()


def test_ids_of_platforms_are_taken_whole(study: Study) -> None:
    first, second = (arrive(study, "x" * 119 + end) for end in "ab")

    assert first.pk != second.pk
    assert len(first.participant.platform_id) == 120


@pytest.mark.parametrize("platform_id", ["%F0%9F%90%A6", "%3Cscript%3E", "%FF%FE", "a'b\"c--"])
def test_ids_of_platforms_may_hold_any_sign(study: Study, platform_id: str) -> None:
    browser = Client()
    session = arrive(study, platform_id, browser)

    assert browser.get(link(study, platform_id))["Location"] == page_of(session)


def test_an_abandoned_session_goes_on_when_its_page_is_opened(study: Study) -> None:
    session = make.begin(arrive(study))
    sessions.give_back_places(make.NOON.replace(year=2100))

    response = Client().get(page_of(session))

    assert "trial-data" in text_of(response)
    session.refresh_from_db()
    assert session.status == SessionStatus.TRIALS


def test_an_abandoned_session_without_a_place_is_told_in_words() -> None:
    study = make.make_study(labels_per_image=1)
    session = make.begin(arrive(study))
    sessions.give_back_places(make.NOON.replace(year=2100))
    make.begin(make.make_session(study))

    response = Client().get(page_of(session))

    assert response.status_code == 409
    assert "given to somebody else" in text_of(response)
    assert "What you answered is kept" in text_of(response)


def test_looking_at_a_page_is_a_sign_of_life(study: Study) -> None:
    session = make.begin(make.make_session(study))

    with time_machine.travel(make.NOON + timedelta(minutes=30), tick=False):
        Client().get(page_of(session))

    assert sessions.give_back_places(make.NOON + timedelta(minutes=61)) == 0


# --- Pages that stop


@pytest.mark.parametrize(("move", "status"), [(studies.pause, 409), (studies.close, 409)])
def test_a_study_that_is_not_live_says_so(study: Study, move: Callable[[int], Study], status: int) -> None:
    move(study.pk)

    for response in (Client().get(link(study)), Client().post(link(study), AGREED)):
        assert response.status_code == status
        assert "This study is not open" in text_of(response)
        assert study.name in text_of(response)


def test_a_full_study_says_so() -> None:
    study = make.make_study(labels_per_image=1)
    make.begin(make.make_session(study))

    for response in (Client().get(link(study)), Client().post(link(study), AGREED)):
        assert response.status_code == 409
        assert "This study is complete" in text_of(response)


def test_who_reads_the_instructions_while_the_study_fills_up_is_told() -> None:
    study = make.make_study(labels_per_image=1)
    session = arrive(study)
    make.begin(make.make_session(study))

    response = Client().post(page_of(session) + "instructions")

    assert response.status_code == 409
    assert "This study is complete" in text_of(response)


@pytest.mark.parametrize(
    "address", ["/study/nothing/", "/session/nobody/", "/session/%00/", "/session/nobody/instructions"]
)
def test_a_link_that_leads_nowhere_is_told_in_words(address: str) -> None:
    response = Client().post(address) if address.endswith("instructions") else Client().get(address)

    assert response.status_code == 404
    assert "This link is not known" in text_of(response)


def test_a_draft_is_not_to_be_seen() -> None:
    draft = make.make_study(launch=False)

    assert Client().get(link(draft)).status_code == 404


def test_a_study_whose_consent_text_is_gone_lets_nobody_in(study: Study) -> None:
    study.consents.all().delete()

    assert Client().get(link(study)).status_code == 404


def test_the_front_page_says_what_to_do() -> None:
    response = Client().get("/")

    assert response.status_code == 200
    assert "open the link that you were sent" in text_of(response)


# --- Methods


@pytest.mark.parametrize("step", STEPS)
def test_pages_answer_head_as_they_answer_get(study: Study, step: str) -> None:
    session = STEPS[step][0](study)

    for address in (page_of(session), link(study), "/"):
        get, head = Client().get(address), Client().head(address)
        assert (head.status_code, head.content) == (get.status_code, b"")


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_sessions_page_is_only_looked_at(study: Study, method: str) -> None:
    assert getattr(Client(), method)(page_of(arrive(study))).status_code == 405


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_a_studys_link_is_opened_or_agreed_to(study: Study, method: str) -> None:
    assert getattr(Client(), method)(link(study)).status_code == 405


@pytest.mark.parametrize("action", ["instructions", "questionnaire"])
@pytest.mark.parametrize(("method", "status"), [("get", 302), ("head", 302), ("put", 405), ("delete", 405)])
def test_a_step_is_taken_by_post_alone(study: Study, action: str, method: str, status: int) -> None:
    """Opened as a link, which going back in a browser may do, its address leads to where the session stands."""
    session = arrive(study)

    response = getattr(Client(), method)(page_of(session) + action)

    assert (response.status_code, response.headers.get("Location", page_of(session))) == (status, page_of(session))
    session.refresh_from_db()
    assert session.status == SessionStatus.INSTRUCTIONS


# --- The trial page


def test_the_trial_page_tells_the_browser_what_it_needs(study: Study) -> None:
    session = at_trials(study)
    make.respond(selectors.open_trials(session)[0])

    data = trial_data(Client().get(page_of(session)))

    waiting = selectors.open_trials(session)
    assert [trial["id"] for trial in data["trials"]] == [str(trial.pk) for trial in waiting]
    assert (data["done"], data["total"]) == (1, 6)
    assert data["authorization"] == f"Session {session.token}"
    assert data["next_url"] == page_of(session)
    assert [category["index"] for category in data["categories"]] == session.category_order
    assert data["rules"] == {"most_named": None, "sum_limit": None, "ask_impossible": True}
    assert (data["session"], data["stage"], data["skip_api"]) == (
        str(session.pk),
        "trials",
        "/api/trials/{trial}/skip",
    )
    assert data["input"] == "both"
    assert (data["impossible_shortcut"], data["break_every"], data["seconds_floor"]) == (True, None, 2.0)


def test_what_was_answered_last_can_be_gone_back_to(study: Study) -> None:
    session = at_trials(study)
    first, second = selectors.open_trials(session)[:2]
    said = make.respond(first, [(3, 60.0), (5, 30.0)], [0, 1]).response
    make.respond(second)

    data = trial_data(Client().get(page_of(session)))

    assert data["back"] == selectors.step_of(session).steps_back > 0
    answered = {trial["id"]: trial for trial in data["answered"]}
    assert list(answered) == [str(trial.pk) for trial in (first, second)][-data["back"] :]
    if data["back"] >= 2:
        assert answered[str(first.pk)]["response"] == {
            "id": str(said.pk),
            "named": [{"category": 3, "percentage": 60}, {"category": 5, "percentage": 30}],
            "impossible": [0, 1],
        }


def test_the_shortcut_is_not_offered_where_the_question_is_not_asked() -> None:
    study = make.make_study(ask_impossible=False, break_every=10, input_mode="slider")

    data = trial_data(Client().get(page_of(at_trials(study))))

    assert (data["impossible_shortcut"], data["break_every"], data["input"]) == (False, 10, "slider")


def test_the_rules_of_the_study_reach_the_browser() -> None:
    study = make.make_study(most_named=2, sum_limit=100, ask_impossible=False, framing="self")
    response = Client().get(page_of(at_trials(study)))

    rules = trial_data(response)["rules"]
    assert rules == {"most_named": 2, "sum_limit": 100, "ask_impossible": False}
    assert {trial["framing"] for trial in trial_data(response)["trials"]} == {"self"}


def test_a_category_that_is_markup_is_shown_as_text() -> None:
    names = ["</script><script>alert(1)</script>", "<b>Bird</b>", "{{ secret }}"]
    study = make.make_study(dataset=make.make_dataset(4, names))

    response = Client().get(page_of(at_trials(study)))

    raw = response.content.decode()
    assert "<script>alert" not in raw
    assert "<b>Bird" not in raw
    assert [
        category["name"] for category in sorted(trial_data(response)["categories"], key=lambda c: c["index"])
    ] == names


@pytest.mark.parametrize(
    ("categories", "keys"), [(2, ["1", "2"]), (10, list("1234567890")), (11, ["01", "02"]), (101, [])]
)
def test_up_to_a_hundred_categories_have_keys(categories: int, keys: list[str]) -> None:
    names = [f"Class {number}" for number in range(categories)]
    study = make.make_study(dataset=make.make_dataset(4, names), ask_impossible=False, most_named=1)

    raw = Client().get(page_of(at_trials(study))).content.decode()

    found = re.findall(r'<label class="name"[^>]*><kbd aria-hidden="true">(\d+)</kbd>', raw)
    assert found[: len(keys)] == keys
    assert len(found) == (categories if keys else 0)


def test_a_page_that_was_asked_for_just_before_the_last_answer_leads_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = at_trials(study)
    find = selectors.session_by_token

    def find_then_answer(token: str) -> Session | None:
        stale = find(token)
        make.answer_all(session)
        return stale

    monkeypatch.setattr(selectors, "session_by_token", find_then_answer)
    response = Client().get(page_of(session))

    assert response.status_code == 302
    assert response["Location"] == page_of(session)


def test_no_page_gives_away_a_label_or_a_dataset_or_another_person() -> None:
    dataset = make.make_dataset(4, slug="zoo-of-7")
    study = make.make_study(dataset=dataset, images_per_session=4)
    other = make.make_session(study, platform_id="someone else")
    dataset.images.update(reference=7)

    for go, _ in STEPS.values():
        session = go(study)
        text = text_of(Client().get(page_of(session)))
        assert "reference" not in text.lower()
        assert dataset.name not in text
        assert dataset.slug not in text
        for secret in (other.token, str(other.pk), other.participant.annotator, "someone else"):
            assert secret not in text
        assert session.participant.annotator not in text


def test_a_trial_is_known_by_its_pixels_alone(study: Study) -> None:
    for trial in trial_data(Client().get(page_of(at_trials(study))))["trials"]:
        assert set(trial) == {"id", "image_url", "position", "framing", "note"}
        assert re.fullmatch(r"/image/[0-9a-f]{64}-5x\.png", trial["image_url"])


# --- The questionnaire


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"clarity": "9"},
        {"clarity": "11", "difficulty": "3"},
        {"clarity": "0", "difficulty": "3"},
        {"clarity": "nine", "difficulty": "3"},
        {"clarity": "9", "difficulty": "3", "remarks": "x" * 2001},
        {"clarity": "9", "difficulty": "3", "remarks": "a\0b"},
    ],
)
def test_a_questionnaire_that_is_filled_in_wrongly_is_shown_again(study: Study, answers: dict[str, str]) -> None:
    session = at_questionnaire(study)

    response = Client().post(page_of(session) + "questionnaire", answers)

    assert response.status_code == 422
    assert "Please look at this again" in text_of(response)
    session.refresh_from_db()
    assert (session.status, session.questionnaire) == (SessionStatus.QUESTIONNAIRE, {})


def test_what_was_filled_in_rightly_is_kept_when_the_rest_was_not(study: Study) -> None:
    session = at_questionnaire(study)

    response = Client().post(page_of(session) + "questionnaire", {"clarity": "9", "remarks": "Fine & dandy"})

    assert re.search(r'name="clarity" value="9"[^>]*checked', response.content.decode())
    assert "Fine &amp; dandy" in response.content.decode()


# --- Images


def test_an_image_is_sent_enlarged_and_may_be_kept_for_ever(tmp_path: Path) -> None:
    image = make.import_pictures(tmp_path, 1).images.get()

    response = Client().get(reverse("image", args=[image.sha256, 5]))

    assert response.status_code == 200
    assert response["Content-Type"] == "image/png"
    assert response["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.content[16:24] == (160).to_bytes(4, "big") * 2
    assert Client().head(reverse("image", args=[image.sha256, 5])).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        f"/image/{'0' * 64}-5x.png",
        f"/image/{'0' * 64}-0x.png",
        f"/image/{'0' * 64}-11x.png",
        f"/image/{'0' * 64}-5x.jpg",
        f"/image/{'A' * 64}-5x.png",
        f"/image/{'0' * 63}-5x.png",
        "/image/../../etc/passwd-5x.png",
    ],
)
def test_an_image_that_is_not_there_is_not_found(address: str) -> None:
    assert Client().get(address).status_code == 404


def test_a_known_image_is_not_scaled_beyond_ten(tmp_path: Path) -> None:
    sha256 = make.import_pictures(tmp_path, 1).images.get().sha256

    statuses = {scale: Client().get(f"/image/{sha256}-{scale}x.png").status_code for scale in (1, 10, 11, 99, "05")}

    assert statuses == {1: 200, 10: 200, 11: 404, 99: 404, "05": 404}


def shown_rows(session: Session, language: str) -> list[tuple[str, str, str]]:
    """Of each category its key, its name and what a screen reader says of its first box."""
    page = text_of(Client(headers={"Accept-Language": language}).get(page_of(session)))
    return re.findall(
        r'<label class="name" for="top-\d+"><kbd aria-hidden="true">(\d)</kbd><span[^>]*>([^<]+)</span></label>\s*'
        r'<label class="tick top"><input [^>]*aria-label="([^"]+)"',
        page,
    )


def test_rows_that_are_kept_are_each_pages_own() -> None:
    study = make.make_study(shuffle_categories=True)
    names = selectors.category_names(study)
    people = [make.begin(make.make_session(study, seed=seed), seed=seed) for seed in range(3)]
    assert len({tuple(person.category_order) for person in people}) == 3
    # The second time from what is kept.
    for _ in range(2):
        for person in people:
            order = [names[index] for index in person.category_order]
            for language, says in (("en", "{}: most likely"), ("zh-hans", "{}\N{FULLWIDTH COLON}最可能")):
                assert shown_rows(person, language) == [
                    (str(place % 10), name, says.format(name)) for place, name in enumerate(order, 1)
                ]
