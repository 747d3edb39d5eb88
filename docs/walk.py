"""The shortest way from a folder of images to a live study's link, as a curator's hand makes it.

`.venv/bin/python -m docs.walk SITE USER PASSWORD` walks it on a running site with the sample images and takes the
pictures of docs/how-to/curate.md anew; `tests/browser/test_walk.py` walks it on every change and counts the actions.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from elicit import archives
from elicit.archives import CIFAR10_CATEGORIES
from tests import services

IMAGES = Path(__file__).parent / "images"
WINDOW = {"width": 1366, "height": 768}
# An import of a few images by a worker.
A_WHILE = 60_000

Shoot = Callable[[str], object]


class Hand:
    """Does what a person does, and counts it: each press, each text typed, each choice."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.actions: list[str] = []

    def press(self, control: Locator, what: str) -> None:
        self.actions.append(f"press {what}")
        control.click()

    def type(self, field: Locator, text: str, what: str) -> None:
        self.actions.append(f"type {what}")
        field.fill(text)

    def choose(self, field: Locator, value: str, what: str) -> None:
        self.actions.append(f"choose {what}")
        field.select_option(value)

    def pick(self, field: Locator, folder: Path, what: str) -> None:
        self.actions.append(f"pick {what}")
        field.set_input_files(folder)


def walk(page: Page, site: str, user: str, password: str, folder: Path, shoot: Shoot) -> tuple[list[str], str]:
    """From the console's login to the link for annotators. Returns the actions, and the link."""
    hand = Hand(page)
    page.goto(f"{site}/admin/")
    hand.type(page.get_by_label("Username"), user, "the name")
    hand.type(page.get_by_label("Password"), password, "the password")
    hand.press(page.get_by_role("button", name="Log in"), "Log in")
    expect(page.get_by_text("No study yet")).to_be_visible()
    shoot("start")
    hand.press(page.get_by_role("link", name="Import a dataset"), "Import a dataset")
    hand.type(page.get_by_label("Name", exact=False).first, "Twenty pictures", "the dataset's name")
    shoot("import")
    hand.press(page.get_by_role("button", name="Import"), "Import")
    hand.pick(page.get_by_label("Choose the folder of images"), folder, "the folder")
    expect(page.get_by_text("ready", exact=True)).to_be_visible(timeout=A_WHILE)
    shoot("dataset")
    hand.press(page.get_by_role("link", name="New study on this dataset"), "New study on this dataset")
    hand.type(page.get_by_label("Name", exact=False).first, "What is in the picture?", "the study's name")
    shoot("study")
    hand.press(page.get_by_role("button", name="Make the study"), "Make the study")
    expect(page.get_by_text("Everything is in place.")).to_be_visible()
    shoot("checks")
    hand.press(page.get_by_role("button", name="Launch"), "Launch")
    expect(page.get_by_text("The study is live now.")).to_be_visible()
    shoot("live")
    link = page.locator("p", has_text="Link for annotators:").get_by_role("link")
    expect(link).to_be_visible()
    return hand.actions, link.get_attribute("href") or ""


def sample(folder: Path) -> Path:
    """The sample images as a curator keeps them: a folder for each category."""
    source = archives.sample_folder()
    if source is None:
        raise SystemExit("The sample images are missing: make .venv/.sample")
    for picture in sorted(source.glob("cifar10_*.png")):
        category = CIFAR10_CATEGORIES[int(picture.stem.rsplit("_", 1)[1])]
        (folder / category).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, folder / category / picture.name)
    return folder


def main(site: str, user: str, password: str) -> None:
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=services.chromium())
        page = browser.new_context(viewport=WINDOW).new_page()  # type: ignore[arg-type]
        folder = sample(Path(scratch) / "pictures")
        shots = iter(range(1, 100))
        actions, link = walk(
            page, site, user, password, folder, lambda _: page.screenshot(path=IMAGES / f"walk-{next(shots)}.png")
        )
        browser.close()
    sys.stdout.write("\n".join([*(f"{number}. {action}" for number, action in enumerate(actions, 1)), link, ""]))


if __name__ == "__main__":
    main(*sys.argv[1:4])
