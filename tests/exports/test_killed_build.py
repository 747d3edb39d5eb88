"""A build that is killed, at any moment and any number of times, ends as if it had not been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from annotations import selectors as annotated
from annotations.models import Study
from elicit.labels import read_release
from exports import services as services_of_exports
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job
from jobs.services import JobLost
from tests import factories as make
from tests import services


def test_a_build_that_is_killed_ten_times_is_finished_once_whole_and_the_same(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.exports.killed"],
        cwd=services.ROOT,
        env={**environment, "ELICIT_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    unbroken = told["unbroken"]
    assert unbroken["ready"]
    assert unbroken["attempts"] == 1
    assert told["kills"] == 10
    # Most kills came in the middle of the work, not after it.
    assert told["seen_while_unfinished"] >= 8
    assert sum(build["attempts"] for build in told["builds"]) == told["kills"] + len(told["builds"])
    for build in told["builds"]:
        assert {**build, "attempts": 1} == unbroken
    assert told["left"] == []


def claim(release: Release) -> Job:
    """The release's job, the lease of whoever has it having run out."""
    jobs_of_it = Job.objects.filter(kind=BUILD_RELEASE, subject=str(release.pk))
    jobs_of_it.filter(lease_until__isnull=False).update(lease_until=make.NOON)
    job = jobs.claim(jobs_of_it.get().pk)
    assert job is not None
    return job


def at_stage(stage: str, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``do`` happen once, when a build comes to the stage."""
    report = jobs.report
    done: list[str] = []

    def listen(job: Job, at: str, so_far: int = 0, total: int = 0) -> None:
        report(job, at, so_far, total)
        if at == stage and not done:
            done.append(at)
            do()

    monkeypatch.setattr(jobs, "report", listen)


class Killed(BaseException):
    """As sudden as a test of one process can have it."""


@pytest.mark.django_db
def test_the_new_owner_goes_on_with_what_was_finished(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Killed

    release = make.make_release(study, build=False)
    at_stage("cifar10s.json", die, monkeypatch)
    with pytest.raises(Killed):
        services_of_exports.build_release(claim(release))
    (left,) = releases.iterdir()
    finished = {path.name: path.stat().st_ino for path in (left / "birds-v1").iterdir()}
    assert "responses.csv" in finished

    monkeypatch.setattr(annotated, "released_responses", lambda *_, **__: iter(()))
    services_of_exports.build_release(claim(release))

    assert sorted(path.name for path in releases.iterdir()) == ["birds-v1", "birds-v1.zip"]
    assert {name: (releases / "birds-v1" / name).stat().st_ino for name in finished} == finished
    assert len(read_release(releases / "birds-v1.zip").kinds) == 10


@pytest.mark.django_db
@pytest.mark.parametrize("stage", ["reading", "labels", "responses.jsonl", "soft_labels.csv", "packing"])
def test_who_lost_the_job_can_neither_spoil_nor_repeat_the_work_of_the_new_owner(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    release = make.make_release(study, build=False)
    at_stage(stage, lambda: services_of_exports.build_release(claim(release)), monkeypatch)

    with pytest.raises(JobLost):
        services_of_exports.build_release(claim(release))

    release.refresh_from_db()
    assert release.is_ready
    assert sorted(path.name for path in releases.iterdir()) == ["birds-v1", "birds-v1.zip"]
    assert read_release(releases / "birds-v1").manifest == release.manifest
    assert read_release(releases / "birds-v1.zip").manifest == release.manifest
