"""`PUT /api/trials/<trial>/responses/<response>`, as a browser, a broken client and a curious one would call it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations import selectors
from annotations.models import Response, Session, Trial
from annotations.services import quality, sessions
from tests import factories as make

pytestmark = pytest.mark.django_db

GOOD: dict[str, Any] = {"named": [{"category": 3, "percentage": 80}], "impossible": [0], "duration_ms": 900}


def begun(**settings: Any) -> Session:
    study = make.make_study(dataset=make.make_dataset(4), **{"images_per_session": 4, **settings})
    return make.begin(make.make_session(study))


@pytest.fixture
def session() -> Session:
    return begun()


def put(
    session: Session,
    body: object = GOOD,
    *,
    trial: Trial | None = None,
    key: uuid.UUID | None = None,
    authorization: str | None = None,
    content_type: str = "application/json",
    **headers: str,
) -> HttpResponse:
    trial = trial or session.trials.order_by("position")[0]
    headers["Authorization"] = f"Session {session.token}" if authorization is None else authorization
    response = Client().put(
        reverse("put-response", args=[trial.pk, key or uuid.uuid4()]),
        body if isinstance(body, str | bytes) else json.dumps(body),
        content_type=content_type,
        headers={name: value for name, value in headers.items() if value},
    )
    assert isinstance(response, HttpResponse)
    return response


def envelope(response: HttpResponse, status: int) -> dict[str, Any]:
    """The body of an error, which always has the same form."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    body = json.loads(response.content)
    assert set(body) == {"code", "message", "fields"}
    assert body["code"]
    assert body["message"]
    assert all(isinstance(text, str) and text for text in (*body["fields"], *body["fields"].values()))
    return dict(body)


def said(*named: object, impossible: object = ()) -> dict[str, Any]:
    pairs = [dict(zip(("category", "percentage"), pair, strict=True)) for pair in named]  # type: ignore[call-overload]
    return {"named": pairs, "impossible": impossible, "duration_ms": 900}


# --- A good answer


def test_an_answer_is_stored_and_the_next_trial_comes_back(session: Session) -> None:
    first, second = session.trials.order_by("position")[:2]
    key = uuid.uuid4()

    response = put(session, key=key)

    assert response.status_code == 201
    assert json.loads(response.content) == {
        "id": str(key),
        "trial": str(first.pk),
        "done": 1,
        "total": 6,
        "next": {
            "id": str(second.pk),
            "image_url": f"/image/{second.image.sha256}-5x.png",
            "position": 2,
            "framing": "others",
            "note": "",
        },
        "feedback": None,
    }
    stored = Response.objects.get()
    assert (stored.pk, stored.trial_id, stored.named, stored.impossible) == (key, first.pk, [[3, 80.0]], [0])


def test_the_answer_after_which_nothing_is_left_says_so(session: Session) -> None:
    *others, last = selectors.open_trials(session)
    for trial in others:
        make.respond(trial)

    body = json.loads(put(session, trial=last).content)

    assert (body["next"], body["done"], body["total"]) == (None, 6, 6)


def test_sending_an_answer_again_is_harmless(session: Session) -> None:
    key = uuid.uuid4()

    statuses = [put(session, key=key).status_code for _ in range(3)]

    assert statuses == [201, 200, 200]
    assert Response.objects.count() == 1


def test_what_may_be_left_out_may_be_left_out(session: Session) -> None:
    body = {"named": GOOD["named"], "duration_ms": 0}

    assert put(session, body).status_code == 201
    assert Response.objects.get().impossible == []


@pytest.mark.parametrize("body", [b'{"named": [{"category": 3, "percentage": 8e1}], "duration_ms": 5.0}'])
def test_numbers_may_be_written_as_json_writes_them(session: Session, body: bytes) -> None:
    assert put(session, body).status_code == 201


