"""A curator's way through the console in a real browser, with a real worker behind it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.core.management import call_command
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import ConsistencyCheck, Study
from elicit.labels import read_release
from tests import factories as make
from tests import services

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.xdist_group("browser"),
    pytest.mark.worker,
]

A_WHILE = 60_000


def test_a_curator_goes_from_images_to_a_downloaded_release_in_the_console(
    no_console_errors: Page, live_server: LiveServer, server_environment: dict[str, str], tmp_path: Path
) -> None:
    page = no_console_errors
    page.set_default_timeout(20_000)
    make.make_curator()
    with services.worker(server_environment):
        sign_in(page, live_server)
        import_the_sample(page)
        make_and_launch(page)
        call_command("simulate_annotators", study="birds", count=2, url=live_server.url, verbosity=0)
        see_the_sessions(page)
        archive = release(page, tmp_path)
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
    assert read_release(archive).counts.tolist() == [2] * 20


def sign_in(page: Page, live_server: LiveServer) -> None:
    page.goto(f"{live_server.url}/admin/")
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("No study yet")).to_be_visible()


def import_the_sample(page: Page) -> None:
    page.get_by_role("link", name="Import a dataset").click()
    page.get_by_label("Name").fill("Twenty pictures")
    page.get_by_label("Source").select_option("sample")
    page.get_by_role("button", name="Import").click()
    # The page looks again by itself while the worker is busy.
    expect(page.get_by_text("ready", exact=True)).to_be_visible(timeout=A_WHILE)
    expect(page.get_by_role("img", name="image 19")).to_be_visible()


def make_and_launch(page: Page) -> None:
    page.goto(page.url.split("/admin/")[0] + "/admin/")
    page.get_by_role("link", name="New study").click()
    page.get_by_label("Name").fill("Birds")
    page.get_by_label("Dataset").select_option("Twenty pictures")
    page.get_by_role("button", name="Make the study").click()
    page.get_by_label("Instructions").fill("")
    page.get_by_label("Labels per image").fill("2")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("The instructions are empty.")).to_be_visible()
    expect(page.get_by_role("button", name="Launch")).to_be_disabled()
    page.get_by_label("Instructions").fill("Look, and say what it may be.")
    page.get_by_role("button", name="Save and continue editing").click()
    page.get_by_role("button", name="Launch").click()
    expect(page.get_by_text("The study is live now.")).to_be_visible()
    expect(page.locator("a[href$='/study/birds/']")).to_be_visible()
    assert Study.objects.get().labels_per_image == 2


def see_the_sessions(page: Page) -> None:
    page.reload()
    expect(page.get_by_text("40 of 40 labels (100 %)")).to_be_visible()
    for _ in range(120):
        if ConsistencyCheck.objects.count() == 2:
            break
        page.wait_for_timeout(500)
    page.reload()
    # Which images repeat is drawn, and careful people may have changed their mind on both.
    verdicts = list(ConsistencyCheck.objects.values_list("verdict", flat=True))
    assert len(verdicts) == 2
    for verdict in set(verdicts):
        expect(page.get_by_role("cell", name=verdict, exact=True)).to_have_count(verdicts.count(verdict))
    link = page.locator(".console table a[href*='/session/']").first
    check = ConsistencyCheck.objects.get(session=UUID((link.get_attribute("href") or "").split("/")[-3]))
    link.click()
    expect(page.get_by_text(f"{check.verdict} ({check.same_top} of 2 repeats alike)")).to_be_visible()
    page.go_back()


def release(page: Page, folder: Path) -> Path:
    page.get_by_role("link", name="Request a release").click()
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(page.url.split("/admin/")[0] + "/releases/")
    page.get_by_role("link", name="Birds v1").click()
    button = page.get_by_role("link", name="Download everything")
    expect(button).to_be_visible(timeout=A_WHILE)
    with page.expect_download() as download:
        button.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_researchers_pages_are_free_of_accessibility_faults(
    browser: Browser, live_server: LiveServer, scheme: Literal["light", "dark"]
) -> None:
    make.make_curator()
    study = make.make_study(dataset=make.make_dataset(images=4))
    make.complete_session(study)
    release = make.make_release(study)
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()

    def look() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

    page.goto(f"{live_server.url}/releases/")
    look()
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Releases")).to_be_visible()
    look()
    page.get_by_role("link", name=str(release)).click()
    expect(page.get_by_role("link", name="Download everything")).to_be_visible()
    look()
    page.get_by_role("link", name="Releases").click()
    page.get_by_role("button", name="Make an API token").click()
    expect(page.locator("#token")).to_be_visible()
    look()
    context.close()
