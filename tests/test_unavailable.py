"""What people and programs are told while the database can't do its work; and that a defect stays one."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

import psycopg2
import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import Error, InterfaceError, InternalError, OperationalError, ProgrammingError
from django.test import Client
from pytest_django.fixtures import Settings

from annotations import selectors
from elicit.unavailable import is_passing


def caused(error: Error, by: Exception) -> Error:
    error.__cause__ = by
    return error


def of_sqlite(statement: str) -> sqlite3.Error:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("PRAGMA query_only = on")
        connection.execute(statement)
    except sqlite3.Error as error:
        return error
    finally:
        connection.close()
    raise AssertionError(statement)


class ReadOnly(psycopg2.InternalError):
    pgcode = "25006"


PASSES = [
    OperationalError("could not connect to server"),
    InterfaceError("connection already closed"),
    caused(InternalError("cannot execute INSERT in a read-only transaction"), ReadOnly()),
    caused(OperationalError("attempt to write a readonly database"), of_sqlite("CREATE TABLE t (x)")),
    OSError(errno.ENOSPC, "No space left on device"),
]
STAYS = [
    ProgrammingError("column does not exist"),
    InterfaceError("Error binding parameter 1"),
    caused(InternalError("current transaction is aborted"), psycopg2.InternalError()),
    caused(OperationalError("no such table"), of_sqlite("SELECT * FROM missing")),
    OSError(errno.EACCES, "Permission denied"),
    ValueError("a defect"),
]


@pytest.mark.parametrize("error", PASSES, ids=str)
def test_what_time_heals_is_told_from_a_defect(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize("error", STAYS, ids=str)
def test_a_defect_is_told_from_what_time_heals(error: Exception) -> None:
    assert not is_passing(error)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A site whose views meet a database that is away."""

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("could not connect to server: it is at db.internal")

    monkeypatch.setattr(selectors, "session_by_token", away)
    return Client(raise_request_exception=False)


def test_a_page_says_in_the_annotators_language_that_it_can_be_asked_for_again(site: Client) -> None:
    english = site.get("/session/abc/?PROLIFIC_PID=x&n=1", headers={"Accept-Language": "en"})
    assert english.status_code == 503
    assert english.headers["Retry-After"] == "5"
    assert english.headers["Cache-Control"] == "no-store"
    page = english.content.decode()
    assert "The site can’t answer just now." in page
    assert 'href="/session/abc/?PROLIFIC_PID=x&amp;n=1"' in page
    assert "db.internal" not in page

    chinese = site.get("/session/abc/", headers={"Accept-Language": "zh-CN"}).content.decode()
    assert "网站暂时无法响应" in chinese
    assert 'lang="zh-hans"' in chinese


def test_whoever_sent_a_form_is_told_that_it_may_not_be_stored(site: Client) -> None:
    page = site.post("/session/abc/withdraw").content.decode()

    assert "go back in your browser and send it again" in page
    assert "Try again" not in page


def test_the_api_says_so_in_the_form_of_every_error(site: Client) -> None:
    answer = site.get("/api/session", headers={"Authorization": "Session abc"})

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    told = answer.json()
    assert (told["code"], told["fields"]) == ("unavailable", {})
    assert told["message"].startswith("The server can't answer now. The request can be sent again.")
    assert answer.headers["X-Request-ID"] in told["message"]


def test_a_database_that_is_away_before_any_view_is_told_as_well(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    def away(_: SessionStore) -> None:
        raise OperationalError("could not connect to server")

    monkeypatch.setattr(SessionStore, "load", away)
    settings.REQUIRE_TWO_FACTOR = True
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "a-session-that-is-known"

    assert client.get("/admin/").status_code == 503


def test_a_defect_stays_a_failure_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ProgrammingError("column does not exist")

    monkeypatch.setattr(selectors, "session_by_token", broken)
    client = Client(raise_request_exception=False)

    assert client.get("/session/abc/").status_code == 500
    told = client.get("/api/session", headers={"Authorization": "Session abc"})
    assert (told.status_code, told.json()["code"]) == (500, "server_error")