def test_unknown_words_in_an_answer_are_passed_over(session: Session) -> None:
    assert put(session, {**GOOD, "reference": 3, "__proto__": {}}).status_code == 201


# --- Answers that contradict themselves

CONTRADICTIONS = {
    "nothing_answered": (said(), "named"),
    "unknown_category": (said((10, 50)), "named.0.category"),
    "category_named_twice": (said((3, 50), (3, 20)), "named.1.category"),
    "named_and_impossible": (said((3, 50), impossible=[3]), "impossible.3"),
    "percentage_missing": (said((3, None)), "named.0.percentage"),
    "percentage_not_a_number": (said((3, "80")), "named.0.percentage"),
    "percentage_out_of_range": (said((3, 100.5)), "named.0.percentage"),
    "alternative_likelier": (said((3, 30), (4, 60)), "named.1.percentage"),
    "nothing_likely": (said((3, 0)), "named.0.percentage"),
    "sum_over_limit": (said((3, 70), (4, 60)), "sum"),
    "too_many_named": (said((3, 30), (4, 20), (5, 10)), "named"),
    "impossible_not_asked": (said((3, 30), impossible=[1]), "impossible"),
}
STRICT: dict[str, dict[str, object]] = {
    "sum_over_limit": {"sum_limit": 100},
    "too_many_named": {"most_named": 2},
    "impossible_not_asked": {"ask_impossible": False},
}


@pytest.mark.parametrize("code", CONTRADICTIONS)
def test_a_contradiction_is_refused_beside_its_field_and_nothing_is_stored(code: str) -> None:
    session = begun(**STRICT.get(code, {}))
    body, field = CONTRADICTIONS[code]

    error = envelope(put(session, body), 422)

    assert error["code"] == code
    assert field in error["fields"]
    assert not Response.objects.exists()
    assert put(session).status_code == 201 or code == "impossible_not_asked"


def test_every_problem_of_an_answer_is_told_at_once(session: Session) -> None:
    error = envelope(put(session, said((3, 300), (3, None), impossible=[3])), 422)

    assert set(error["fields"]) == {
        "named.0.percentage",
        "named.1.category",
        "named.1.percentage",
        "impossible.3",
    }


@pytest.mark.parametrize("percentage", [True, False, "", "80", [80], {"a": 1}, "\0", "NaN"])
def test_a_percentage_that_is_no_number_is_told_as_such(session: Session, percentage: object) -> None:
    assert envelope(put(session, said((3, percentage))), 422)["code"] == "percentage_not_a_number"


@pytest.mark.parametrize("percentage", [-1, -1e-9, 100.0001, 1e308, 10**400])
def test_a_percentage_outside_0_to_100_is_told_as_such(session: Session, percentage: object) -> None:
    assert envelope(put(session, said((3, percentage))), 422)["code"] == "percentage_out_of_range"


@pytest.mark.parametrize("category", [-1, 10, 3.0, "3", True, [3], {}, 10**40, "\0"])
def test_a_category_that_is_not_there_is_told_as_such(session: Session, category: object) -> None:
    assert envelope(put(session, said((category, 50))), 422)["code"] == "unknown_category"
    assert envelope(put(session, said((3, 50), impossible=[category])), 422)["code"] == "unknown_category"


# --- Conflicts


def test_another_answer_under_the_same_id_is_a_conflict(session: Session) -> None:
    key = uuid.uuid4()
    put(session, key=key)

    assert envelope(put(session, said((4, 10)), key=key), 409)["code"] == "response_id_taken"
    assert Response.objects.get().top_category == 3


def test_a_second_answer_to_a_trial_is_a_conflict(session: Session) -> None:
    put(session)

    assert envelope(put(session), 409)["code"] == "trial_already_answered"
    assert Response.objects.count() == 1


def without_a_place(session: Session) -> Session:
    """The session was away for too long, and somebody else has its place."""
    later = make.NOON.replace(year=2027)
    sessions.give_back_places(later)
    make.begin(make.make_session(session.study, now=later), now=later)
    return session


