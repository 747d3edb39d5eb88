"""Take the pictures of these documents anew: `.venv/bin/python -m docs.screenshots STUDY_URL`, while the site runs.

The study should be one on the sample images; the script takes part in it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import django
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from annotations.simulation.characters import LOOKALIKES
from elicit.archives import CIFAR10_CATEGORIES
from tests import services

IMAGES = Path(__file__).parent / "images"
LAPTOP: dict[str, Any] = {"viewport": {"width": 1366, "height": 660}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
# The screen takes a press on "next" this soon after a new image for the second half of a double press.
DOUBLE_PRESS_MS = 650
# A contradiction is pointed at once a value has come to rest.
REST_MS = 800


def take_part(browser: Browser, url: str, device: dict[str, Any]) -> Page:
    """The first trial of a new session."""
    page = browser.new_context(**device).new_page()
    page.goto(url)
    page.get_by_label("I agree to take part").check()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Start").click()
    page.locator("#categories:not([disabled])").wait_for()
    return page


def seen(page: Page) -> int:
    """The class in the picture on the screen."""
    from annotations.models import Image  # Django has to be set up first

    (sha256,) = re.findall(r"[0-9a-f]{64}", page.locator("#stimulus").get_attribute("src") or "")
    return Image.objects.filter(sha256=sha256).values_list("reference", flat=True)[0] or 0


def control(page: Page, category: int, role: Any, what: str) -> Locator:
    return page.get_by_role(role, name=f"{CIFAR10_CATEGORIES[category]}: {what}", exact=True)


def steps(page: Page, shoot: Any) -> None:
    """What a careful person might say of the picture on the screen, with a picture of each step."""
    top = seen(page)
    second, third = LOOKALIKES[top]
    shoot("start")
    page.locator(f"#name-{top}").click()
    page.get_by_role("button", name="70 percent").click()
    shoot("most-likely")
    control(page, second, "checkbox", "plausible").click()
    control(page, second, "textbox", "percentage").fill("80")
    page.wait_for_timeout(REST_MS)
    shoot("contradiction")
    page.get_by_role("button", name="20 percent").click()
    page.get_by_role("button", name="All others impossible").click()
    control(page, third, "checkbox", "impossible").click()
    page.wait_for_timeout(REST_MS)
    shoot("done")
    page.get_by_role("button", name="Next").click()
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Back").click()
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    shoot("correct")


# A session with all of its steps

EVERY_STEP = "every-step"
QUESTIONS = [
    {
        "name": "whose",
        "question": "Whose view do you give?",
        "kind": "choice",
        "choices": ["My own", "What 100 other people would say"],
        "answer": "What 100 other people would say",
    }
]
PRACTICE = [{"image": 5, "feedback": "Most people see a **frog**; some a bird.", "expected": {"Frog": 80, "Bird": 15}}]


def study_with_every_step() -> None:
    """A study on the sample images, unless it is there."""
    import numpy as np

    from annotations.models import Dataset, Study
    from annotations.presets import CIFAR10S
    from annotations.services import studies

    if Study.objects.filter(slug=EVERY_STEP).exists():
        return
    settings = {
        "images_per_session": 3,
        "repeats_per_session": 0,
        "labels_per_image": 100,
        "break_every": 2,
        "practice": PRACTICE,
        "comprehension": QUESTIONS,
        "completion_code": "C0DE-1234",
    }
    dataset = Dataset.objects.get(slug="cifar10-sample")
    study = studies.create_study(
        name="What is in the picture?", slug=EVERY_STEP, dataset=dataset, preset=CIFAR10S, overrides=settings
    )
    studies.choose_images(study, range(3), np.random.default_rng(0))
    studies.launch(study.pk, np.random.default_rng(0))


def answer(page: Page) -> None:
    page.locator("#stimulus.painted").wait_for()
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.keyboard.type("18x")
    page.keyboard.press("Enter")


def session_steps(page: Page, site: str, shoot: Any) -> None:
    """From the study's link to the thanks, and how one withdraws."""
    page.goto(f"{site}/study/{EVERY_STEP}/")
    shoot("consent")
    page.get_by_label("I agree to take part").check()
    page.get_by_role("button", name="Continue").click()
    shoot("instructions")
    page.get_by_role("button", name="Practise").click()
    answer(page)
    page.locator("#feedback").wait_for()
    shoot("practice")
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Next").click()
    page.get_by_label("My own").check()
    page.get_by_role("button", name="Check").click()
    shoot("comprehension")
    page.get_by_label("What 100 other people would say").check()
    page.get_by_role("button", name="Check").click()
    answer(page)
    answer(page)
    page.locator("#rest").wait_for()
    shoot("break")
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Continue").click()
    answer(page)
    page.get_by_role("button", name="Finish").wait_for()
    shoot("questionnaire")
    for name in ("clarity", "difficulty"):
        page.locator(f"input[name={name}]").nth(7).check()
    page.get_by_role("button", name="Finish").click()
    page.get_by_role("heading", name="Thank you").wait_for()
    shoot("thanks")
    page.get_by_role("link", name="Stop taking part").click()
    shoot("withdraw")


def main(url: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright runs an event loop
    django.setup()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=services.chromium())
        for suffix, device in (("", LAPTOP), ("-phone", PHONE)):
            page = take_part(browser, url, device)
            wanted = {"done": f"trial{suffix}", **({} if suffix else {name: f"screen-{name}" for name in STEPS})}

            def shoot(step: str, page: Page = page, wanted: dict[str, str] = wanted) -> None:
                if step in wanted:
                    page.screenshot(path=IMAGES / f"{wanted[step]}.png")

            steps(page, shoot)
        study_with_every_step()
        page = browser.new_context(**LAPTOP).new_page()
        site = url.partition("/study/")[0]
        session_steps(page, site, lambda step: page.screenshot(path=IMAGES / f"step-{step}.png"))
        browser.close()


STEPS = ("start", "most-likely", "contradiction", "correct")

if __name__ == "__main__":
    main(sys.argv[1])
