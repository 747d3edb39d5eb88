"""Real workers that die, or sleep, in the middle of a build."""

from __future__ import annotations

import hashlib
import signal
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from annotations.models import Study
from elicit.labels import read_release
from elicit.labels.release_files import Recipe
from exports import recipes
from exports import selectors as exported
from exports.models import Release
from exports.services import request_release
from jobs.models import Job, Status
from tests import factories as make
from tests import services
from tests.crowds import answered_study
from tests.faults.conftest import Until
from tests.faults.downloads import ALL_OF_IT, Downloads, is_ready

pytestmark = [pytest.mark.worker, pytest.mark.slow]
KILLS = 10
RECIPE = recipes.recipe("recommended")


def request(study: Study, recipe: Recipe = RECIPE) -> tuple[Release, Job]:
    release = request_release(study_id=study.pk, recipe=recipe, user=None)
    job = Job.objects.get(subject=str(release.pk), kind="exports.build_release")
    Job.objects.filter(pk=job.pk).update(most_attempts=100)
    return release, job


def attempts(job: Job) -> int:
    job.refresh_from_db()
    return job.attempts


def end_lease(job: Job) -> None:
    """As if whoever has the job had been silent for so long."""
    long_ago = timezone.now() - timedelta(hours=1)
    Job.objects.filter(pk=job.pk).update(rung_at=None)
    Job.objects.filter(pk=job.pk, status=Status.RUNNING).update(lease_until=long_ago)


def is_done(job: Job) -> bool:
    return Job.objects.filter(pk=job.pk, status=Status.DONE).exists()


def published() -> dict[str, tuple[int, str]]:
    """Which file lies where below the folder of releases, and what is in it."""
    root = Path(settings.RELEASES_ROOT)
    return {
        str(path.relative_to(root)): (path.stat().st_ino, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def kill_a_worker(environment: dict[str, str], until: Until, job: Job, after: float) -> None:
    """Start a worker, and kill it so many seconds after it has taken the job."""
    before = attempts(job)
    with services.worker(environment) as doomed:
        until(lambda: attempts(job) > before, every=0.002)
        time.sleep(after)
        doomed.kill()
    end_lease(job)


def test_a_build_whose_worker_is_killed_ten_times_is_finished_once_whole_and_the_same(
    environment: dict[str, str], until: Until
) -> None:
    study = answered_study(images=120, annotators=100)
    random = make.rng(3)
    with services.web(environment) as site:
        undisturbed, job = request(study)
        with services.worker(environment):
            until(lambda: attempts(job), every=0.002)
            began = time.monotonic()
            until(lambda: is_ready(undisturbed), every=0.002)
            takes = time.monotonic() - began
            until(lambda: is_done(job))

        names = [ALL_OF_IT, *undisturbed.manifest["files"]]
        built: list[Release] = []
        kills = 0
        while kills < KILLS:
            # Should a release be ready before its tenth kill, the next one has the rest of them.
            release, job = request(study)
            downloads = Downloads(site, release, names)
            with downloads.all_the_time():
                while kills < KILLS and not is_ready(release):
                    # From where the last one stopped it is less to do: short waits as often as long ones.
                    kill_a_worker(environment, until, job, after=takes * random.random() ** 2)
                    kills += not is_ready(release)
                with services.worker(environment):
                    until(partial(is_done, job))
                until(downloads.all_came)
            downloads.check()
            built.append(release)

    for release in built:
        assert release.digest == undisturbed.digest
        assert release.manifest["files"] == undisturbed.manifest["files"]
        read = read_release(exported.archive(release))
        assert read.counts.tolist() == [100] * 120
        assert read.manifest == release.manifest == read_release(exported.folder(release)).manifest
    # Nothing is left of the attempts that were killed.
    folders = [path.name for path in (Path(settings.RELEASES_ROOT) / "builds").iterdir()]
    assert sorted(folders) == sorted(Path(each.folder).name for each in (undisturbed, *built))


def test_a_worker_that_wakes_after_another_has_published_changes_nothing(
    environment: dict[str, str], until: Until
) -> None:
    study = answered_study(images=120, annotators=60)
    builds = Path(settings.RELEASES_ROOT) / "builds"
    with services.web(environment) as site, services.worker(environment) as sleeper:
        release, job = request(study)
        # The last and longest file, which is not written from its beginning to its end.
        until(lambda: list(builds.rglob("birds-v1.zip.part")), every=0.001)
        sleeper.signal(signal.SIGSTOP)
        assert not is_ready(release)
        end_lease(job)
        downloads = Downloads(site, release)
        with services.worker(environment):
            until(lambda: is_done(job))
            seen = published()
            sleeper.signal(signal.SIGCONT)
            with downloads.all_the_time():
                until(lambda: "was taken over by another worker" in sleeper.output())
        assert attempts(job) == 2
        assert sleeper.running
        downloads.check()
    assert published() == seen
    assert [path.name for path in builds.iterdir()] == [Path(release.folder).name]