def test_an_answer_that_comes_after_the_place_was_given_away_is_kept() -> None:
    session = without_a_place(begun(labels_per_image=1))

    response = put(session)

    assert (response.status_code, json.loads(response.content)["next"]) == (201, None)
    kept = Response.objects.get()
    assert (kept.trial.session, kept.trial.place) == (session, None)
    session.refresh_from_db()
    assert session.status == "abandoned"


def test_a_session_whose_last_answers_come_late_may_end_without_a_place() -> None:
    session = without_a_place(begun(labels_per_image=1, questionnaire=[]))

    for trial in session.trials.order_by("position"):
        put(session, trial=trial)

    session.refresh_from_db()
    assert (session.status, hasattr(session, "place")) == ("completed", False)
    facts = selectors.study_facts(session.study_id, until=timezone.now(), leave_out_inconsistent=False)
    assert facts["sessions_left_out"]["place_given_away"] == 1


def test_an_answer_of_a_session_at_the_questionnaire_is_a_conflict(session: Session) -> None:
    make.answer_all(session)

    assert envelope(put(session), 409)["code"] == "trial_already_answered"


# --- Corrections


def test_a_correction_is_a_new_revision_and_the_first_answer_stays(session: Session) -> None:
    key, correction = uuid.uuid4(), uuid.uuid4()
    put(session, key=key)

    response = put(session, {**said((5, 60)), "revises": str(key)}, key=correction)

    assert (response.status_code, json.loads(response.content)["done"]) == (201, 1)
    first, second = Response.objects.order_by("revision")
    assert (first.pk, first.current, first.named) == (key, False, [[3, 80.0]])
    assert (second.pk, second.current, second.revision, second.named) == (correction, True, 2, [[5, 60.0]])


def test_a_correction_may_be_sent_again_and_corrected_again(session: Session) -> None:
    keys = [uuid.uuid4() for _ in range(3)]
    put(session, key=keys[0])

    again = [put(session, {**said((5, 60)), "revises": str(keys[0])}, key=keys[1]).status_code for _ in range(2)]
    last = put(session, {**said((6, 70)), "revises": str(keys[1])}, key=keys[2])

    assert (again, last.status_code) == ([201, 200], 201)
    assert list(Response.objects.order_by("revision").values_list("current", flat=True)) == [False, False, True]


def test_a_correction_of_what_was_corrected_meanwhile_is_a_conflict(session: Session) -> None:
    key = uuid.uuid4()
    put(session, key=key)
    put(session, {**said((5, 60)), "revises": str(key)})

    error = envelope(put(session, {**said((6, 70)), "revises": str(key)}), 409)

    assert error["code"] == "trial_already_answered"
    assert Response.objects.count() == 2


def test_a_correction_after_the_last_trial_is_a_conflict(session: Session) -> None:
    key = uuid.uuid4()
    put(session, key=key)
    make.answer_all(session)

    assert envelope(put(session, {**said((5, 60)), "revises": str(key)}), 409)["code"] == "session_not_at_trials"


def test_only_the_last_revision_is_released_and_checked() -> None:
    session = begun(images_per_session=4, repeats_per_session=1, questionnaire=[])
    repeat = session.trials.get(kind="repeat")
    assert repeat.repeat_of is not None
    key = uuid.uuid4()
    put(session, said((3, 100)), trial=repeat.repeat_of, key=key)
    put(session, {**said((5, 100)), "revises": str(key)}, trial=repeat.repeat_of)
    make.answer_all(session, ((5, 100),))

    columns = list(selectors.released_responses(session.study_id, until=timezone.now(), leave_out_inconsistent=False))

    assert [category for part in columns for category in part.named_categories] == [5] * 5
    assert quality.check_session(str(session.pk), make.NOON).same_top == 1


# --- How the answer came about

