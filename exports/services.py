"""Ask for a release, and build it."""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotations import selectors as annotated
from elicit.labels.release_files import Recipe, write_release, zip_release
from elicit.labels.release_files.common import sync_directory
from exports import selectors
from exports.errors import ExportError
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job
from jobs.tasks import TRANSIENT

# Seconds between two reports of one stage: few beside a lease, many beside a chunk.
REPORT_EVERY = 2.0


def check_request(*, study_id: int, recipe: Recipe) -> None:
    """Raise ExportError where a release could hold nothing: `study_unknown` for a draft, `nothing_to_release`."""
    if not annotated.releasable_studies().filter(pk=study_id).exists():
        raise ExportError("study_unknown", "A draft has nothing to release: launch the study first.")
    facts = annotated.study_facts(study_id, until=timezone.now(), leave_out_inconsistent=recipe.leave_out_inconsistent)
    if not facts["sessions"]:
        raise ExportError("nothing_to_release", "No session is completed yet that this recipe would keep.")


@transaction.atomic
def request_release(*, study_id: int, recipe: Recipe, user: User | None) -> Release:
    """A new version of the study's release, to be built by a worker from what is completed now.

    Raises:
        ExportError: as `check_request`.
    """
    check_request(study_id=study_id, recipe=recipe)
    # The lock gives two requests at once two versions.
    study = annotated.releasable_studies().select_for_update(of=("self",)).get(pk=study_id)
    latest = Release.objects.filter(study=study).aggregate(latest=Max("version"))["latest"] or 0
    release = Release.objects.create(
        study=study,
        version=latest + 1,
        recipe=recipe.to_dict(),
        requested_by=user,
        requested_at=timezone.now(),
    )
    jobs.enqueue(BUILD_RELEASE, release.pk)
    return release


def build_release(job: Job) -> None:
    """Build the release that the job names. Nothing shows before all of it is there.

    After a kill the build goes on where it stopped: what was finished lies sealed in a scratch folder, and whoever
    holds the job takes that over. Its name carries the owner: one who has lost the job finds no folder to write to.
    """
    release = selectors.releases().get(pk=job.subject)
    root = Path(settings.RELEASES_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    if release.is_ready:
        _clear(root, release)
        return
    scratch = _take_over(root, release, job)
    try:
        _build(release, job, scratch)
    except Exception as error:
        if not scratch.exists():
            # Whatever went wrong in a folder that is gone: that another has the job is the news.
            jobs.report(job, "stopping")
        if not isinstance(error, TRANSIENT):
            # Lost, refused or a defect: there is nothing that a later attempt could go on with.
            _discard(scratch)
        raise
    _discard(scratch)


def _build(release: Release, job: Job, scratch: Path) -> None:
    told = _Reports(job)
    built, packed = scratch / release.name, scratch / f"{release.name}.zip"
    manifest = _write(release, built, scratch / "work", told)
    told("packing")
    zip_release(built, packed, progress=told)
    sha256, size = _digest(packed)
    # Last word before anything shows: stops here if another worker has taken the job over.
    jobs.report(job, "publishing")
    _publish(built, selectors.folder(release), scratch)
    packed.replace(selectors.archive(release))
    sync_directory(selectors.archive(release).parent)
    Release.objects.filter(pk=release.pk, ready_at__isnull=True).update(
        ready_at=timezone.now(),
        manifest=manifest,
        digest=manifest["digest"],
        zip_sha256=sha256,
        zip_bytes=size,
    )


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
                told=lambda done, total: told("reading", done, total),
            ),
            recipe=recipe,
            facts=annotated.study_facts(release.study_id, until=until, leave_out_inconsistent=leave_out),
            version=release.version,
            progress=told,
            scratch=scratch,
        )
    )


# Scratch folders


def _scratch_folders(root: Path, release: Release) -> list[Path]:
    return sorted(root.glob(f".building-{release.pk}-*"))


def _take_over(root: Path, release: Release, job: Job) -> Path:
    """This attempt's scratch folder: the one that the last attempt left, under the new owner's name, or a new one."""
    mine = root / f".building-{release.pk}-{job.owner}"
    _sweep(root, release)
    for left in _scratch_folders(root, release):
        if mine.exists():
            _discard(left)
            continue
        # The job is ours alone by now. Renaming takes the ground from under one who has not noticed yet.
        with suppress(FileNotFoundError):
            left.replace(mine)
    mine.mkdir(exist_ok=True)
    return mine


def _discard(scratch: Path) -> None:
    """Remove a scratch folder, unless another has taken it over, even while it is being removed."""
    doomed = scratch.with_name(scratch.name.replace(".building-", ".removing-", 1))
    with suppress(FileNotFoundError):
        scratch.replace(doomed)
        shutil.rmtree(doomed)


def _sweep(root: Path, release: Release) -> None:
    """What a killed attempt was removing."""
    for doomed in root.glob(f".removing-{release.pk}-*"):
        shutil.rmtree(doomed, ignore_errors=True)


def _clear(root: Path, release: Release) -> None:
    """What an attempt left that was killed after it had published."""
    _sweep(root, release)
    for left in _scratch_folders(root, release):
        _discard(left)


def _publish(built: Path, target: Path, scratch: Path) -> None:
    """Move the finished folder into place; what a killed attempt left there goes."""
    if target.exists():
        replaced = scratch / "replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.replace(replaced)
    built.replace(target)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
