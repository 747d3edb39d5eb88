"""The dashboard in a real browser: it looks again by itself and disturbs nobody, and can be read by anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations import selectors
from annotations.models import Study, StudySummary
from annotations.services import sessions
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Six images that can be looked at; two of three people are done."""
    study = make.make_study(
        dataset=make.import_pictures(tmp_path, 6), images_per_session=6, repeats_per_session=2, labels_per_image=3
    )
    for seed in range(2):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        for trial in selectors.open_trials(session):
            make.respond(trial, ((trial.image.index, 60.0), ((trial.image.index + 1 + seed) % 10, 10.0)))
        sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=make.NOON)
    make.run_jobs()
    return study


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, live_server: LiveServer) -> Iterator[Opened]:
    """Opens a browser of the given kind, with the curator signed in; all are closed at the end."""
    client = Client()
    client.force_login(make.make_curator())
    cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}
    contexts: list[BrowserContext] = []

    def open_one(**device: Any) -> Page:
        contexts.append(browser.new_context(**device))
        contexts[-1].add_cookies([cookie])  # type: ignore[list-item]
        return contexts[-1].new_page()

    yield open_one
    for context in contexts:
        context.close()


def address(live_server: LiveServer, study: Study, name: str = "dashboard", *more: object) -> str:
    return live_server.url + reverse(f"admin:annotations_study_{name}", args=[study.pk, *more])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_it_is_free_of_accessibility_faults_and_fits_the_screen(
    opened: Opened, live_server: LiveServer, study: Study, scheme: Literal["light", "dark"], width: int
) -> None:
    page = opened(viewport={"width": width, "height": 740}, color_scheme=scheme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    for summed_up in (False, True):
        if summed_up:
            page.goto(address(live_server, study))
            make.run_jobs()
        places = [address(live_server, study), f"{live_server.url}/admin/"]
        for place in [*places, address(live_server, study, "image", 3)]:
            page.goto(place)
            page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
            found = Axe().run(page)
            assert found.violations_count == 0, place + found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place
    assert StudySummary.objects.exists()
    assert faults == []


def test_it_looks_again_and_leaves_open_tables_focus_and_scroll_alone(
    opened: Opened, live_server: LiveServer, study: Study
) -> None:
    page = opened(viewport={"width": 1366, "height": 740})
    page.goto(address(live_server, study))
    make.run_jobs()
    page.goto(address(live_server, study))
    labels = page.locator("[data-part='tile-labels']")
    expect(labels).to_contain_text("12")
    numbers = page.locator("[data-part='figure-coverage'] summary")
    numbers.click()
    before = numbers.bounding_box()
    page.evaluate("document.querySelector('[data-part=head]').dataset.every = '0.2'")

    session = make.begin(make.make_session(study, seed=9), seed=9)
    make.respond(selectors.open_trials(session)[0])
    page.get_by_role("button", name="Stop updating").dispatch_event("click")
    page.get_by_role("button", name="Stop updating").dispatch_event("click")
    expect(labels).to_contain_text("13", timeout=15_000)
    expect(page.locator("[data-part='figure-coverage'] table")).to_be_visible()
    expect(numbers).to_be_focused()
    # What lies above may have grown: whoever reads here sees nothing move.
    after = numbers.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 2
    expect(page.get_by_role("status").first).to_contain_text("13 of 18 labels")


def test_it_stops_when_it_is_told_to(opened: Opened, live_server: LiveServer, study: Study) -> None:
    page = opened()
    page.goto(address(live_server, study))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "part=1" in request.url else None)
    button = page.get_by_role("button", name="Stop updating")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.evaluate("document.querySelector('[data-part=head]').dataset.every = '0.1'")
    page.wait_for_timeout(500)
    assert asked == []
    button.click()
    page.wait_for_timeout(1500)
    assert asked != []


def test_without_script_it_is_the_same_page(opened: Opened, live_server: LiveServer, study: Study) -> None:
    page = opened(java_script_enabled=False)
    page.goto(address(live_server, study))
    expect(page.get_by_role("button", name="Stop updating")).to_be_hidden()
    page.get_by_role("link", name="the whole study").click()
    page.get_by_role("link", name="Look again").click()
    page.get_by_role("button", name="Sum up now").click()
    expect(page.get_by_text("A worker sums the study up anew")).to_be_visible()