PROCESS: dict[str, Any] = {
    "input": "mixed",
    "first_touch_ms": 700,
    "changes": 2,
    "fields": [
        {"field": "top", "category": 3, "first_ms": 700, "last_ms": 900, "changes": 2, "input": "keyboard"},
        {"field": "sweep", "category": None, "first_ms": 950, "last_ms": 950, "changes": 1, "input": "mouse"},
    ],
    "warnings": [{"code": "too_fast", "ms": 990, "kept": True}],
}


def test_how_the_answer_came_about_is_kept_with_it(session: Session) -> None:
    put(session, {**GOOD, "process": PROCESS})

    stored = Response.objects.get()
    assert (stored.input_device, stored.first_touch_ms, stored.changes) == ("mixed", 700, 2)
    assert stored.process == {"fields": PROCESS["fields"], "warnings": PROCESS["warnings"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": "telepathy"},
        {"input": "mouse", "changes": -1},
        {"input": "mouse", "first_touch_ms": "soon"},
        {"input": "mouse", "fields": [{"field": "named"}]},
        {"input": "mouse", "warnings": [{"code": "bored", "ms": 1, "kept": True}]},
        {"input": "mouse", "warnings": [PROCESS["warnings"][0]] * 21},
        [],
    ],
)
def test_a_process_of_another_form_is_told_and_nothing_is_stored(session: Session, wrong: object) -> None:
    error = envelope(put(session, {**GOOD, "process": wrong}), 400)

    assert all(name.startswith("process") for name in error["fields"])
    assert not Response.objects.exists()


# --- An image that does not load


def skip(session: Session, trial: Trial, reason: str = "image_failed") -> HttpResponse:
    response = Client().put(
        reverse("skip-trial", args=[trial.pk]),
        json.dumps({"reason": reason}),
        content_type="application/json",
        headers={"Authorization": f"Session {session.token}"},
    )
    assert isinstance(response, HttpResponse)
    return response


