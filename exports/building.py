"""Build a release, in a worker.

Each attempt works in a folder of its own, `builds/<release>-<job>-<attempt>` beside the releases; later attempts have
higher names. The release's row names one of them, and only ever a higher one: whoever begins takes the row from the
attempts before, and from then on none of those can publish. So all folders below the row's may be taken over or removed
at any moment, however long the workers that made them sleep; and the folder that is published is not touched again.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from annotations import selectors as annotated
from elicit.labels.release_files import Recipe, write_release, zip_release
from elicit.labels.release_files.common import sync_directory
from exports import derived, selectors
from exports.errors import ExportError
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job
from jobs.services import JobLost
from jobs.tasks import TRANSIENT

log = logging.getLogger(__name__)

# Seconds between two reports of one stage: few beside a lease, many beside a chunk.
REPORT_EVERY = 2.0
BUILDS = "builds"
# In each attempt's folder until it is published: what the build goes on from after a kill.
WORK = "work"
# Above every attempt of one job.
NO_MORE = 99_999


def build_release(job: Job) -> None:
    """Build the release that the job names. Nothing of it can be read before all of it is there.

    After a kill the next attempt goes on where the last one stopped: what was finished lies sealed in its folder.
    """
    release = selectors.releases().get(pk=job.subject)
    if release.superseded_at and not release.is_ready:
        raise ExportError("release_superseded", release.superseded_reason)
    _builds().mkdir(parents=True, exist_ok=True)
    _clear_failed()
    name = _attempt(release.pk, job.pk, job.attempts)
    if not _take_the_row(release, name):
        if not release.is_ready:
            raise JobLost(str(job))
        _settle(release)
        return
    mine = _builds() / name
    _take_over(mine)
    try:
        _build(release, job, mine)
    except Exception as error:
        if not mine.exists():
            # Whatever went wrong in a folder that is gone: that another has the job is the news.
            jobs.report(job, "stopping")
        if not isinstance(error, TRANSIENT):
            # Lost, refused or a defect: there is nothing that a later attempt could go on with.
            _discard(mine)
        raise
    _settle(release)


def _build(release: Release, job: Job, mine: Path) -> None:
    told = _Reports(job)
    built, packed = mine / release.name, mine / f"{release.name}.zip"
    manifest = _write(release, built, mine / WORK, told)
    told("packing")
    zip_release(built, packed, progress=told)
    sha256, size = _digest(packed)
    sync_directory(mine)
    sync_directory(mine.parent)
    jobs.report(job, "publishing")
    # Not one that was superseded meanwhile: what was read may be erased by now.
    mine_still = Release.objects.filter(pk=release.pk, folder=_folder(mine.name), superseded_at__isnull=True)
    published = mine_still.filter(ready_at__isnull=True).update(
        ready_at=timezone.now(),
        manifest=manifest,
        digest=manifest["digest"],
        zip_sha256=sha256,
        zip_bytes=size,
    )
    release.refresh_from_db()
    if not published:
        if release.superseded_at:
            raise ExportError("release_superseded", release.superseded_reason)
        raise JobLost(str(job))


class _Reports:
    """Tells the job how far the build is: each stage, and every few seconds of it, which keeps the lease."""

    def __init__(self, job: Job) -> None:
        self._job, self._stage, self._told_at = job, "", 0.0

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._told_at >= REPORT_EVERY:
            jobs.report(self._job, stage, done, total)
            self._stage, self._told_at = stage, now


def _write(release: Release, folder: Path, scratch: Path, told: _Reports) -> dict[str, Any]:
    recipe = Recipe.from_dict(release.recipe)
    until, leave_out = release.requested_at, recipe.leave_out_inconsistent
    told("reading")
    return dict(
        write_release(
            folder,
            categories=annotated.study_categories(release.study_id),
            responses=annotated.released_responses(
                release.study_id,
                until=until,
                leave_out_inconsistent=leave_out,
                framing=recipe.framing,
                arm=recipe.arm,
                told=lambda done, total: told("reading", done, total),
            ),
            recipe=recipe,
            facts=annotated.study_facts(
                release.study_id,
                until=until,
                leave_out_inconsistent=leave_out,
                framing=recipe.framing,
                arm=recipe.arm,
            ),
            version=release.version,
            progress=told,
            scratch=scratch,
        )
    )


def remove_files(job: Job) -> None:
    """Remove the files of a release that is withheld. Its row stays: what it was, and why it is gone."""
    release = selectors.releases().get(pk=job.subject)
    if not release.withheld:
        return
    derived.forget(release)
    root = Path(settings.RELEASES_ROOT)
    paths = (selectors.folder(release), selectors.archive(release))
    for link in (root / path.name for path in paths):
        if link.is_symlink():
            link.unlink(missing_ok=True)
    # What attempts left that did not come to publish holds the same answers.
    for folder in _unfinished(release.pk):
        _discard(folder)
    if release.folder:
        _discard(root / release.folder)
    else:
        shutil.rmtree(paths[0], ignore_errors=True)
        paths[1].unlink(missing_ok=True)


# Folders


def _builds() -> Path:
    return Path(settings.RELEASES_ROOT) / BUILDS


def _attempt(release: int, job: int, attempt: int) -> str:
    """The name of an attempt's folder; later attempts at a release have higher names, in every collation."""
    return f"{release}-{job:012}-{attempt:05}"


