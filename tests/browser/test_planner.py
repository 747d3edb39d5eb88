"""A curator plans a study in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer
from pytest_playwright.pytest_playwright import CreateContextCallback

from annotations.models import Study
from annotations.services import studies
from tests import factories as make
from tests.browser.test_builder import opened, sign_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]


@pytest.fixture
def study() -> Study:
    dataset = make.make_dataset(1000)
    study = make.make_study(dataset=dataset, launch=False, name="Ambiguous pictures")
    first = make.make_study(dataset=dataset, launch=False, name="Pilot", images_per_session=5, repeats_per_session=0)
    studies.choose_images(first, range(5), make.rng())
    first = studies.launch(first.pk, make.rng())
    for person in range(4):
        make.complete_session(first, ((3, 90 - 12 * person), (5, 10 + 12 * person)), platform_id=f"p{person}")
    return study


def test_the_answer_follows_the_fields_and_k_becomes_the_drafts(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page = no_console_errors
    sign_in(page, live_server)
    opened(page, live_server, study, "plan")
    expect(page.get_by_role("status")).to_contain_text("K = 6: about £")
    expect(page.get_by_label("Seconds per answer, typed")).to_be_hidden()
    page.get_by_label("Labels per image (K)").fill("9")
    expect(page.get_by_role("status")).to_contain_text("K = 9: about £")
    page.get_by_label("Seconds per answer, from").select_option("typed")
    expect(page.get_by_role("alert")).to_contain_text("Type how long an answer takes.")
    page.get_by_label("Seconds per answer, typed").fill("7")
    page.get_by_label("How labels err, from").select_option("own answers: Pilot")
    page.get_by_label("K for a budget of").fill("500")
    expect(page.get_by_text("£500: K = ")).to_be_visible()
    page.get_by_text("As a table").click()
    page.get_by_label("Labels per image (K)").fill("4")
    expect(page.get_by_role("row", name="4 160")).to_be_visible()
    page.get_by_role("button", name="Use K = 4").click()
    expect(page.get_by_text("The study asks for 4 labels per image now.")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("K = 4: about £")
    study.refresh_from_db()
    assert study.labels_per_image == 4
    assert study.plan.seconds_per_response == 7


def test_it_works_without_script(new_context: CreateContextCallback, live_server: LiveServer, study: Study) -> None:
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page, live_server)
    opened(page, live_server, study, "plan")
    page.get_by_label("Labels per image (K)").fill("9")
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_role("status")).to_contain_text("K = 9: about £")
    page.get_by_role("button", name="Save this plan").click()
    expect(page.get_by_text("The plan is saved")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1366])
def test_the_page_is_free_of_accessibility_faults_and_fits_the_screen(
    new_context: CreateContextCallback,
    live_server: LiveServer,
    study: Study,
    scheme: Literal["light", "dark"],
    width: int,
    tmp_path: Path,
) -> None:
    page = new_context(viewport={"width": width, "height": 740}, color_scheme=scheme).new_page()
    sign_in(page, live_server)
    opened(page, live_server, study, "plan")
    expect(page.get_by_role("img", name="What labels buy")).to_be_visible()
    assert page.get_by_role("img", name="What labels buy").evaluate("image => image.decode().then(() => true)")
    page.get_by_text("As a table").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