def test_a_trial_whose_image_failed_is_passed_over_once(session: Session) -> None:
    first, second = session.trials.order_by("position")[:2]

    answers = [skip(session, first) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [json.loads(answer.content)["next"]["id"] for answer in answers] == [str(second.pk)] * 2
    assert [json.loads(answer.content)["done"] for answer in answers] == [1, 1]
    first.refresh_from_db()
    assert first.skipped_at is not None


def test_a_session_ends_though_its_last_image_failed() -> None:
    session = begun(questionnaire=[], repeats_per_session=0)
    *others, last = selectors.open_trials(session)
    for trial in others:
        make.respond(trial)

    assert json.loads(skip(session, last).content)["next"] is None

    session.refresh_from_db()
    assert session.status == "completed"


def test_an_answer_to_a_trial_that_was_passed_over_elsewhere_is_kept(session: Session) -> None:
    first = selectors.open_trials(session)[0]
    skip(session, first)

    assert put(session, trial=first).status_code == 201


def test_a_trial_that_is_answered_is_not_passed_over(session: Session) -> None:
    first = selectors.open_trials(session)[0]
    make.respond(first)

    assert envelope(skip(session, first), 409)["code"] == "trial_already_answered"


def test_a_trial_is_passed_over_for_a_documented_reason_only(session: Session) -> None:
    first = selectors.open_trials(session)[0]

    assert "reason" in envelope(skip(session, first, reason="boring"), 400)["fields"]
    assert selectors.open_trials(session)[0] == first


# --- Two questions about each image


def test_a_study_of_both_framings_asks_twice_about_each_image_and_releases_either() -> None:
    session = begun(framing="both", questionnaire=[], repeats_per_session=1)
    trials = selectors.open_trials(session)
    assert [(trial.image_id, trial.framing) for trial in trials[:4]] == [
        (trials[0].image_id, "others"),
        (trials[0].image_id, "self"),
        (trials[2].image_id, "others"),
        (trials[2].image_id, "self"),
    ]
    assert len(trials) == selectors.trials_in_session(session.study) == 10
    for trial in trials:
        make.respond(trial, ((3 if trial.framing == "others" else 4, 80),))

    def released(framing: str) -> set[int]:
        parts = selectors.released_responses(
            session.study_id, until=timezone.now(), leave_out_inconsistent=False, framing=framing
        )
        return {category for part in parts for category in part.named_categories}

    assert (released("others"), released("self"), released("")) == ({3}, {4}, {3})
    assert selectors.study_progress(session.study).percent == 17
    assert quality.check_session(str(session.pk), make.NOON).same_top == 2


# --- Whose trial it is


@pytest.mark.parametrize(
    "authorization",
    ["", "Session", "Session ", "Session nobody", "session {token}", "Token {token}", "{token}", "Session \u00e9"],
)
def test_without_the_sessions_link_nothing_is_stored(session: Session, authorization: str) -> None:
    response = put(session, authorization=authorization.format(token=session.token))

    error = envelope(response, 401)
    assert response["WWW-Authenticate"] == "Session"
    assert session.token not in error["message"]
    assert not Response.objects.exists()


def test_a_link_with_a_nul_is_the_link_of_nobody(session: Session) -> None:
    envelope(put(session, authorization="Session a\0b"), 401)


def test_another_persons_trial_is_not_there(session: Session) -> None:
    other = make.begin(make.make_session(session.study))
    theirs = other.trials.get(position=1)

    error = envelope(put(session, trial=theirs), 404)

    assert error["code"] == "not_found"
    assert not Response.objects.exists()


def test_what_one_person_learns_of_anothers_trial_is_what_they_learn_of_none(session: Session) -> None:
    theirs = make.begin(make.make_session(session.study)).trials.get(position=1)
    make.respond(theirs)

    nobodys = Trial(pk=uuid.uuid4())

    assert put(session, trial=theirs).content == put(session, trial=nobodys).content


def test_a_signed_in_curator_needs_the_link_too(session: Session, admin_client: Client) -> None:
    url = reverse("put-response", args=[session.trials.get(position=1).pk, uuid.uuid4()])

    assert admin_client.put(url, GOOD, content_type="application/json").status_code == 401


@pytest.mark.parametrize("method", ["get", "post", "patch", "delete"])
def test_an_answer_is_put_and_nothing_else(session: Session, method: str) -> None:
    url = reverse("put-response", args=[session.trials.get(position=1).pk, uuid.uuid4()])

    response = getattr(Client(), method)(url, headers={"Authorization": f"Session {session.token}"})

    assert envelope(response, 405)["code"] == "method_not_allowed"


# --- Bodies of another form


def changed(**values: object) -> dict[str, Any]:
    return {**GOOD, **values}


MALFORMED: dict[str, object] = {
    "nothing": b"",
    "no JSON": b"named=3",
    "half of it": b'{"named": [',
    "two of them": b"{}{}",
    "not UTF-8": b'{"named": "\xff\xfe"}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a NUL": b'{"named": \0}',
    "nested without end": b"[" * 200_000,
    "objects without end": b'{"named":' * 100_000,
    "a list of nothing": [],
    "a list of an answer": [GOOD],
    "text": "text",
    "quoted text": '"text"',
    "a number": "3",
    "null": "null",
    "true": "true",
    "empty": {},
    "NaN": b'{"named": [{"category": 3, "percentage": NaN}], "duration_ms": 1}',
    "Infinity": b'{"named": [{"category": 3, "percentage": -Infinity}], "duration_ms": 1}',
    "digits without end": b'{"duration_ms": ' + b"9" * 10_000 + b"}",
    "named missing": {"duration_ms": 1},
    "named null": changed(named=None),
    "named text": changed(named="Cat"),
    "named number": changed(named=3),
    "named object": changed(named={"category": 3, "percentage": 80}),
    "named list of numbers": changed(named=[3, 80]),
    "named list of lists": changed(named=[[3, 80]]),
    "named list of text": changed(named=["Cat\0"]),
    "named list of null": changed(named=[None]),
    "named without category": changed(named=[{"percentage": 80}]),
    "named without percentage": changed(named=[{"category": 3}]),
    "category null": changed(named=[{"category": None, "percentage": 80}]),
    "too many named": changed(named=GOOD["named"] * 1001),
    "impossible null": changed(impossible=None),
    "impossible text": changed(impossible="012"),
    "impossible object": changed(impossible={"0": True}),
    "impossible null inside": changed(impossible=[None]),
    "too many impossible": changed(impossible=[0] * 1001),
    "no duration": {"named": GOOD["named"]},
    "duration null": changed(duration_ms=None),
    "duration text": changed(duration_ms="soon"),
    "duration with a NUL": changed(duration_ms="5\0"),
    "duration list": changed(duration_ms=[5]),
    "duration object": changed(duration_ms={}),
    "duration true": changed(duration_ms=True),
    "duration with a fraction": changed(duration_ms=1.5),
    "duration negative": changed(duration_ms=-1),
    "duration of days": changed(duration_ms=24 * 60 * 60 * 1000 + 1),
    "duration huge": changed(duration_ms=10**300),
    "duration infinite": b'{"named": [{"category": 3, "percentage": 80}], "duration_ms": 1e999}',
    "duration long text": changed(duration_ms="9" * 100_000),
    "hidden negative": changed(hidden_ms=-1),
    "hidden huge": changed(hidden_ms=2**31),
    "hidden null": changed(hidden_ms=None),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_body_of_another_form_is_told_and_nothing_is_stored(session: Session, name: str) -> None:
    error = envelope(put(session, MALFORMED[name]), 400)

    assert error["code"] in {"invalid", "parse_error"}
    assert not Response.objects.exists()
    assert put(session).status_code == 201


def test_the_field_that_has_another_form_is_named(session: Session) -> None:
    error = envelope(put(session, changed(named=[GOOD["named"][0], {"category": 3}], duration_ms=-1)), 400)

    assert set(error["fields"]) == {"named.1.percentage", "duration_ms"}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
def test_a_body_of_another_type_is_told(session: Session, kind: str) -> None:
    assert envelope(put(session, content_type=kind), 415)["code"] == "unsupported_media_type"
    assert not Response.objects.exists()


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "utf-16", "hex", "zlib", "rot13", "idna", "no-such-thing"])
def test_a_body_is_read_as_utf_8_whatever_its_header_says(session: Session, charset: str) -> None:
    assert put(session, content_type=f"application/json; charset={charset}").status_code == 201


def test_a_body_without_measure_is_not_read_into_memory(session: Session) -> None:
    body = json.dumps(changed(filler="x" * (1 << 20)))

    assert envelope(put(session, body), 413)["code"] == "too_large"
    assert not Response.objects.exists()


def test_a_client_that_wants_no_json_is_told(session: Session) -> None:
    assert envelope(put(session, Accept="text/html"), 406)["code"] == "not_acceptable"


@pytest.mark.parametrize("path", ["/api/trials/1/responses/2", "/api/trials/x/responses/", "/api/nothing"])
def test_an_address_that_is_none_is_not_there(path: str) -> None:
    assert Client().put(path, GOOD, content_type="application/json").status_code == 404


# --- What is not said


def test_no_answer_of_the_api_gives_a_label_or_another_session_away(session: Session) -> None:
    other = make.begin(make.make_session(session.study, platform_id="someone else"))
    bodies = [put(session).content, put(session).content, put(session, said()).content]

    for body in bodies:
        text = body.decode()
        assert "reference" not in text
        assert other.token not in text
        assert str(other.pk) not in text
        assert other.participant.annotator not in text
        assert session.participant.annotator not in text
        assert not any(str(trial.pk) in text for trial in other.trials.all())
