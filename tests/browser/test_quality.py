"""The tab "Quality" and an attention check in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Study, Trial, TrialKind
from annotations.services import quality
from elicit.labels.quality import RECOMMENDED
from tests import crowds
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = crowds.crowded_study(make.import_pictures(tmp_path, 20))
    quality.write_rules(study.pk, RECOMMENDED)
    session = study.sessions.order_by("consented_at", "pk")[0]
    quality.write_appeal(session_id=session.pk, text="I did read the notes.", by=None, now=make.NOON)
    make.make_curator()
    return study


def sign_in(page: Page, live_server: LiveServer) -> None:
    page.goto(f"{live_server.url}/admin/login/")
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def addresses(study: Study) -> list[str]:
    here = f"/admin/annotations/study/{study.pk}/quality/"
    session = study.sessions.order_by("consented_at", "pk")[0]
    draft = crowds.checked_study(study.dataset, launch=False, name="Draft")
    checks = f"/admin/annotations/study/{draft.pk}/quality/checks/"
    return [
        here,
        f"{here}?columns=all&show=flagged&sort=-score",
        f"{here}rules/",
        f"{here}apply/",
        f"{here}sessions/{session.pk}/",
        checks,
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_every_page_is_free_of_accessibility_faults_and_fits_the_screen(
    browser: Browser, live_server: LiveServer, study: Study, scheme: Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    sign_in(page, live_server)
    for address in addresses(study):
        page.goto(live_server.url + address)
        page.evaluate("document.querySelectorAll('#content details').forEach(each => { each.open = true; })")
        found = Axe().run(page, context="#content")
        assert found.violations_count == 0, address + found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        page.wait_for_load_state("networkidle")
    context.close()


def test_a_curator_sets_rules_excludes_and_takes_back_by_keyboard(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page = no_console_errors
    study.quality_rules.all().delete()
    sign_in(page, live_server)
    page.goto(f"{live_server.url}/admin/annotations/study/{study.pk}/quality/")
    page.get_by_role("link", name="Set rules").press("Enter")
    page.get_by_role("button", name="Use these rules").press("Enter")
    expect(page.get_by_role("heading", name="What the saved rules would do")).to_be_visible()
    drawing = page.get_by_role("img", name="Median time.")
    assert drawing.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.get_by_role("link", name="Back to the sessions").press("Enter")
    page.get_by_role("link", name="See who, and exclude…").press("Enter")
    page.get_by_role("checkbox").first.press("Space")
    page.get_by_role("button", name="Exclude those ticked").press("Enter")
    expect(page.get_by_text("2 sessions excluded. Their places are open again.")).to_be_visible()
    page.locator("table.sessions tbody th a").first.press("Enter")
    page.get_by_role("button", name="Take back in").press("Enter")
    expect(page.get_by_text("Taken back in: ask for a new release")).to_be_visible()
    # Its drawings read the database: they have to be done before it goes.
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("width", [1366, 360])
def test_an_attention_check_says_what_to_answer_above_the_question(
    browser: Browser, live_server: LiveServer, tmp_path: Path, width: int
) -> None:
    study = crowds.checked_study(make.import_pictures(tmp_path, 20))
    session = make.begin(make.make_session(study))
    checks = list(session.trials.filter(kind=TrialKind.ATTENTION).order_by("position"))
    for trial in session.trials.filter(position__lt=checks[0].position).order_by("position"):
        make.respond(trial)
    context = browser.new_context(viewport={"width": width, "height": 740})
    page = context.new_page()
    page.goto(f"{live_server.url}/session/{session.token}/")
    page.locator("#categories:not([disabled])").wait_for()

    note = page.get_by_text("To show that you read this")
    item = checks[0].check_item
    assert item is not None
    expect(note.first).to_have_text(item.note)
    question = page.get_by_role("heading", level=1)
    expect(question).to_have_accessible_description(f"Please note: {item.note}")
    box, below = note.first.bounding_box(), question.bounding_box()
    assert box is not None
    assert below is not None
    assert box["y"] < below["y"]
    assert Axe().run(page).violations_count == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    # The next image has no note, whatever its kind.
    page.locator("#stimulus.painted").wait_for()
    page.wait_for_timeout(650)
    page.keyboard.type("18x")
    expect(page.locator("#submit")).to_have_attribute("aria-disabled", "false")
    with page.expect_response(lambda response: "/responses/" in response.url):
        page.keyboard.press("Enter")
    following = Trial.objects.get(session=session, position=checks[0].position + 1)
    assert following.kind != TrialKind.ATTENTION
    expect(page.locator("#note")).to_be_hidden()
    expect(question).to_have_accessible_description("")
    page.wait_for_load_state("networkidle")
    context.close()
