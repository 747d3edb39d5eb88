"""The process that trains, as it is: by a worker of its own queue, which dies in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from django.conf import settings as installed
from django.utils import timezone
from pytest_django.fixtures import Settings

from exports import selectors, services
from exports.kinds import TRAIN
from exports.models import Release, TrainingRun
from jobs.models import Job, Status
from tests import factories as make
from tests import services as started
from tests.faults.conftest import Until, environment, until

pytest.importorskip("torch", reason="training needs torch: make training")
pytestmark = [
    pytest.mark.worker,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]
__all__ = ["environment", "until"]
TRAINER = ("--queues", "training", "--pool", "threads", "--concurrency", "1", "--hostname", "trainer@%h")


@pytest.fixture(autouse=True)
def releases(settings: Settings) -> None:
    """Where the workers look for them."""
    settings.RELEASES_ROOT = installed.VAR / "releases"
    shutil.rmtree(settings.TRAINING_ROOT, ignore_errors=True)


@pytest.fixture
def release(environment: dict[str, str], tmp_path: Path) -> Release:
    study = make.make_study(
        dataset=make.import_pictures(tmp_path, 24), images_per_session=24, repeats_per_session=0, labels_per_image=2
    )
    for seed in range(2):
        make.complete_session(study, platform_id=f"PLATFORM-{seed}", seed=seed)
    make.run_jobs()
    return make.make_release(study)


def test_a_run_whose_trainer_is_killed_goes_on_with_the_next_and_ends_in_a_report(
    release: Release, environment: dict[str, str], until: Until
) -> None:
    second = make.make_release(release.study)
    run = services.request_training(
        release_id=release.pk, other_ids=[second.pk], label_sets=["hard", "released"], seeds=1, epochs=8, user=None
    )
    epochs = selectors.training_output(run) / "progress.json"

    with started.worker(environment, "--queues", "celery"):
        # What comes after it is done; the run waits for its own queue.
        third = make.make_release(release.study, build=False)
        until(lambda: Release.objects.get(pk=third.pk).is_ready)
        assert job_of(run).status == Status.QUEUED

    with started.worker(environment, *TRAINER) as doomed:
        until(lambda: epochs.exists() and json.loads(epochs.read_text())["done"] >= 2)
        doomed.kill()
    before = json.loads(epochs.read_text())["done"]
    assert job_of(run).status == Status.RUNNING
    Job.objects.filter(pk=job_of(run).pk).update(lease_until=timezone.now(), rung_at=None)

    with started.worker(environment, *TRAINER):
        from jobs.services import sweep

        until(lambda: sweep() >= 0 and selectors.training_state(latest(run)).is_over, every=0.5)

    found = latest(run)
    state = selectors.training_state(found)
    assert (state.status, state.error) == ("finished", "")
    assert before < 24
    names = [row[0] for row in found.summary["table"]]
    assert len(names) == 3
    assert names[:2] == ["hard", "released"]
    assert found.summary["findings"]
    assert found.summary["figures"]
    report = (selectors.training_output(run) / "report.html").read_text()
    assert str(installed.VAR) not in report
    assert "PLATFORM" not in report


def job_of(run: TrainingRun) -> Job:
    return Job.objects.filter(kind=TRAIN, subject=str(run.pk)).latest("pk")


def latest(run: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.get(pk=run.pk)
