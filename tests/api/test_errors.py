"""Whatever goes wrong under /api/ is told in JSON."""

from __future__ import annotations

import json
import uuid

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from pytest_django.fixtures import Settings

from elicit.json_errors import JsonErrors
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
        ("GET", "/api/releases?study=%00", 400, "bad_request"),
    ],
)
def test_an_error_is_json(method: str, path: str, status: int, code: str) -> None:
    response = Client().generic(method, path)

    assert response.status_code == status
    assert response["Content-Type"] == "application/json"
    body = json.loads(response.content)
    assert (set(body), body["code"]) == ({"code", "message", "fields"}, code)
    assert response["Content-Length"] == str(len(response.content))


def test_a_failure_is_json_and_tells_nothing_of_itself(settings: Settings) -> None:
    settings.DEBUG = False
    page = HttpResponse("<h1>secret</h1>", status=500, headers={"X-Kept": "yes"})
    request = HttpRequest()
    request.path_info = "/api/releases"

    response = JsonErrors(lambda _: page)(request)

    assert isinstance(response, HttpResponse)
    assert json.loads(response.content)["code"] == "server_error"
    assert response["X-Kept"] == "yes"


@pytest.mark.parametrize("address", ["/s/birds?pid=a%00b", "/admin/login/?next=%00", "/nothing/%00"])
def test_a_nul_in_an_address_is_refused_before_it_reaches_the_database(address: str) -> None:
    response = Client().get(address)
    assert response.status_code == 400
    assert "Content-Security-Policy" in response


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
    session = make.begin(make.make_session(make.make_study()))
    trial = session.trials.order_by("position")[0]

    response = Client().put(
        f"/api/trials/{trial.pk}/responses/{uuid.uuid4()}",
        body,
        content_type="application/json",
        headers={"Authorization": f"Session {session.token}"},
    )

    assert (response.status_code, response.json()["code"]) == (400, "parse_error")
