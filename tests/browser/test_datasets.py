"""A curator fills datasets in a real browser: a folder in many requests, a zip with problems, the pages around them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Dataset, ImageImport
from annotations.services import images
from elicit import folders
from tests import factories as make
from tests import services
from tests.pictures import png, unpacked, zipped

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

A_WHILE = 60_000
GOOD = {f"{category}/{n}.png": png(n + 100 * (category == "dog")) for n in range(60) for category in ("cat", "dog")}
BAD = {"dog/cut.png": png(1)[:90], "dog/photo.tiff": b"II*\0"}

# In the page itself: requests that carry files are not always handed to Playwright's routes.
REFUSE_PART_1 = """
window.refusing = true;
const real = window.fetch;
window.fetch = (address, options) =>
  window.refusing && String(address).endsWith("/part/1/")
    ? Promise.resolve(new Response("", { status: 403 }))
    : real(address, options);
"""

FAIL_NOW_AND_THEN = """
const really = window.fetch;
window.fetch = (address, options) => {
  if (!String(address).includes("/part/")) return really(address, options);
  sessionStorage.sent = Number(sessionStorage.sent ?? 0) + 1;
  if (sessionStorage.sent === "1") return Promise.reject(new TypeError("no network"));
  if (sessionStorage.sent === "3") return Promise.resolve(new Response("", { status: 503 }));
  return really(address, options);
};
"""


def sign_in(page: Page, site: LiveServer) -> None:
    make.make_curator()
    page.goto(f"{site.url}/admin/annotations/dataset/add/")
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="How images may lie")).to_be_visible()


def ask(page: Page, name: str, source: str) -> None:
    page.get_by_label("Name", exact=False).first.fill(name)
    page.get_by_label("Source").select_option(source)


@pytest.mark.worker
def test_a_folder_goes_up_in_many_requests_survives_failing_ones_and_becomes_a_dataset(
    page: Page, live_server: LiveServer, server_environment: dict[str, str], tmp_path: Path
) -> None:
    page.set_default_timeout(20_000)
    sign_in(page, live_server)
    ask(page, "Pets", "folder")
    expect(page.get_by_label("Archive")).to_be_hidden()
    page.add_init_script(FAIL_NOW_AND_THEN)
    page.get_by_role("button", name="Import").click()
    folder = unpacked(tmp_path / "my pets", GOOD | {".hidden": b"x", "README.md": b"words"})
    with services.worker(server_environment):
        page.get_by_label("Choose the folder of images").set_input_files(folder)
        expect(page.get_by_text("ready", exact=True)).to_be_visible(timeout=A_WHILE)
    # 121 files, 50 a request, and two requests once more.
    assert page.evaluate("sessionStorage.sent") == "5"
    expect(page.get_by_role("img", name="image 59")).to_be_visible()
    dataset = Dataset.objects.get()
    assert dataset.images.count() == len(GOOD)
    page.get_by_label("Category").select_option(label="dog (60)")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("img", name="image 119")).to_be_visible()
    page.get_by_role("link", name="New study on this dataset").click()
    expect(page.get_by_label("Dataset", exact=False).first).to_have_value(str(dataset.pk))


def test_a_folder_that_can_not_be_sent_says_so_and_goes_on_where_it_stopped(
    page: Page, live_server: LiveServer, tmp_path: Path
) -> None:
    page.set_default_timeout(20_000)
    sign_in(page, live_server)
    ask(page, "Pets", "folder")
    page.add_init_script(REFUSE_PART_1)
    page.get_by_role("button", name="Import").click()
    page.get_by_label("Choose the folder of images").set_input_files(unpacked(tmp_path / "pets", GOOD))
    expect(page.get_by_text("The site answered 403.")).to_be_visible()
    page.evaluate("window.refusing = false")
    again: list[str] = []
    page.on("request", lambda request: again.append(request.url) if "/part/" in request.url else None)
    page.get_by_role("button", name="Send the rest again").click()
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    assert 1 <= len(again) < 3
    make.run_jobs()
    assert Dataset.objects.get().images.count() == len(GOOD)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_of_five_thousand_files_arrives_whole(page: Page, live_server: LiveServer, tmp_path: Path) -> None:
    page.set_default_timeout(A_WHILE)
    sign_in(page, live_server)
    ask(page, "Many", "folder")
    page.get_by_role("button", name="Import").click()
    files = {f"{('cat', 'dog')[n % 2]}/{n}.png": png(n) for n in range(5000)}
    page.get_by_label("Choose the folder of images").set_input_files(
        unpacked(tmp_path / "many", files), timeout=300_000
    )
    expect(page.get_by_text("waiting for a worker")).to_be_visible(timeout=300_000)
    [job] = make.run_jobs()
    assert job.status == "done", job.error
    assert Dataset.objects.get().images.count() == 5000
    assert not (Path(settings.MEDIA_ROOT) / "incoming" / str(ImageImport.objects.get().pk)).exists()


def test_problems_are_told_and_the_good_images_imported_without_them(
    no_console_errors: Page, live_server: LiveServer, tmp_path: Path
) -> None:
    page = no_console_errors
    page.set_default_timeout(20_000)
    sign_in(page, live_server)
    ask(page, "Pets", "archive")
    page.get_by_label("Archive").set_input_files(zipped(tmp_path / "pets.zip", GOOD | BAD))
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    make.run_jobs()
    # The page looks again by itself.
    expect(page.get_by_role("alert")).to_contain_text("2 files have problems, 120 images are good")
    expect(page.get_by_role("rowheader", name="dog/photo.tiff")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all 2 as CSV").click()
    assert download.value.suggested_filename == "pets-problems.csv"
    page.get_by_role("button", name="Import the 120 good ones without these").click()
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    make.run_jobs()
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    expect(page.get_by_text("2 problems: left out")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1366])
def test_the_pages_of_datasets_are_free_of_accessibility_faults(
    browser: Browser, live_server: LiveServer, scheme: Literal["light", "dark"], width: int, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(20_000)

    def look() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    sign_in(page, live_server)
    look()
    page.get_by_label("Source").select_option("archive")
    look()
    site = f"{live_server.url}/admin/annotations/dataset"
    ready, waiting, failed = (Dataset.objects.create(slug=slug, name=slug) for slug in ("ready", "waiting", "failed"))
    images.fill_from_files(ready, folders.open_source(zipped(tmp_path / "x.zip", GOOD)))
    images.request_import(dataset=waiting, source="folder", split="all")
    wanted = images.request_import(dataset=failed, source="archive", split="all")
    with zipped(tmp_path / "y.zip", GOOD | BAD).open("rb") as file:
        wanted.file.save("x.zip", file)
    make.run_jobs()
    for address in (f"{ready.pk}/change/", f"{waiting.pk}/change/", f"{failed.pk}/change/", f"{failed.pk}/import/"):
        page.goto(f"{site}/{address}")
        look()
    context.close()
