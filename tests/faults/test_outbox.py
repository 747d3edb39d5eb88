"""An answer that the screen accepted reaches the database once, whatever dies on the way: real Chromium, real site."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone
from playwright.sync_api import BrowserContext, BrowserType, Page, Route
from pytest_django.live_server_helper import LiveServer

from annotations import selectors
from annotations.models import Response, Session, Trial
from annotations.services import sessions
from tests import factories as make
from tests import services
from tests.faults.conftest import Until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

MODULES = "/" + settings.STATIC_URL.lstrip("/") + "annotate/"
# Opens the outbox as the trial screen does, and notes its events.
OPEN = """async ([modules, address]) => {
  const { openOutbox } = await import(modules + "outbox.js");
  window.outbox = await openOutbox(address);
  window.news = [];
  for (const type of ["stored", "refused", "elsewhere", "over"]) {
    outbox.addEventListener(type, ({ detail }) => news.push({ type, ...detail }));
  }
}"""
ACCEPT = "([trial, said]) => outbox.accept(trial, said)"
STATES = "async () => Object.fromEntries((await outbox.records()).map(({ trial, state }) => [trial, state]))"
NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })"
NO_STORAGE = """Object.defineProperty(window, "indexedDB", {
  value: { open() { throw new DOMException("No.", "SecurityError"); } },
})"""

DEAF_STORAGE = """Object.defineProperty(window, "indexedDB", { value: { open: () => ({}) } })"""


@pytest.fixture
def session() -> Session:
    shape: dict[str, Any] = {"images_per_session": 5, "repeats_per_session": 0}
    return make.begin(make.make_session(make.make_study(dataset=make.make_dataset(5), **shape)))


def visit(page: Page, live_server: LiveServer, session: Session) -> Page:
    """A page of the site that is none of the session's, with the session's outbox open in it."""
    page.goto(f"{live_server.url}/")
    address = {
        "session": str(session.pk),
        "api": "/api/trials/{trial}/responses/{response}",
        "skipApi": "/api/trials/{trial}/skip",
        "authorization": f"Session {session.token}",
    }
    page.evaluate(OPEN, [MODULES, address])
    return page


def answer(percentage: int = 80, revises: uuid.UUID | None = None) -> tuple[uuid.UUID, dict[str, Any]]:
    response = uuid.uuid4()
    body = {
        "named": [{"category": 3, "percentage": percentage}],
        "impossible": [],
        "duration_ms": 1000,
        "hidden_ms": 0,
        "revises": str(revises) if revises else None,
    }
    return response, {"response": str(response), "body": body}


def accept(page: Page, trial: Trial, said: dict[str, Any]) -> str:
    return str(page.evaluate(ACCEPT, [str(trial.pk), said]))


def states(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.evaluate(STATES)
    return found


def cut(route: Route) -> None:
    route.abort()


def stored() -> list[uuid.UUID]:
    return list(Response.objects.filter(current=True).values_list("pk", flat=True))


def trials_of(session: Session) -> list[Trial]:
    return list(selectors.open_trials(session))


def test_answers_accepted_without_a_network_are_sent_by_any_later_page(
    context: BrowserContext, live_server: LiveServer, session: Session, until: Until
) -> None:
    context.route("**/api/**", cut)
    page = visit(context.new_page(), live_server, session)
    sent = []
    for trial in trials_of(session)[:3]:
        response, said = answer()
        assert accept(page, trial, said) == "accepted"
        sent.append(response)
    assert set(states(page).values()) == {"waiting"}
    page.close()
    context.unroute("**/api/**")
    assert stored() == []
    # Another session's page will do: whoever opens the browser again sends what it holds.
    other = make.make_session(session.study, seed=1)
    context.new_page().goto(f"{live_server.url}/session/{other.token}/")
    until(lambda: len(stored()) == 3, within=20)
    assert set(stored()) == set(sent)
    order = Response.objects.order_by("received_at").values_list("pk", flat=True)
    assert list(order) == sent


@pytest.mark.parametrize("spoil", [None, NO_LOCKS], ids=["with locks", "without locks"])
def test_two_tabs_accept_a_trial_once_and_one_of_them_sends(
    context: BrowserContext, live_server: LiveServer, session: Session, until: Until, spoil: str | None
) -> None:
    if spoil:
        context.add_init_script(spoil)
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url) if "/api/" in request.url else None)
    tabs = [visit(context.new_page(), live_server, session) for _ in range(2)]
    accepted = []
    for trial in trials_of(session):
        got = {}
        for tab in tabs:
            response, said = answer()
            script = "([trial, said]) => { window.last = outbox.accept(trial, said); }"
            tab.evaluate(script, [str(trial.pk), said])
            got[tab] = response
        words = {tab: tab.evaluate("window.last") for tab in tabs}
        assert sorted(words.values()) == ["accepted", "elsewhere"]
        accepted += [got[tab] for tab in tabs if words[tab] == "accepted"]
    for tab in tabs:
        tab.evaluate("outbox.idle()")
    assert sorted(stored()) == sorted(accepted)
    assert len(requests) == len(accepted)
    heard = "news.filter(({ type }) => type === 'stored').length"
    until(lambda: [tab.evaluate(heard) for tab in tabs] == [len(accepted)] * 2)


def test_an_answer_outlives_a_browser_that_is_killed(
    browser_type: BrowserType,
    browser_type_launch_args: dict[str, Any],
    live_server: LiveServer,
    session: Session,
    tmp_path: Path,
    until: Until,
) -> None:
    def processes() -> list[int]:
        mark = f"--user-data-dir={tmp_path}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    doomed = browser_type.launch_persistent_context(tmp_path, **browser_type_launch_args)
    doomed.route("**/api/**", cut)
    page = visit(doomed.new_page(), live_server, session)
    response, said = answer()
    assert accept(page, trials_of(session)[0], said) == "accepted"
    killed = processes()
    assert killed
    for process in killed:
        os.kill(process, signal.SIGKILL)
    until(lambda: not processes(), within=20)
    for lock in tmp_path.glob("Singleton*"):
        lock.unlink(missing_ok=True)
    again = browser_type.launch_persistent_context(tmp_path, **browser_type_launch_args)
    page = visit(again.new_page(), live_server, session)
    page.evaluate("outbox.idle()")
    again.close()
    assert stored() == [response]


def test_the_answer_of_another_device_stays_and_this_one_is_told(
    page: Page, live_server: LiveServer, session: Session
) -> None:
    trial, other, *_ = trials_of(session)
    theirs = make.respond(trial).response.pk
    visit(page, live_server, session)
    _, late = answer()
    mine, said = answer()
    assert [accept(page, trial, late), accept(page, other, said)] == ["accepted", "accepted"]
    page.evaluate("outbox.idle()")
    assert states(page) == {str(trial.pk): "elsewhere", str(other.pk): "stored"}
    news = page.evaluate("news")
    assert news[0] == {"type": "elsewhere", "trial": str(trial.pk), "by": "server"}
    assert sorted(stored()) == sorted([theirs, mine])


def test_a_correction_made_without_a_network_arrives_after_what_it_corrects(
    context: BrowserContext, live_server: LiveServer, session: Session
) -> None:
    context.route("**/api/**", cut)
    page = visit(context.new_page(), live_server, session)
    trial = trials_of(session)[0]
    first, said = answer(80)
    second, corrected = answer(60, revises=first)
    assert accept(page, trial, said) == "accepted"
    assert accept(page, trial, corrected) == "accepted"
    context.unroute("**/api/**")
    page.evaluate("outbox.tryNow(), outbox.idle()")
    assert list(Response.objects.order_by("revision").values_list("pk", "current")) == [(first, False), (second, True)]


@pytest.mark.parametrize("spoil", [NO_STORAGE, DEAF_STORAGE], ids=["refused", "never opened"])
def test_without_storage_an_answer_is_accepted_only_when_the_server_has_it(
    context: BrowserContext, live_server: LiveServer, session: Session, spoil: str
) -> None:
    context.add_init_script(spoil)
    lost: list[str] = []

    def lose_the_first(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.request.url)
            route.abort()

    context.route("**/api/**", lose_the_first)
    page = visit(context.new_page(), live_server, session)
    response, said = answer()
    assert accept(page, trials_of(session)[0], said) == "accepted"
    assert len(lost) == 1
    assert stored() == [response]


def test_what_the_server_refuses_stays_with_its_words(page: Page, live_server: LiveServer, session: Session) -> None:
    visit(page, live_server, session)
    trial = trials_of(session)[0]
    _, said = answer(percentage=101)
    accept(page, trial, said)
    page.evaluate("outbox.idle()")
    [record] = page.evaluate("outbox.records()")
    assert (record["state"], stored()) == ("refused", [])
    assert record["error"]["message"]
    response, said = answer()
    assert accept(page, trial, said) == "accepted"
    page.evaluate("outbox.idle()")
    assert stored() == [response]


def test_the_last_page_forgets_the_session_once_all_is_sent(
    page: Page, live_server: LiveServer, session: Session, until: Until
) -> None:
    visit(page, live_server, session)
    for trial in trials_of(session):
        accept(page, trial, answer()[1])
    page.evaluate("outbox.idle()")
    assert len(states(page)) == 5
    sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=timezone.now())
    page.goto(f"{live_server.url}/session/{session.token}/")
    count = """() => new Promise((resolve) => {
      const request = indexedDB.open("elicit");
      request.onsuccess = () => {
        const count = request.result.transaction("records").objectStore("records").count();
        count.onsuccess = () => { request.result.close(); resolve(count.result); };
      };
    })"""
    until(lambda: page.evaluate(count) == 0, within=10)


@pytest.mark.slow
@pytest.mark.worker
def test_whatever_fails_every_answer_that_the_screen_accepted_is_stored_once() -> None:
    servers = {"ELICIT_TEST_DATABASE_URL": os.environ["ELICIT_DATABASE_URL"]}
    if broker := os.environ.get("ELICIT_BROKER_URL"):
        servers["ELICIT_TEST_REDIS_URL"] = broker
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--sessions", "12", "--seed", "12", "--json"],
        cwd=services.ROOT,
        env={**os.environ, **servers},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    reports = json.loads(done.stdout)
    assert sum(report["sessions"] for report in reports) == 12
    assert len(reports) == 10
    for report in reports:
        assert report["accepted"] == report["stored"] == 4 * report["sessions"], report
        assert not any(report[bad] for bad in ("lost", "twice", "other", "again", "unfinished")), report
    assert done.returncode == 0
