"""A curator trains on a release: from the form, through the progress, to the report."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db import connections
from playwright.sync_api import Browser, Page, expect
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from exports import services, training
from exports.models import Release, TrainingRun
from tests import factories as make
from tests.exports import stand_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]
REAL = training.command


@pytest.fixture
def release(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Two releases of twelve images; the stand-in trains."""
    settings.RELEASES_ROOT, settings.TRAINING_ROOT = tmp_path / "releases", tmp_path / "training"
    monkeypatch.setattr(training, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(training, "command", _command)
    study = make.make_study(
        dataset=make.import_pictures(tmp_path, 12), images_per_session=12, repeats_per_session=0, labels_per_image=2
    )
    for seed in range(2):
        make.complete_session(study, platform_id=f"PLATFORM-{seed}", seed=seed)
    make.run_jobs()
    make.make_curator()
    make.make_release(study)
    return make.make_release(study)


def _command(run: TrainingRun) -> list[str]:
    words = REAL(run)
    wait = "0.6" if run.epochs == 5 else "0"
    return [words[0], str(stand_in.__file__), *words[words.index("compare") + 1 :], "--wait", wait]


def sign_in(page: Page, live_server: LiveServer) -> None:
    page.goto(f"{live_server.url}/admin/")
    page.get_by_label("Username").fill("curator")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Studies")).to_be_visible()


def test_a_curator_trains_watches_and_reads_the_report(
    no_console_errors: Page, console_errors: list[str], live_server: LiveServer, release: Release
) -> None:
    page = no_console_errors
    sign_in(page, live_server)
    page.goto(f"{live_server.url}/admin/exports/release/{release.pk}/change/")
    page.get_by_role("link", name="Train on it").press("Enter")
    estimate = page.locator("#training-estimate")
    expect(estimate).to_contain_text("That makes 20 networks: 4 label sets × 5 seeds")
    page.get_by_label("recommended: the recommended recipe").uncheck()
    page.get_by_label("Birds v1").check()
    page.get_by_label("Seeds").fill("2")
    page.get_by_label("Epochs").fill("5")
    expect(estimate).to_have_text("That makes 8 networks: 4 label sets × 2 seeds, 40 epochs in all.")
    page.get_by_label("Annotators per image").fill("none")
    expect(estimate).to_contain_text("Something is missing yet")
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_text("Annotators per image are numbers from 1").first).to_be_visible()
    # The form came back with 400.
    assert len(console_errors) == 1
    console_errors.clear()
    page.get_by_label("Annotators per image").fill("all")
    page.get_by_role("button", name="Train").press("Enter")
    expect(page.get_by_text("waiting for a worker", exact=True)).to_be_visible()

    worker = threading.Thread(target=_work)
    worker.start()
    # By itself: nobody presses anything from here to the findings.
    expect(page.get_by_text("run 1 of 2", exact=False).first).to_be_visible(timeout=15_000)
    expect(page.get_by_role("heading", name="Findings")).to_be_visible(timeout=20_000)
    worker.join()
    expect(page.get_by_text("released − hard: −0.5000 nats.")).to_be_visible()
    expect(page.get_by_role("row", name="released")).to_contain_text("0.750 ± 0.250")
    drawing = page.get_by_role("img", name="Of <labels>.")
    assert drawing.evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    page.get_by_role("link", name="Open the report").press("Enter")
    expect(page.get_by_role("heading", name="So")).to_be_visible()


def _work() -> None:
    make.run_jobs()
    connections.close_all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_every_page_is_free_of_accessibility_faults_and_fits_the_screen(
    browser: Browser, live_server: LiveServer, release: Release, scheme: Literal["light", "dark"], width: int
) -> None:
    first = Release.objects.exclude(pk=release.pk).get()
    finished = services.request_training(release_id=release.pk, other_ids=[first.pk], user=None)
    make.run_jobs()
    failed = services.request_training(release_id=release.pk, label_sets=["hard"], user=None)
    _fail(failed)
    cancelled = services.request_training(release_id=release.pk, label_sets=["released"], user=None)
    services.cancel_training(cancelled, user=None)
    waiting = services.request_training(release_id=release.pk, label_sets=["smooth"], user=None)
    context = browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    sign_in(page, live_server)
    runs = "/admin/exports/trainingrun/"
    for address in (
        runs,
        f"{runs}add/",
        f"{runs}add/?release={release.pk}",
        f"{runs}add/?from={finished.pk}",
        *(f"{runs}{run.pk}/change/" for run in (finished, failed, cancelled, waiting)),
    ):
        page.goto(live_server.url + address)
        found = Axe().run(page)
        assert found.violations_count == 0, address + found.generate_report()
        # Django's own list scrolls within the page.
        assert address == runs or page.evaluate("document.documentElement.scrollWidth") <= width, address
    context.close()


def _fail(run: TrainingRun) -> None:
    from exports import selectors
    from jobs import services as jobs

    job = selectors.training_job(run)
    assert job is not None
    claimed = jobs.claim(job.pk)
    assert claimed is not None
    jobs.fail(claimed, "There are 1 different images; training needs at least 2.")
