"""The researcher's pages in a real browser: they can be read by anybody, and their drawings follow the dark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from annotations import selectors
from annotations.services import sessions
from elicit import plots
from elicit.labels import LabelVariety
from elicit.labels.release_files import Recipe
from exports.models import Release
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

PAGES = (
    "/releases/",
    "/releases/birds/1/",
    "/releases/birds/1/images",
    "/releases/birds/1/images?top=9",
    "/releases/birds/1/images?page=7",
    "/releases/birds/1/images/3",
    "/releases/birds/1/images/77",
    "/releases/compare?from=birds/v1",
    "/releases/compare?from=birds/v1&to=birds/v2",
)


@pytest.fixture
def release(settings: Settings, tmp_path: Path) -> Release:
    """Thirty images that can be looked at, and two releases; the first is superseded."""
    settings.RELEASES_ROOT = tmp_path / "releases"
    study = make.make_study(
        dataset=make.import_pictures(tmp_path, 30), images_per_session=30, repeats_per_session=0, labels_per_image=2
    )
    for seed in range(2):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        for trial in selectors.open_trials(session):
            top = min(trial.image.index % 10, 8)
            make.respond(trial, ((top, 60.0 + trial.image.index), ((top + 1 + seed) % 10, 10.0)))
        session.refresh_from_db()
        sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=make.NOON)
    make.run_jobs()
    first, second = (make.make_release(study, Recipe(LabelVariety(gamma=gamma))) for gamma in (0.1, 0.2))
    Release.objects.filter(pk=first.pk).update(
        superseded_at=make.NOON, superseded_by=second, superseded_reason="A session was excluded: bot."
    )
    make.make_staff("researcher", "exports.view_release")
    return first


def sign_in(page: Page, live_server: LiveServer) -> None:
    page.goto(f"{live_server.url}/releases/")
    page.get_by_label("Username").fill("researcher")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Releases")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_every_page_is_free_of_accessibility_faults_and_fits_the_screen(
    browser: Browser, live_server: LiveServer, release: Release, scheme: Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    sign_in(page, live_server)
    for address in PAGES:
        page.goto(live_server.url + address)
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        found = Axe().run(page)
        assert found.violations_count == 0, address + found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
    context.close()


def test_a_researcher_looks_around_by_keyboard_alone(
    no_console_errors: Page, live_server: LiveServer, release: Release
) -> None:
    page = no_console_errors
    sign_in(page, live_server)
    follow(page, "Birds v1")
    expect(page.get_by_role("note")).to_contain_text("Superseded by v2: A session was excluded: bot.")
    drawing = page.get_by_role("img", name="Mean label by most likely class.")
    assert drawing.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    follow(page, "Look at the images")
    expect(page.get_by_role("status")).to_have_text("Images 1 to 24 of 30")
    assert page.locator("img.picture").first.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    # One key: letters of a name typed too slowly, on a busy machine, would be taken for several names.
    page.get_by_label("Order").press("End")
    expect(page.get_by_label("Order").locator("option:checked")).to_have_text("by number")
    page.get_by_role("button", name="Show").press("Enter")
    expect(page.locator(".cards a").first).to_have_accessible_name("Image 0")
    follow(page, "Next")
    expect(page.get_by_role("status")).to_have_text("Images 25 to 30 of 30")
    page.get_by_label("Image number").fill("12")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Image 12", exact=True)).to_be_visible()
    expect(page.locator(".answers > li")).to_have_count(2)
    follow(page, "Next: 13")
    expect(page.get_by_role("heading", name="Image 13", exact=True)).to_be_visible()
    follow(page, "Birds v1")
    page.get_by_role("button", name="Show the differences").press("Enter")
    expect(page.get_by_role("heading", name="From Birds v1 to Birds v2")).to_be_visible()
    expect(page.get_by_role("row", name="variety.gamma")).to_contain_text("0.2")
    follow(page, "The other way round")
    expect(page.get_by_role("heading", name="From Birds v2 to Birds v1")).to_be_visible()


def follow(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.press("Enter")


COUNT = """
async ([source, colour]) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const wanted = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
    let found = 0;
    for (let at = 0; at < data.length; at += 4)
        if (data[at + 3] === 255 && wanted.every((value, part) => Math.abs(data[at + part] - value) < 3)) found += 1;
    return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_drawing_follows_the_readers_setting_under_the_pages_policy(
    browser: Browser, live_server: LiveServer, release: Release, scheme: Literal["light", "dark"]
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    sign_in(page, live_server)
    page.goto(f"{live_server.url}/releases/birds/1/")
    mine, other = plots.COLOURS["bar"] if scheme == "light" else reversed(plots.COLOURS["bar"])
    source = "/releases/birds/1/figures/entropy.svg"
    # A thousand points of bars in this scheme's colour, and not one in the other's.
    assert page.evaluate(COUNT, [source, mine]) > 1000
    assert page.evaluate(COUNT, [source, other]) == 0
    # By itself it has its colours too.
    page.goto(live_server.url + source)
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bar')") == mine
    context.close()
