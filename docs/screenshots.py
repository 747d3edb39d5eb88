"""Take the pictures of these documents anew: `.venv/bin/python -m docs.screenshots STUDY_URL`, while the site runs.

The study should be one on the sample images; the script takes part in it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import django
from playwright.sync_api import Page, sync_playwright

from annotations.simulation.characters import LOOKALIKES
from elicit.archives import CIFAR10_CATEGORIES
from tests import services

IMAGES = Path(__file__).parent / "images"
LAPTOP, PHONE = {"width": 1366, "height": 660}, {"width": 360, "height": 740}


def seen(page: Page) -> int:
    """The class in the picture on the screen."""
    from annotations.models import Image  # Django has to be set up first

    (sha256,) = re.findall(r"[0-9a-f]{64}", page.locator("#stimulus").get_attribute("src") or "")
    return Image.objects.filter(sha256=sha256).values_list("reference", flat=True)[0] or 0


def answer(page: Page) -> None:
    """What a careful person might say of the picture on the screen."""
    page.locator("#categories:not([disabled])").wait_for()
    top = seen(page)
    second, third = LOOKALIKES[top]
    control = "{}: {}".format
    name = CIFAR10_CATEGORIES
    page.get_by_role("radio", name=control(name[top], "most likely"), exact=True).check()
    page.get_by_role("textbox", name=control(name[top], "percentage"), exact=True).fill("70")
    page.get_by_role("checkbox", name=control(name[second], "plausible"), exact=True).check()
    page.get_by_role("textbox", name=control(name[second], "percentage"), exact=True).fill("20")
    for other in set(range(len(name))) - {top, second, third}:
        page.get_by_role("checkbox", name=control(name[other], "impossible"), exact=True).check()
    page.wait_for_timeout(800)


def main(url: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright runs an event loop
    django.setup()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=services.chromium())
        for name, viewport in (("trial", LAPTOP), ("trial-phone", PHONE)):
            page = browser.new_page(viewport=viewport)  # type: ignore[arg-type]
            page.goto(url)
            page.get_by_label("I agree to take part").check()
            page.get_by_role("button", name="Continue").click()
            page.get_by_role("button", name="Start").click()
            answer(page)
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
