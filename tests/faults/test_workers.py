"""Real workers on a real broker, while things die around them."""

from __future__ import annotations

import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.utils import timezone
from redis import Redis

from annotations import image_store, selectors
from annotations.kinds import CHECK_SESSION, MEASURE_STUDY
from annotations.models import (
    ConsistencyCheck,
    Image,
    Session,
    SessionStatus,
    Study,
)
from annotations.simulation.characters import CAREFUL
from annotations.simulation.walker import Walker
from elicit.labels import read_release
from elicit.labels.release_files import Recipe
from exports import selectors as exported
from exports.services import request_release
from jobs.models import Job, Status
from tests import factories as make
from tests import services
from tests.concurrency.site import Site
from tests.crowds import answered_study
from tests.faults.conftest import Broker, Until
from tests.faults.downloads import Downloads, is_ready

pytestmark = pytest.mark.worker
# A page's usual time on a busy machine: a broker that takes connections and says nothing adds a quarter of a second.
PAGE_MAY_TAKE = 4.0


def builds() -> list[Path]:
    return list((Path(settings.RELEASES_ROOT) / "builds").glob("*"))


def is_checked(session: Session) -> Callable[[], bool]:
    return ConsistencyCheck.objects.filter(session=session).exists


def is_done(job: Job) -> Callable[[], bool]:
    return Job.objects.filter(pk=job.pk, status=Status.DONE).exists


def test_a_worker_checks_a_completed_session_and_builds_a_release(environment: dict[str, str], until: Until) -> None:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=2)
    with services.worker(environment):
        session = make.complete_session(study, repeats=((5, 60),))
        until(is_checked(session))
        check = ConsistencyCheck.objects.get(session=session)
        assert (check.repeats, check.same_top, check.verdict) == (2, 0, "inconsistent")
        release = request_release(study_id=study.pk, recipe=Recipe(), user=None)
        until(lambda: is_ready(release))
        # The measuring waits for half a minute's completions, and for the clock.
        urgent = Job.objects.exclude(kind=MEASURE_STUDY)
        until(lambda: not urgent.exclude(status=Status.DONE).exists())
    read = read_release(exported.folder(release))
    assert read.manifest["digest"] == release.digest == read_release(exported.archive(release)).manifest["digest"]
    assert (read.counts.tolist(), len(read.kinds)) == ([1] * 4, 6)
    assert set(urgent.values_list("attempts", flat=True)) == {1}


def test_a_release_whose_worker_is_killed_is_finished_once_and_whole_by_another(
    environment: dict[str, str], until: Until
) -> None:
    study = answered_study(images=400, annotators=50)
    with services.web(environment) as site:
        with services.worker(environment) as doomed:
            release = request_release(study_id=study.pk, recipe=Recipe(), user=None)
            downloads = Downloads(site, release)
            until(lambda: [each for each in builds() if (each / "work" / "reading.done").exists()], every=0.002)
            doomed.kill()
        job = Job.objects.get(kind="exports.build_release")
        assert (job.status, job.attempts) == (Status.RUNNING, 1)
        assert len(builds()) == 1
        assert not is_ready(release)
        assert not downloads.press()

        with services.worker(environment) as second, services.beat(environment):
            until(downloads.press, every=0.01)
            until(is_done(job))
            again = request_release(study_id=study.pk, recipe=Recipe(), user=None)
            until(Job.objects.filter(subject=str(again.pk), status=Status.RUNNING).exists, every=0.005)
            second.process.send_signal(signal.SIGTERM)
            second.process.wait(60)
    downloads.check()
    assert {status for status, _, _ in downloads.got} == {200, 404}
    job.refresh_from_db()
    assert (job.status, job.attempts, job.error) == (Status.DONE, 2, "")
    read = read_release(exported.archive(release))
    assert read.counts.tolist() == [50] * 400
    assert read.manifest["digest"] == release.digest == read_release(exported.folder(release)).manifest["digest"]
    # A worker that is only asked to stop finishes what it has begun; and built undisturbed, the bytes are the same.
    assert is_ready(again)
    assert again.digest == release.digest
    assert Job.objects.get(subject=str(again.pk)).attempts == 1
    assert {each.name for each in builds()} == {Path(each.folder).name for each in (release, again)}


