"""A sitting over the API goes through the doors and steps of the pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotations.models import Session, Study
from annotations.services import arms, recruitment, studies
from tests import factories as make

pytestmark = pytest.mark.django_db
CHECK = [
    {"name": "whose", "question": "Whose view?", "kind": "choice", "choices": ["Mine", "Theirs"], "answer": "Theirs"},
]
QUESTIONS = [{"name": "hard", "question": "How hard was it?", "kind": "scale", "low": 1, "high": 10, "required": True}]


def small_study(**settings: Any) -> Study:
    given = {"images_per_session": 2, "repeats_per_session": 0, "labels_per_image": 2, "practice": []}
    return make.make_study(dataset=make.make_dataset(2), **{**given, **settings})


def begin(study: Study, parameters: dict[str, str] | None = None, version: int = 1) -> Any:
    body = {"consent_version": version, "parameters": parameters or {}}
    return Client().post(f"/api/studies/{study.slug}/sessions", body, content_type="application/json")


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


class Holder:
    """Whoever has a session's token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Session {self._token}"}
        return Client().generic(
            method, path, "" if body is None else json.dumps(body), content_type="application/json", headers=headers
        )

    def leave(self, step: str, **more: Any) -> Any:
        return self("POST", "/api/session/step", {"step": step, **more})


def test_a_draft_can_t_be_seen_and_what_is_paused_or_full_can_t_be_begun() -> None:
    draft = small_study(launch=False, comprehension=[])
    assert Client().get(f"/api/studies/{draft.slug}").status_code == 404
    assert refusal(begin(draft)) == (404, "not_found")

    study = studies.launch(draft.pk, make.rng())
    for _ in range(2):
        # A place is taken by whoever has read the instructions.
        assert Holder(begin(study).json()["token"]).leave("instructions").json()["status"] == "trials"
    assert refusal(begin(study)) == (409, "study_full")
    assert Client().get(f"/api/studies/{study.slug}").json()["open"] is False

    studies.pause(study.pk)
    assert refusal(begin(study)) == (409, "study_not_live")
    assert Session.objects.count() == 2


def test_an_invitation_lets_one_in_once_and_nobody_in_without() -> None:
    study = small_study()
    recruitment.set_terms(study=study, terms={"platform": "invitation"})
    [(_, token)] = recruitment.invite(study=study, labels=["Ada"], now=timezone.now(), expires_at=None)

    assert begin(study).status_code == 400
    assert begin(study, {"invitation": "guessed"}).status_code in (400, 409)
    first = begin(study, {"invitation": token})
    again = begin(study, {"invitation": token})

    assert first.status_code == 201
    assert again.status_code == 409
    assert first.json()["token"] not in again.content.decode()
    assert Session.objects.count() == 1


def test_a_study_on_prolific_lets_in_who_comes_from_it_and_each_once() -> None:
    study = small_study()
    recruitment.set_terms(study=study, terms={"platform": "prolific", "platform_study": "5" * 24})
    link = {"PROLIFIC_PID": "a" * 24, "STUDY_ID": "5" * 24, "SESSION_ID": "c" * 24}

    refused = [
        {},
        {"pid": "anybody"},
        {"PROLIFIC_PID": "a" * 24},
        {**link, "PROLIFIC_PID": ""},
        {**link, "PROLIFIC_PID": f" {'a' * 24}"},
        {**link, "PROLIFIC_PID": "{{%PROLIFIC_PID%}}"},
        {**link, "STUDY_ID": "6" * 24},
        {**link, "invitation": "x"},
    ]
    for parameters in refused:
        assert refusal(begin(study, parameters)) == (400, "invalid"), parameters
    assert not Session.objects.exists()

    first, again = begin(study, link), begin(study, link)

    assert (first.status_code, refusal(again)) == (201, (409, "other_browser"))
    assert Session.objects.get().arrivals.count() == 1


def test_a_session_is_told_the_rules_of_its_arm_from_the_beginning() -> None:
    study = small_study(launch=False, comprehension=[], most_named=3)
    arms.write_arms(study.pk, [{"name": "one", "settings": {"most_named": 1, "ask_impossible": False}, "weight": 1}])
    studies.launch(study.pk, make.rng())

    begun = begin(study).json()

    assert (begun["rules"]["most_named"], begun["rules"]["ask_impossible"]) == (1, False)
    assert Holder(begun["token"])("GET", "/api/session").json()["rules"] == begun["rules"]


def test_who_comes_again_by_a_name_that_is_known_gets_no_token() -> None:
    study = small_study()
    first = begin(study, {"pid": "somebody"})
    again = begin(study, {"pid": "somebody"})

    assert (first.status_code, refusal(again)) == (201, (409, "other_browser"))
    assert "token" not in again.json()


def test_the_comprehension_check_says_what_was_wrong_and_shuts_after_two_attempts() -> None:
    holder = Holder(begin(small_study(comprehension=CHECK)).json()["token"])
    standing = holder.leave("instructions").json()
    assert standing["status"] == "comprehension"
    assert "answer" not in standing["questions"][0]

    first = holder.leave("comprehension", answers={"whose": "Mine"}).json()
    repeated = holder.leave("comprehension", answers={"whose": "Mine"}).json()
    second = holder.leave("comprehension", answers={"whose": "Mine"}, attempt=1).json()

    assert (first["status"], first["wrong"], first["attempt"]) == ("comprehension", ["whose"], 1)
    assert repeated["attempt"] == 1
    # As on the page: whoever may not try again is not told which were wrong.
    assert (second["status"], second["wrong"]) == ("screened_out", [])
    assert holder.leave("comprehension", answers={"whose": "Theirs"}, attempt=1).json()["status"] == second["status"]


def test_a_questionnaire_wants_its_answers_and_completes_the_session() -> None:
    study = small_study(questionnaire=QUESTIONS, comprehension=[])
    token = begin(study).json()["token"]
    holder = Holder(token)
    holder.leave("instructions")
    make.answer_all(Session.objects.get(token=token), ((3, 80.0),))

    missing = holder.leave("questionnaire")
    assert refusal(missing) == (400, "invalid")
    assert list(missing.json()["fields"]) == ["answers.hard"]
    assert holder.leave("questionnaire", answers={"hard": "11"}).status_code == 400
    done = holder.leave("questionnaire", answers={"hard": "7"})

    assert (done.status_code, done.json()["status"], done.json()["done"]) == (200, "completed", 2)
    assert Session.objects.get(token=token).questionnaire == {"hard": 7}


def test_nobody_leaves_a_step_of_another_s_session() -> None:
    study = small_study()
    mine, other = (begin(study).json()["token"] for _ in range(2))
    Holder(mine).leave("instructions")

    assert Session.objects.get(token=other).status == "instructions"
    assert refusal(Holder("guessed").leave("instructions")) == (401, "authentication_failed")
