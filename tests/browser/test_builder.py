"""A curator builds practice, comprehension check and questionnaire in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer
from pytest_playwright.pytest_playwright import CreateContextCallback

from annotations.models import Study
from annotations.services import studies
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = make.make_study(dataset=make.import_pictures(tmp_path, 6), launch=False, images_per_session=4)
    studies.choose_images(study, range(4), make.rng())
    return study


def sign_in(page: Page, live_server: LiveServer) -> None:
    client = Client()
    client.force_login(make.make_curator())
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    host = urlsplit(live_server.url).hostname
    page.context.add_cookies([{"name": cookie.key, "value": cookie.value, "domain": str(host), "path": "/"}])


def opened(page: Page, live_server: LiveServer, study: Study, part: str) -> None:
    page.goto(f"{live_server.url}/admin/annotations/study/{study.pk}/{part}/")


def test_questions_are_added_moved_and_removed_by_keyboard(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page, press = no_console_errors, no_console_errors.keyboard.press
    sign_in(page, live_server)
    opened(page, live_server, study, "questionnaire")
    page.get_by_role("button", name="Add another question").focus()
    press("Enter")
    page.keyboard.type("Which device?")
    press("Tab")
    page.keyboard.type("choice")
    row = page.get_by_role("group", name="Question 4")
    row.get_by_label("Choices").fill("phone\nlaptop")
    expect(row.get_by_label("From")).to_be_hidden()
    row.get_by_role("button", name="Up").focus()
    for _ in range(3):
        press("Enter")
    expect(page.locator("#said")).to_have_text("Question 1 of 4")
    # At the top there is no further up: the keyboard stays with the row.
    first = page.get_by_role("group", name="Question 1")
    expect(first.get_by_role("button", name="Down")).to_be_focused()
    expect(first.get_by_label("Question", exact=True)).to_have_value("Which device?")
    page.get_by_label("Remove question 2").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Questionnaire: saved.")).to_be_visible()
    study.refresh_from_db()
    assert [each["name"] for each in study.questionnaire] == ["which_device", "difficulty", "remarks"]
    assert study.questionnaire[0]["choices"] == ["phone", "laptop"]


def test_a_practice_image_is_seen_before_it_is_saved(page: Page, live_server: LiveServer, study: Study) -> None:
    sign_in(page, live_server)
    opened(page, live_server, study, "practice")
    row = page.get_by_role("group", name="Image 1")
    number = row.get_by_role("spinbutton")
    number.fill("99")
    number.blur()
    expect(row.get_by_text("no such image")).to_be_visible()
    number.fill("1")
    number.blur()
    expect(row.get_by_role("img", name="image 1")).to_be_visible()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(row.get_by_text("one of the study's own")).to_be_visible()
    page.get_by_label("Take these images out").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Practice: saved.")).to_be_visible()
    assert study.study_images.count() == 3


def test_a_row_that_was_added_by_mistake_is_no_question(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page = no_console_errors
    sign_in(page, live_server)
    opened(page, live_server, study, "comprehension")
    page.get_by_role("button", name="Add another question").click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Comprehension check: saved.")).to_be_visible()
    study.refresh_from_db()
    assert study.comprehension == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_the_forms_are_free_of_accessibility_faults_and_fit_the_screen(
    new_context: CreateContextCallback,
    live_server: LiveServer,
    study: Study,
    scheme: Literal["light", "dark"],
    width: int,
) -> None:
    page = new_context(viewport={"width": width, "height": 740}, color_scheme=scheme).new_page()
    sign_in(page, live_server)
    for part in ("change", "questionnaire", "comprehension", "practice", "pictures", "preview/instructions"):
        opened(page, live_server, study, part)
        if part == "practice":
            page.get_by_role("spinbutton").fill("99")
            page.get_by_role("button", name="Save", exact=True).click()
            expect(page.get_by_text("The dataset has no image 99")).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, f"{part}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, part
