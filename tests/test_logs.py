"""What comes into a log, and which sites gunicorn starts."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery.signals import task_postrun, task_prerun
from django.conf import settings as configured
from django.test import Client
from pytest_django.fixtures import Settings
from redis import Redis

from annotations import selectors
from annotations.kinds import SUMMARISE_STUDY
from annotations.models import Session
from elicit import logs
from elicit.logs import About, Json, Line, Redact, redacted
from jobs.models import Job, Status
from jobs.services import enqueue
from jobs.tasks import sweep
from tests import factories as make
from tests import services
from tests.services import ROOT, Service

TOKEN = "2bjsUsVKMHjWXi-CotlULu61vIdfDwtb"


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (f"/session/{TOKEN}/", "/session/[link]/"),
        (f"/session/{TOKEN}", "/session/[link]"),
        (f"Not Found: /session/{TOKEN}/withdraw", "Not Found: /session/[link]/withdraw"),
        (f"https://x.example/session/{TOKEN}/?x=1 and more", "https://x.example/session/[link]/?x=1 and more"),
        ("/api/session/step", "/api/session/step"),
        ("/study/animals/", "/study/animals/"),
        ("Invalid request from ip=198.51.100.7: Invalid header", "Invalid request from ip=[address]: Invalid header"),
        ("Invalid request from ip=2001:db8::7: No", "Invalid request from ip=[address]: No"),
        ("Error handling request GET /study/a/?pid=5f2", "Error handling request GET /study/a/"),
        ("Error handling request /?pid=5f2", "Error handling request /"),
    ],
)  # fmt: skip
def test_no_token_of_a_personal_link_stays_in_a_text(said: str, logged: str) -> None:
    assert redacted(said) == logged


def test_a_log_record_loses_tokens_from_its_words_and_its_traceback() -> None:
    try:
        raise ValueError(f"/session/{TOKEN}/ failed")
    except ValueError:
        record = logging.LogRecord("x", 40, "", 0, "at %s", (f"/session/{TOKEN}/",), sys.exc_info())
    Redact().filter(record)

    text = logging.Formatter().format(record)
    assert TOKEN not in text
    assert "at /session/[link]/" in text
    assert "ValueError: /session/[link]/ failed" in text


def output_with(service: Service, pattern: str) -> str:
    """What it has logged, once this is in it: a request's line is written after the answer."""
    for _ in range(400):
        if re.search(pattern, log := service.output()):
            return log
        time.sleep(0.05)
    raise AssertionError(f"{pattern} is not logged")


@pytest.mark.worker
def test_a_site_in_service_logs_no_token(server_environment: dict[str, str]) -> None:
    with services.web(server_environment) as web:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{web.url}/session/{TOKEN}/", timeout=30)  # noqa: S310 (our own address)
        log = output_with(web, "/session/")

    assert '"GET /session/[link]/ HTTP/1.1" 404' in log
    assert TOKEN not in log


# --- What a line is about


def record(message: str = "all is %s", *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("x.y").makeRecord("x.y", logging.WARNING, "", 0, message, args, None, extra=extra)


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    text = Json().format(made)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_json_line_says_when_who_and_what_and_of_which_request() -> None:
    about = About("abc", session_id="s", route="put-response", status=201, duration_ms=2.5)
    with logs.concerning(about):
        told = as_json(record("all is %s\nand 图", "well"))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told.pop("time"))
    assert told == {
        "level": "WARNING",
        "logger": "x.y",
        "message": "all is well\nand 图",
        "request_id": "abc",
        "session_id": "s",
        "route": "put-response",
        "status": 201,
        "duration_ms": 2.5,
    }


def test_a_json_line_holds_no_extras_which_may_hold_the_request() -> None:
    told = as_json(record("no", request=f"<WSGIRequest: GET '/session/{TOKEN}/?pid=5f2'>", status_code=404))

    assert set(told) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("filtered", [True, False])
def test_a_json_line_holds_its_traceback_without_tokens(filtered: bool) -> None:
    made = record("at %s", f"/session/{TOKEN}/")
    try:
        raise ValueError(f"/session/{TOKEN}/ failed")
    except ValueError:
        made.exc_info = sys.exc_info()
    if filtered:
        Redact().filter(made)

    told = as_json(made)

    assert told["message"] == "at /session/[link]/"
    assert told["error"].startswith("Traceback")
    assert "ValueError: /session/[link]/ failed" in told["error"]


def test_a_line_for_people_ends_with_what_it_belongs_to() -> None:
    assert Line().format(record("well")).endswith("WARNING x.y: well")
    with logs.concerning(About("abc")):
        assert Line().format(record("well")).endswith("x.y: well [request abc]")
    with logs.concerning(About(job_id=7, job_kind="tests.work")):
        assert Line().format(record("well")).endswith("x.y: well [job 7]")


