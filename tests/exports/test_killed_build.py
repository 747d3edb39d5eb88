"""A build that is killed, at any moment and any number of times, ends as if it had not been."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from annotations import selectors as annotated
from annotations.models import Study
from elicit.labels import read_release
from elicit.labels.release_files import Recipe, common, zip_release
from elicit.labels.release_files.common import durable
from exports import building, selectors
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job, Status
from jobs.services import JobLost
from tests import factories as make
from tests import services
from tests.labels.releases import write


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
    job = jobs.claim(jobs_of_it.latest("pk").pk)
    assert job is not None
    return job


def build(release: Release) -> None:
    """The next attempt, by a worker of its own."""
    building.build_release(claim(release))


def at_stage(stage: str, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``do`` happen once, when a build comes to the stage and has reported it."""
    report = jobs.report
    done: list[str] = []

    def listen(job: Job, at: str, so_far: int = 0, total: int = 0) -> None:
        report(job, at, so_far, total)
        if at == stage and not done:
            done.append(at)
            do()

    monkeypatch.setattr(jobs, "report", listen)


def before(name: str, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``do`` happen once, when a build is about to call this function of `building`."""
    called = getattr(building, name)
    done: list[str] = []

    def listen(*args: Any, **options: Any) -> Any:
        if not done:
            done.append(name)
            do()
        return called(*args, **options)

    monkeypatch.setattr(building, name, listen)


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Which file lies where, and what is in it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_whole(release: Release) -> bool:
    """Whether what can be downloaded is what the row says."""
    folder, archive = selectors.folder(release), selectors.archive(release)
    return (
        release.is_ready
        and archive.exists()
        and hashlib.sha256(archive.read_bytes()).hexdigest() == release.zip_sha256
        and json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == release.manifest
        and read_release(folder).manifest["digest"] == release.digest
    )


class Killed(BaseException):
    """As sudden as a test of one process can have it."""


def die() -> None:
    raise Killed


@pytest.mark.django_db
@pytest.mark.parametrize("at", ["write_release", "zip_release"])
def test_a_build_that_finds_the_disk_full_says_so_and_is_finished_when_there_is_room(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    undisturbed = make.make_release(study)
    release = make.make_release(study, build=False)

    def full(*_: Any, **__: Any) -> None:
        with Path("/dev/full").open("w") as file:
            file.write("the rest")

    with monkeypatch.context() as without_room, time_machine.travel(timezone.now(), tick=False) as clock:
        without_room.setattr(building, at, full)
        for _ in range(10):
            [job] = [job for job in make.run_jobs() if job.kind == BUILD_RELEASE]
            assert (job.status, job.attempts) == (Status.QUEUED, 0)
            clock.shift(jobs.ROOM_AGAIN)
        told = selectors.build_state(release).error
    assert told.startswith("The disk is full: make room")
    release.refresh_from_db()
    assert not release.is_ready

    with time_machine.travel(job.due_at + jobs.ROOM_AGAIN):
        [job] = [job for job in make.run_jobs() if job.kind == BUILD_RELEASE]
    release.refresh_from_db()
    assert (job.status, job.error) == (Status.DONE, "")
    assert is_whole(release)
    assert release.digest == undisturbed.digest


@pytest.mark.django_db
def test_the_new_owner_goes_on_with_what_was_finished(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make.make_release(study, build=False)
    at_stage("cifar10s.json", die, monkeypatch)
    with pytest.raises(Killed):
        build(release)
    (left,) = (releases / "builds").iterdir()
    finished = {path.name: path.stat().st_ino for path in (left / "birds-v1").iterdir()}
    assert "responses.csv" in finished

    monkeypatch.setattr(annotated, "released_responses", lambda *_, **__: iter(()))
    build(release)

    release.refresh_from_db()
    assert [path.name for path in (releases / "builds").iterdir()] == [Path(release.folder).name] != [left.name]
    assert {name: (releases / "birds-v1" / name).stat().st_ino for name in finished} == finished
    assert len(read_release(releases / "birds-v1.zip").kinds) == 10


# Where an attempt may fall asleep; "_digest" is the last thing before the report that it will publish.
STAGES = ("reading", "labels", "responses.jsonl", "soft_labels.csv", "packing", "publishing")
CALLS = ("_clear_failed", "_take_the_row", "_take_over", "_write", "_digest")


@pytest.mark.django_db
@pytest.mark.parametrize("asleep_at", [*STAGES, *CALLS])
def test_an_attempt_that_slept_past_its_lease_changes_nothing_of_what_another_published(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch, asleep_at: str
) -> None:
    release = make.make_release(study, build=False)
    published: dict[str, tuple[int, str]] = {}

    def another_publishes() -> None:
        # The sleeper's code is older: its bytes would be others.
        with monkeypatch.context() as newer:
            newer.setattr(common, "WRITER_VERSION", "0.2.0")
            build(release)
        published.update(tree(releases))

    (at_stage if asleep_at in STAGES else before)(asleep_at, another_publishes, monkeypatch)
    try:
        build(release)
    except JobLost:
        pass
    else:
        # Woken before it had begun, it finds that there is nothing to do.
        assert asleep_at in CALLS[:2]

    release.refresh_from_db()
    assert release.manifest["written_by"]["elicit"] == "0.2.0"
    assert is_whole(release)
    assert tree(releases) == published
    assert [path.name for path in (releases / "builds").iterdir()] == [Path(release.folder).name]


@pytest.mark.django_db
def test_the_control_shows_that_a_shared_place_would_be_spoilt(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same sleep, but all attempts publish in one place and the row only tells when."""
    release = make.make_release(study, build=False)
    place = releases / "shared"

    def publish_there(job: Job) -> None:
        mine = releases / f"attempt-{job.attempts}"
        told = building._Reports(job)
        manifest = building._write(release, mine / release.name, mine / "work", told)
        zip_release(mine / release.name, mine / "birds-v1.zip")
        sha256, size = building._digest(mine / "birds-v1.zip")
        jobs.report(job, "publishing")
        if place.exists():
            place.rename(mine / "replaced")
        mine.joinpath(release.name).rename(place)
        mine.joinpath("birds-v1.zip").replace(releases / "shared.zip")
        Release.objects.filter(pk=release.pk, ready_at__isnull=True).update(
            ready_at=make.NOON, manifest=manifest, digest=manifest["digest"], zip_sha256=sha256, zip_bytes=size
        )

    def another_publishes() -> None:
        with monkeypatch.context() as newer:
            newer.setattr(common, "WRITER_VERSION", "0.2.0")
            publish_there(claim(release))

    at_stage("publishing", another_publishes, monkeypatch)
    publish_there(claim(release))

    release.refresh_from_db()
    assert release.is_ready
    assert read_release(place).manifest != release.manifest
    assert hashlib.sha256((releases / "shared.zip").read_bytes()).hexdigest() != release.zip_sha256


@pytest.mark.django_db
@pytest.mark.parametrize("asleep_at", ["_take_over", "_digest", "publishing"])
def test_an_attempt_that_wakes_in_the_middle_of_the_next_one_spoils_nothing(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch, asleep_at: str
) -> None:
    release = make.make_release(study, build=False)
    first, second = (building._attempt(release.pk, Job.objects.latest("pk").pk, attempt) for attempt in (1, 2))

    def another_begins_and_is_killed() -> None:
        with monkeypatch.context() as doomed:
            at_stage("packing", die, doomed)
            with pytest.raises(Killed):
                build(release)

    (at_stage if asleep_at == "publishing" else before)(asleep_at, another_begins_and_is_killed, monkeypatch)
    with pytest.raises(JobLost):
        build(release)

    release.refresh_from_db()
    assert not release.is_ready
    assert release.folder == f"builds/{second}" != f"builds/{first}"
    assert [path.name for path in (releases / "builds").iterdir()] == [second]
    assert (releases / "builds" / second / "birds-v1" / "manifest.json").exists()
    build(release)
    release.refresh_from_db()
    assert is_whole(release)


@pytest.mark.django_db
@pytest.mark.parametrize("dies_at", ["_settle", "_point"])
def test_what_was_left_to_do_when_a_worker_died_after_publishing_is_done_by_the_next(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    release = make.make_release(study, build=False)
    with monkeypatch.context() as doomed:
        before(dies_at, die, doomed)
        with pytest.raises(Killed):
            build(release)
    release.refresh_from_db()
    assert is_whole(release)
    assert not (releases / "birds-v1").exists()
    ready_at = release.ready_at

    build(release)

    release.refresh_from_db()
    assert release.ready_at == ready_at
    assert (releases / "birds-v1").samefile(selectors.folder(release))
    assert not (releases / release.folder / "work").exists()


def test_who_still_has_a_file_open_that_another_has_taken_over_writes_to_one_of_its_own(tmp_path: Path) -> None:
    def sleep() -> None:
        with durable(tmp_path / "file") as sleeper:
            sleeper.text("old")
            with durable(tmp_path / "file") as other:
                other.text("new")
            sleeper.text("old")

    with pytest.raises(FileNotFoundError):
        sleep()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"


def test_who_still_packs_what_another_has_packed_writes_to_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "x")
    write(tmp_path / "old", recipe=Recipe(pool="median"))
    undisturbed = zip_release(tmp_path / "x", tmp_path / "undisturbed.zip").read_bytes()
    others: list[Path] = []

    def another_packs(stage: str, done: int, total: int) -> None:
        if not others:
            others.append(zip_release(tmp_path / "x", tmp_path / "x.zip"))

    with pytest.raises(FileNotFoundError):
        zip_release(tmp_path / "old", tmp_path / "x.zip", progress=another_packs)

    assert others[0].read_bytes() == undisturbed


# --- What is left of builds that failed for good


def die_on_every_attempt(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the sweep of jobs has it: the job has failed, and its folder is still there."""
    with monkeypatch.context() as doomed:
        at_stage("packing", die, doomed)
        with pytest.raises(Killed):
            build(release)
    Job.objects.update(attempts=5, lease_until=make.NOON)
    jobs.sweep()
    assert Job.objects.latest("pk").status == Status.FAILED


@pytest.mark.django_db
def test_what_a_build_left_that_failed_for_good_is_removed_by_the_next_build(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = make.make_release(study, build=False)
    die_on_every_attempt(failed, monkeypatch)
    (left,) = (releases / "builds").iterdir()
    (releases / "builds" / ".removing-1").mkdir()

    release = make.make_release(study)

    assert release.is_ready
    assert not left.exists()
    assert [path.name for path in (releases / "builds").iterdir()] == [Path(release.folder).name]


@pytest.mark.django_db
def test_a_build_that_may_yet_go_on_keeps_what_it_has(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = make.make_release(study, build=False)
    at_stage("packing", die, monkeypatch)
    with pytest.raises(Killed):
        build(killed)
    (left,) = (releases / "builds").iterdir()
    finished = tree(left)

    make.make_release(study)

    assert tree(left) == finished


@pytest.mark.django_db
def test_a_build_that_failed_for_good_can_be_asked_for_again(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = make.make_release(study, build=False)
    die_on_every_attempt(failed, monkeypatch)
    make.make_release(study)

    jobs.revive(Job.objects.get(subject=str(failed.pk)))
    build(failed)

    failed.refresh_from_db()
    assert is_whole(failed)


@pytest.mark.django_db
def test_an_attempt_that_wakes_after_its_build_was_given_up_publishes_nothing(
    study: Study, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make.make_release(study, build=False)

    def give_up() -> None:
        Job.objects.filter(subject=str(release.pk)).update(status=Status.FAILED, lease_until=None)
        make.make_release(study)

    at_stage("publishing", give_up, monkeypatch)
    with pytest.raises(JobLost):
        build(release)

    release.refresh_from_db()
    assert not release.is_ready
    assert [path.name for path in (releases / "builds").iterdir()] == [Path(Release.objects.latest("pk").folder).name]


@pytest.mark.django_db
def test_releases_that_this_database_does_not_know_are_left_alone(study: Study, releases: Path) -> None:
    other = releases / "builds" / "999-000000000001-00001" / "work"
    other.mkdir(parents=True)

    make.make_release(study)

    assert other.exists()
