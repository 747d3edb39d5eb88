"""Making studies in a real browser: each preset, each way of handing images out, and the trial screen previewed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Dataset, Image, Response, Study
from annotations.services import arms, studies, versions
from annotations.services.arms import compare_arms
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

SHOTS = os.environ.get("SHOTS_FOLDER", "")


def looked_at(page: Page, name: str) -> None:
    """No fault that axe-core knows, at either width; a picture of it where one is asked for."""
    for width in (1366, 360):
        page.set_viewport_size({"width": width, "height": 800})
        found = Axe().run(page, options={"preload": False})
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
        if SHOTS:
            page.screenshot(path=Path(SHOTS) / f"{name}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1366, "height": 800})


def sign_in(page: Page, live_server: LiveServer) -> None:
    make.make_curator()
    page.goto(f"{live_server.url}/admin/")
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = make.import_pictures(tmp_path, images=40)
    for image in made.images.all():
        Image.objects.filter(pk=image.pk).update(
            reference_distribution=[1 - image.index / 80, *[image.index / 720] * 9]
        )
    return made


def test_a_curator_makes_an_adaptive_pilot_by_class_and_tries_its_screen(
    no_console_errors: Page, live_server: LiveServer, dataset: Dataset
) -> None:
    page = no_console_errors
    sign_in(page, live_server)
    page.goto(f"{live_server.url}/admin/annotations/study/add/")
    looked_at(page, "new")
    page.get_by_label("Name", exact=False).first.fill("Birds")
    page.locator("#id_dataset").select_option(label=str(dataset))
    page.locator("#id_preset_key").select_option("top1")
    page.locator("#id_images_by").select_option("class")
    page.locator("#id_per_class").fill("2")
    page.get_by_role("button", name="Make the study").click()
    expect(page.get_by_text("Everything is in place")).to_be_visible()
    study = Study.objects.get()
    assert study.study_images.count() == 20
    page.locator("#id_assignment").select_option("adaptive")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("At most 4 sessions")).to_be_visible()
    assert study.batches.count() == 20
    looked_at(page, "draft")
    page.goto(f"{live_server.url}/admin/annotations/study/{study.pk}/images/")
    expect(page.get_by_text("Drawn from each class")).to_be_visible()
    looked_at(page, "images")
    page.goto(f"{live_server.url}/admin/annotations/study/{study.pk}/preview/trial/")
    page.locator("#stimulus.painted").wait_for()
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / "preview.png")
    for done in range(4):
        page.locator("#stimulus.painted").wait_for()
        page.wait_for_timeout(700)
        page.keyboard.type("18")
        page.keyboard.press("Enter")
        if done < 3:
            expect(page.get_by_text(f"{done + 1} of 4 done")).to_be_visible()
    page.wait_for_url("**/preview/questionnaire/")
    assert not Response.objects.exists()


def test_a_curator_compares_arms_and_follows_the_versions(
    no_console_errors: Page, live_server: LiveServer, dataset: Dataset
) -> None:
    page = no_console_errors
    study = make.make_study(
        dataset=dataset, launch=False, images_per_session=8, labels_per_image=3, questionnaire=[], repeats_per_session=2
    )
    studies.choose_images(study, range(16), make.rng())
    arms.write_arms(
        study.pk,
        [
            {"name": "slider", "settings": {"input_mode": "slider"}, "weight": 1},
            {"name": "typed", "settings": {"input_mode": "typed"}, "weight": 1},
        ],
    )
    study = studies.launch(study.pk, make.rng())
    for seed in range(12):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        random = make.rng(seed)
        for trial in session.trials.order_by("position"):
            top = trial.image.index % 10 if random.random() < 0.8 else (trial.image.index + 3) % 10
            slow = 3000 if str(session.arm) == "typed" else 0
            percentage = float(random.integers(50, 100))
            make.respond(trial, ((top, percentage),), duration_ms=int(random.normal(6000 + slow, 800)))
    compare_arms(study.pk, make.NOON)
    later = versions.new_version(study.pk)
    Study.objects.filter(pk=later.pk).update(labels_per_image=4, image_scale=6)
    sign_in(page, live_server)
    page.goto(f"{live_server.url}/admin/annotations/study/{study.pk}/arms/")
    expect(page.get_by_text("takes longer")).to_be_visible()
    looked_at(page, "arms")
    page.goto(f"{live_server.url}/admin/annotations/study/{later.pk}/change/")
    expect(page.get_by_text("Labels per image (K): 3 → 4")).to_be_visible()
    page.goto(f"{live_server.url}/admin/annotations/study/{later.pk}/arms/")
    expect(page.get_by_role("heading", name="Change the arms")).to_be_visible()
    looked_at(page, "arms-draft")