def _folder(name: str) -> str:
    """As the row has it."""
    return f"{BUILDS}/{name}"


def _take_the_row(release: Release, name: str) -> bool:
    """Make the attempt `name` the one that may publish; False where a later one may, or one has."""
    taken = Release.objects.filter(pk=release.pk, ready_at__isnull=True, folder__lte=_folder(name)).update(
        folder=_folder(name)
    )
    release.refresh_from_db(fields=["folder", "ready_at"])
    return bool(taken)


def _unfinished(release: int | str = "*") -> list[Path]:
    """The folders of attempts that were not published, or not yet; the earliest first."""
    return sorted(work.parent for work in _builds().glob(f"{release}-*/{WORK}"))


def _take_over(mine: Path) -> None:
    """Make this attempt's folder: of what the last one left, or anew. The row has been taken from those before."""
    release = mine.name.partition("-")[0]
    # Never one after: that has the row now, and this attempt, which slept, is the one that lost.
    for left in reversed([each for each in _unfinished(release) if each.name < mine.name]):
        if mine.exists():
            _discard(left)
            continue
        with suppress(FileNotFoundError):
            left.replace(mine)
    (mine / WORK).mkdir(parents=True, exist_ok=True)


def _discard(folder: Path) -> None:
    """Remove an attempt's folder, unless another takes it over, even while it is being removed."""
    doomed = folder.with_name(f".removing-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _settle(release: Release) -> None:
    """What is left to do once a release is ready; any number of times, in any number of processes."""
    root = Path(settings.RELEASES_ROOT)
    shutil.rmtree(root / release.folder / WORK, ignore_errors=True)
    for left in _unfinished(release.pk):
        if _folder(left.name) != release.folder:
            _discard(left)
    for path in (selectors.folder(release), selectors.archive(release)):
        if path.exists():
            _point(root / path.name, path)


def settle_all() -> None:
    """As `_settle`, for all that is ready: after a restore."""
    for release in selectors.ready_releases().filter(withheld=False):
        _settle(release)


def _point(name: Path, path: Path) -> None:
    """Make `name` a link to the path: for people who look into the folder. Downloads go by the row."""
    target = path.relative_to(name.parent)
    if name == path or (name.is_symlink() and name.readlink() == target):
        return
    new = name.with_name(f".{name.name}-{path.parent.name}")
    try:
        if name.is_dir() and not name.is_symlink():
            # Of a version that had no links, and died before the row told of it.
            shutil.rmtree(name)
        # Of the same name and target whoever makes it.
        with suppress(FileExistsError):
            new.symlink_to(target)
        with suppress(FileNotFoundError):
            new.replace(name)
    except OSError as error:
        log.warning("No link to %s: %s", path, error)


def _clear_failed() -> None:
    """Remove what builds left that failed for good, and what was being removed when a worker died."""
    for doomed in _builds().glob(".removing-*"):
        shutil.rmtree(doomed, ignore_errors=True)
    left: dict[str, list[Path]] = defaultdict(list)
    for folder in _unfinished():
        left[folder.name.partition("-")[0]].append(folder)
    for release in selectors.releases().filter(pk__in=list(left)):
        if release.is_ready:
            _settle(release)
            continue
        failed = selectors.failed_build(release)
        # Taken from whoever sleeps still; the attempts of a later job can take it from here.
        if failed and _take_the_row(release, _attempt(release.pk, failed.pk, NO_MORE)):
            for folder in left[str(release.pk)]:
                _discard(folder)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