def test_a_job_whose_message_was_lost_is_rung_for_by_the_clock(environment: dict[str, str], until: Until) -> None:
    study = make.make_study(dataset=make.make_dataset(2), images_per_session=2, repeats_per_session=1)
    session = make.complete_session(study)
    job = Job.objects.get(kind=CHECK_SESSION)
    with closing(Redis.from_url(settings.CELERY_BROKER_URL)) as client:
        assert client.llen("celery") == 1
        client.flushdb()
    # A worker looks round once when it starts; to that one the message shall seem to be on its way still.
    Job.objects.update(rung_at=timezone.now() + timedelta(hours=1))
    with services.worker(environment) as worker:
        until(lambda: "jobs.sweep" in worker.output() and "succeeded" in worker.output())
        job.refresh_from_db()
        assert (job.status, job.attempts) == (Status.QUEUED, 0)
        Job.objects.update(rung_at=timezone.now() - timedelta(hours=1))
        with services.beat(environment):
            until(is_checked(session))
            until(is_done(job))
    job.refresh_from_db()
    assert job.attempts == 1


def test_a_worker_that_starts_looks_for_what_was_left_behind(environment: dict[str, str], until: Until) -> None:
    study = make.make_study(dataset=make.make_dataset(2), images_per_session=2, repeats_per_session=1)
    session = make.complete_session(study)
    with closing(Redis.from_url(settings.CELERY_BROKER_URL)) as client:
        client.flushdb()
    Job.objects.update(rung_at=None)
    with services.worker(environment):
        until(is_checked(session))


def study_with_pictures() -> Study:
    """Two images that can be looked at, and one repeat."""
    dataset = make.make_dataset(2)
    for image, pixels in zip(dataset.images.all(), make.rng().integers(0, 256, (2, 32, 32, 3), np.uint8), strict=True):
        Image.objects.filter(pk=image.pk).update(sha256=image_store.put(pixels))
    return make.make_study(dataset=dataset, images_per_session=2, repeats_per_session=1)


class PatientWalker(Walker):
    """Notes the longest time that a page made it wait."""

    waited = 0.0

    def _request(self, request: urllib.request.Request) -> tuple[int, str, str]:
        began = time.monotonic()
        try:
            return super()._request(request)
        finally:
            self.waited = max(self.waited, time.monotonic() - began)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_session_is_completed_without_the_broker_and_checked_when_it_is_back(
    environment: dict[str, str], broker: Broker, until: Until, fault: str
) -> None:
    study = study_with_pictures()
    environment["ELICIT_BROKER_URL"] = broker.url
    with services.web(environment) as site, services.worker(environment) as worker, services.beat(environment) as beat:
        (broker.kill if fault == "killed" else broker.freeze)()
        walker = PatientWalker(site.url, study.slug, CAREFUL, 1, lambda _: None)
        outcome = walker.walk()
        assert (outcome.ended, outcome.answered) == ("completed", 3)
        assert walker.waited < PAGE_MAY_TAKE
        session = study.sessions.get()
        assert session.status == SessionStatus.COMPLETED
        assert Job.objects.get().status == Status.QUEUED
        assert "The broker did not take the message" in site.output()
        assert not is_checked(session)()

        (broker.start if fault == "killed" else broker.thaw)()
        until(is_checked(session))
        assert (site.running, worker.running, beat.running) == (True, True, True)


def test_the_clock_gives_an_abandoned_session_s_place_back(environment: dict[str, str], until: Until) -> None:
    study = make.make_study(dataset=make.make_dataset(1), labels_per_image=1)
    long_gone = make.begin(make.make_session(study))
    with services.worker(environment), services.beat(environment):
        until(lambda: selectors.has_free_place(study))
    long_gone.refresh_from_db()
    assert long_gone.status == SessionStatus.ABANDONED
    assert make.begin(make.make_session(study, seed=1), seed=1).status == SessionStatus.TRIALS


def test_without_a_broker_to_install_files_ring_for_the_worker(tmp_path: Path, until: Until) -> None:
    site = Site(tmp_path)
    site("prepare", 0, 2)
    site("complete")
    for message in (tmp_path / "queue" / "messages").iterdir():
        message.unlink()

    def checks() -> int:
        with closing(sqlite3.connect(tmp_path / "elicit.sqlite3")) as database:
            [(count,)] = database.execute("SELECT count(*) FROM annotations_consistencycheck")
        return int(count)

    environment = {
        "ELICIT_VAR": str(tmp_path),
        "ELICIT_DATABASE_URL": f"sqlite:///{tmp_path / 'elicit.sqlite3'}",
        "ELICIT_BROKER_URL": "filesystem://localhost",
        "ELICIT_JOB_PATIENCE_SECONDS": "0.01",
        "ELICIT_JOB_SWEEP_SECONDS": "3600",
    }
    with services.worker(environment, "--pool", "threads", "--beat"):
        # The message was lost: the worker's own look round finds the job.
        until(lambda: checks() == 1)
        # Nobody sweeps for an hour now: the message does it.
        site("complete")
        until(lambda: checks() == 2)
    # What is left waits for the clock.
    assert sorted(set(map(tuple, site("look")["jobs"]))) == [("done", 1), ("queued", 0)]