def test_what_is_about_nothing_is_not_given_a_session() -> None:
    logs.of_session("s")

    assert logs.present() == About()


def test_a_task_s_lines_are_about_its_job_and_no_further() -> None:
    task_prerun.send(sender=sweep, task_id="t", task=sweep, args=(7,), kwargs={})
    assert logs.present() == About(job_id=7, job_kind="jobs.sweep")
    task_postrun.send(sender=sweep, task_id="t", task=sweep, args=(7,), kwargs={}, retval=None, state="SUCCESS")
    assert logs.present() == About()


# --- Requests have ids


@pytest.mark.django_db
@pytest.mark.parametrize("given", ["abc-123", "A" * 64, str(uuid.UUID(int=5))])
def test_a_request_keeps_the_id_that_a_proxy_gave_it(given: str) -> None:
    assert Client().get("/healthz", headers={"X-Request-ID": given})["X-Request-ID"] == given


@pytest.mark.django_db
@pytest.mark.parametrize("given", ["", "a b", "A" * 65, "a\nb", "<b>", "é"])
def test_an_id_that_may_be_anything_is_not_taken_over(given: str) -> None:
    answers = [Client().get("/nothing", headers={"X-Request-ID": given})["X-Request-ID"] for _ in range(2)]

    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in answers)
    assert answers[0] != answers[1]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "words"), [("en", "Something went wrong"), ("zh-hans", "出现了问题")], ids=["en", "zh"]
)
def test_the_page_of_a_failure_tells_its_number(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, language: str, words: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the database")

    settings.DEBUG = False
    monkeypatch.setattr("annotations.pages.selectors.session_by_token", fails)
    answer = Client(raise_request_exception=False).get(
        "/session/x/", headers={"Accept-Language": language, "X-Request-ID": "abc-1"}
    )

    text = answer.content.decode()
    assert (answer.status_code, answer["X-Request-ID"]) == (500, "abc-1")
    assert words in text
    assert "abc-1" in text
    assert "secret" not in text
    assert "no-store" in answer["Cache-Control"]


# --- Sites and workers in service


def lines(log: str) -> list[dict[str, Any]]:
    """Every line is an object."""
    return [json.loads(line) for line in log.splitlines()]


def visit(url: str, **headers: str) -> None:
    """Whatever the answer."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30).close()  # noqa: S310 (ours)
    except urllib.error.HTTPError as error:
        error.close()


def say(site: Service, words: bytes) -> bytes:
    """What is answered to something that is no HTTP."""
    address = urlsplit(site.url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(words)
        return connection.makefile("rb").read()


PLATFORM_ID = "5f2a91c0de"
ADDRESS = "198.51.100.77"


def walk_in(site: Service, session: Session) -> None:
    """Somebody whom a platform sent, over a proxy: pages, the API, an answer, what is not there, and no HTTP at all."""
    study = session.study
    came = {"X-Forwarded-For": ADDRESS, "Referer": f"{site.url}/study/{study.slug}/?PROLIFIC_PID={PLATFORM_ID}"}
    link = {**came, "Authorization": f"Session {session.token}"}
    trial = selectors.open_trials(session)[0]
    visit(f"{site.url}/study/{study.slug}/?PROLIFIC_PID={PLATFORM_ID}&pid={PLATFORM_ID}", **came)
    visit(f"{site.url}/session/{session.token}/", **came)
    visit(f"{site.url}/session/{TOKEN}/?pid={PLATFORM_ID}", **came)
    visit(f"{site.url}/api/session?pid={PLATFORM_ID}", **link)
    visit(f"{site.url}/api/trials/{trial.pk}/responses/{uuid.uuid4()}", **link)
    visit(f"{site.url}/nothing/?pid={PLATFORM_ID}", **came)
    say(site, f"GET /session/{TOKEN}/?pid={PLATFORM_ID} HTTP/1.1\r\nBad Header: x\r\n\r\n".encode())
    visit(f"{site.url}/readyz", **{**came, "X-Request-ID": "last-one"})


@pytest.mark.worker
@pytest.mark.parametrize("form", ["json", "line"])
def test_a_site_in_service_logs_no_token_no_platform_id_and_no_address(
    server_environment: dict[str, str], form: str
) -> None:
    session = make.begin(make.make_session(make.make_study(), platform_id=PLATFORM_ID))
    told = {**server_environment, "ELICIT_LOG_FORMAT": form, "ELICIT_LOG_LEVEL": "INFO"}
    with services.web(told) as site:
        walk_in(site, session)
        log = output_with(site, "last-one")

    assert log.count("/session/[link]/") >= 2
    assert "Invalid request from ip=[address]" in log
    hidden = (TOKEN, session.token, PLATFORM_ID, ADDRESS, session.participant.annotator)
    assert [each for each in hidden if each in log] == []
    # Where gunicorn listens is said once, and who asked never.
    assert {line for line in log.splitlines() if "127.0.0.1" in line and "Listening at" not in line} == set()
    if form == "line":
        return
    by_route = {(line.get("route"), line.get("status")): line for line in lines(log) if "status" in line}
    api = by_route["session-api", 200]
    assert api["session_id"] == str(session.pk)
    assert api["logger"] == "gunicorn.access"
    assert re.fullmatch("[0-9a-f]{16}", api["request_id"])
    assert api["duration_ms"] > 0
    assert by_route["session", 200]["session_id"] == str(session.pk)
    assert "session_id" not in by_route["session", 404]
    assert by_route["put-response", 405]["method"] == "GET"


@pytest.mark.worker
def test_a_failure_is_found_in_the_log_by_the_number_that_was_told(tmp_path: Path) -> None:
    # A database without tables: a defect, where one that is away would pass.
    empty = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    told = {"ELICIT_DATABASE_URL": empty, "ELICIT_VAR": str(tmp_path), "ELICIT_LOG_FORMAT": "json"}
    (tmp_path / "static").mkdir()
    with services.web(told) as site:
        for path, number in (("/study/birds/", "page-1"), ("/api/studies/birds", "api-1")):
            request = urllib.request.Request(f"{site.url}{path}?pid={PLATFORM_ID}", headers={"X-Request-ID": number})  # noqa: S310
            with pytest.raises(urllib.error.HTTPError, match="500") as failed:
                urllib.request.urlopen(request, timeout=30)  # noqa: S310
            with failed.value:
                assert failed.value.headers["X-Request-ID"] == number
                assert number in failed.value.read().decode()
        log = output_with(site, "GET /api/studies/birds HTTP/1.1")

    assert PLATFORM_ID not in log
    for number in ("page-1", "api-1"):
        found = [line for line in lines(log) if line.get("request_id") == number]
        assert {line["logger"] for line in found} == {"django.request", "gunicorn.access"}
        [failure] = [line for line in found if "error" in line]
        assert "OperationalError" in failure["error"]


@pytest.mark.worker
def test_a_worker_s_lines_are_json_and_name_their_job(server_environment: dict[str, str]) -> None:
    with closing(Redis.from_url(configured.CELERY_BROKER_URL)) as broker:
        broker.flushdb()
    study = make.make_study()
    with services.worker({**server_environment, "ELICIT_LOG_FORMAT": "json"}, before=["--quiet"]) as worker:
        job = enqueue(SUMMARISE_STUDY, study.pk)
        log = output_with(worker, rf"{SUMMARISE_STUDY}\[[^\]]*\] succeeded")

    assert Job.objects.get(pk=job.pk).status == Status.DONE
    done = next(line for line in lines(log) if re.match(rf"Task {SUMMARISE_STUDY}.* succeeded", line["message"]))
    assert (done["job_id"], done["job_kind"], done["logger"]) == (job.pk, SUMMARISE_STUDY, "celery.app.trace")


# --- Which sites start


def start(told: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What gunicorn does before it listens."""
    look = "import runpy; runpy.run_path('gunicorn.conf.py')['on_starting'](None)"
    # Playwright's, of the tests.
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_ALLOW_ASYNC_UNSAFE"}
    return subprocess.run(
        [sys.executable, "-c", look],
        cwd=ROOT,
        env={**environment, "ELICIT_VAR": str(folder), **told},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"ELICIT_PUBLIC_URL": "https://elicit.example.org"},
        {"ELICIT_PUBLIC_URL": "http://localhost:8000"},
        {"ELICIT_PUBLIC_URL": "http://lab.example.org", "ELICIT_ALLOW_HTTP": "1"},
    ],
    ids=["at home", "https", "this machine", "http on purpose"],
)
def test_a_site_that_is_safe_starts(told: dict[str, str], tmp_path: Path) -> None:
    done = start(told, tmp_path)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"ELICIT_PUBLIC_URL": "http://lab.example.org"}, "security.W012"),
        ({"ELICIT_PUBLIC_URL": "https://elicit.example.org", "ELICIT_DEBUG": "1"}, "security.W018"),
        ({"ELICIT_PUBLIC_URL": "https://elicit.example.org", "ELICIT_SECRET_KEY": "short"}, "security.W009"),
    ],
    ids=["no https", "debugging", "a weak key"],
)
def test_a_public_site_that_is_unsafe_does_not_start_and_says_why(
    told: dict[str, str], why: str, tmp_path: Path
) -> None:
    done = start(told, tmp_path)

    assert done.returncode == 1
    assert why in done.stderr
    assert "does not start" in done.stderr
