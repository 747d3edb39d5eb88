"""Whatever goes wrong under /api/ is told in JSON."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings
from rest_framework.exceptions import Throttled

from annotations import api
from annotations.models import Response
from elicit.json_errors import JsonErrors
from elicit.middleware import NulInAddress
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/releases/", 404, "not_found"),
        ("GET", "/api/", 404, "not_found"),
        ("PUT", "/api/trials/x/responses/y", 404, "not_found"),
        ("POST", "/api/schema", 405, "method_not_allowed"),
        ("PATCH", "/api/studies/birds", 405, "method_not_allowed"),
        ("GET", "/api/releases", 401, "not_authenticated"),
        ("GET", "/api/releases?study=%00", 401, "not_authenticated"),
    ],
)
def test_an_error_is_json(method: str, path: str, status: int, code: str) -> None:
    response = Client().generic(method, path)

    assert response.status_code == status
    assert response["Content-Type"] == "application/json"
    body = json.loads(response.content)
    assert (set(body), body["code"]) == ({"code", "message", "fields"}, code)
    assert response["Content-Length"] == str(len(response.content))


def put_answer(body: bytes | str, content_type: str = "application/json", **headers: str) -> Any:
    """What the API says of this body as the answer to a trial that waits for one."""
    session = make.begin(make.make_session(make.make_study()))
    trial = session.trials.order_by("position")[0]
    return Client(raise_request_exception=False).put(
        f"/api/trials/{trial.pk}/responses/{uuid.uuid4()}",
        body,
        content_type=content_type,
        headers={"Authorization": f"Session {session.token}", **headers},
    )


GOOD = '{"named": [{"category": 3, "percentage": 80}], "duration_ms": 1}'


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("{", "application/json", 400, "parse_error"),
        ('"\xff"'.encode("latin-1"), "application/json", 400, "parse_error"),
        ("[" * 100_000, "application/json", 400, "parse_error"),
        ("[]", "application/json", 400, "invalid"),
        (GOOD + " " * (1 << 20), "application/json", 413, "too_large"),
        (GOOD, "text/plain", 415, "unsupported_media_type"),
        ('{"named": [], "duration_ms": 1}', "application/json", 422, "nothing_answered"),
    ],
)
def test_a_body_that_does_not_do_is_refused_in_json(
    body: bytes | str, content_type: str, status: int, code: str
) -> None:
    response = put_answer(body, content_type)

    assert (response.status_code, response["Content-Type"]) == (status, "application/json")
    assert set(response.json()) == {"code", "message", "fields"}
    assert response.json()["code"] == code
    assert not Response.objects.exists()


def test_nobody_is_answered_in_html_because_they_ask_for_it() -> None:
    response = put_answer(GOOD, Accept="text/html")

    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


def test_a_view_that_fails_is_told_in_json_and_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: object) -> None:
        raise RuntimeError("the secret of the database")

    monkeypatch.setattr(api, "submit_response", fails)

    response = put_answer(GOOD)

    assert (response.status_code, response["Content-Type"]) == (500, "application/json")
    number = response["X-Request-ID"]
    assert response.json() == {
        "code": "server_error",
        "message": f"The server failed. The request can be sent again. Its number in the log is {number}.",
        "fields": {},
    }


def test_who_asks_too_often_is_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(**_: object) -> None:
        raise Throttled(wait=7)

    monkeypatch.setattr(api, "submit_response", busy)

    response = put_answer(GOOD)

    assert (response.status_code, response["Retry-After"]) == (429, "7")
    assert response.json()["code"] == "throttled"


def test_another_s_host_name_is_refused_in_json() -> None:
    response = Client().get("/api/releases", headers={"Host": "elsewhere.example.org"})

    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


def test_a_failure_is_json_and_tells_nothing_of_itself(settings: Settings) -> None:
    settings.DEBUG = False
    page = HttpResponse("<h1>secret</h1>", status=500, headers={"X-Kept": "yes"})
    request = HttpRequest()
    request.path_info = "/api/releases"

    response = JsonErrors(lambda _: page)(request)

    assert isinstance(response, HttpResponse)
    assert json.loads(response.content)["code"] == "server_error"
    assert response["X-Kept"] == "yes"


@pytest.mark.parametrize("path", ["/study/birds/?pid=a%00b", "/admin/login/?next=%00", "/nothing/%00", "/%00?a=%00"])
def test_a_nul_in_an_address_is_never_a_failure(path: str) -> None:
    response = Client(raise_request_exception=False).get(path)

    assert response.status_code < 500
    assert "Content-Security-Policy" in response


def test_a_nul_that_comes_as_far_as_the_database_is_refused() -> None:
    curator = Client(raise_request_exception=False)
    curator.force_login(make.make_curator())

    response = curator.get("/admin/annotations/study/?q=a&status__exact=%00")

    # PostgreSQL takes none; to SQLite it is a word like any other.
    assert response.status_code == (400 if connection.vendor == "postgresql" else 200)


def test_another_failure_is_not_taken_for_a_nul() -> None:
    net = NulInAddress(lambda _: HttpResponse())
    clean, spoilt = RequestFactory().get("/?q=a"), RequestFactory().get("/?q=%00")

    assert net.process_exception(clean, ValueError()) is None
    assert net.process_exception(spoilt, KeyError()) is None
    answer = net.process_exception(spoilt, ValueError())
    assert answer is not None
    assert answer.status_code == 400


def test_a_page_keeps_its_own_error() -> None:
    assert Client().get("/nothing")["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "body",
    [
        '{"named": [{"category": 3, "percentage": 80}], "duration_ms": 1, "duration_ms": 2}',
        '{"named": [{"category": 3, "percentage": 80}], "duration_ms": 1, "note": "\\ud83d"}',
    ],
)
def test_what_json_leaves_open_is_refused(body: str) -> None:
    response = put_answer(body)

    assert (response.status_code, response.json()["code"]) == (400, "parse_error")
