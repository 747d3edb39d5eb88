"""Setting up two-factor login and signing in with it, in a real browser, with the keyboard alone."""

from __future__ import annotations

import base64
import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.core.cache import cache
from django_otp.oath import TOTP
from playwright.sync_api import Page, expect
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from elicit.models import Authenticator
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

SIZES = [(1366, 768), (360, 740)]


def code(key: bytes, steps: int = 0) -> str:
    totp = TOTP(key)
    totp.time = time.time() + 30 * steps
    return f"{totp.token():06d}"


def give_password(page: Page) -> None:
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.keyboard.press("Enter")


def assert_accessible(page: Page) -> None:
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_curator_sets_it_up_and_signs_in_with_it(
    page: Page, console_errors: list[str], live_server: LiveServer, settings: Settings, scheme: str
) -> None:
    settings.REQUIRE_TWO_FACTOR = True
    cache.clear()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    make.make_curator()
    page.goto(f"{live_server.url}/admin/")
    give_password(page)

    expect(page.get_by_role("heading", name="Two-factor login")).to_be_visible()
    picture = page.get_by_role("img", name="The key as a QR code")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    assert_accessible(page)
    words = page.locator(".qr code").inner_text().replace(" ", "")
    shown = bytes_of(words)
    page.get_by_label("Code").fill(code(shown))
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    assert_accessible(page)
    recovery = page.locator(".codes code").all_inner_texts()
    assert len(recovery) == 8
    page.get_by_role("link", name="I have them, go on").click()
    page.wait_for_url(re.compile("/admin/$"))
    page.get_by_role("button", name=re.compile("log out", re.IGNORECASE)).click()

    page.goto(f"{live_server.url}/admin/")
    give_password(page)
    expect(page.get_by_role("heading", name="Your code")).to_be_visible()
    assert_accessible(page)
    page.get_by_label("Code").fill("000000")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This code is not right.")).to_be_visible()
    # Chromium's own note of the refused code.
    assert [error for error in console_errors if "422" not in error] == []
    page.get_by_label("Code").fill(recovery[0])
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/admin/$"))
    assert Authenticator.objects.count() == 1


def bytes_of(words: str) -> bytes:
    return base64.b32decode(words)


@pytest.mark.parametrize("address", ["/admin/access/", "/admin/auditlog/logentry/", "/admin/annotations/participant/"])
def test_the_pages_about_people_are_accessible(no_console_errors: Page, live_server: LiveServer, address: str) -> None:
    make.make_session(make.make_study(), platform_id="PLATFORM-1")
    make.make_curator()
    page = no_console_errors
    page.goto(f"{live_server.url}{address}")
    give_password(page)
    expect(page.get_by_role("button", name=re.compile("log out", re.IGNORECASE))).to_be_visible()
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
