"""Ask for a release, and build it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotations import selectors as annotated
from elicit.labels.release_files import Recipe, ReleasedResponse, write_release, zip_release
from exports import selectors
from exports.errors import ExportError
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job


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
    """Build the release that the job names. Again after a kill: nothing shows before all of it is there."""
    release = selectors.releases().get(pk=job.subject)
    if release.is_ready:
        return
    root = Path(settings.RELEASES_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    mine = f".building-{release.pk}-"
    # The job is ours alone by now: a killed attempt left these, or one that has lost the job and will notice.
    for left in root.glob(f"{mine}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=mine, dir=root) as scratch:
        built = Path(scratch) / release.name
        built.mkdir()
        manifest = _write(release, job, built)
        jobs.report(job, "packing")
        packed = zip_release(built, Path(scratch) / f"{release.name}.zip")
        sha256, size = _digest(packed)
        # Last word before anything shows: stops here if another worker has taken the job over.
        jobs.report(job, "publishing")
        _publish(built, selectors.folder(release))
        packed.replace(selectors.archive(release))
    Release.objects.filter(pk=release.pk, ready_at__isnull=True).update(
        ready_at=timezone.now(),
        manifest=manifest,
        digest=manifest["digest"],
        zip_sha256=sha256,
        zip_bytes=size,
    )


def _write(release: Release, job: Job, folder: Path) -> dict[str, Any]:
    recipe = Recipe.from_dict(release.recipe)
    until, leave_out = release.requested_at, recipe.leave_out_inconsistent
    responses = annotated.released_responses(release.study_id, until=until, leave_out_inconsistent=leave_out)
    return dict(
        write_release(
            folder,
            categories=annotated.study_categories(release.study_id),
            responses=_reported(responses, job),
            recipe=recipe,
            facts=annotated.study_facts(release.study_id, until=until, leave_out_inconsistent=leave_out),
            version=release.version,
            progress=lambda stage, done, total: jobs.report(job, stage, done, total),
        )
    )


def _reported(responses: Iterable[ReleasedResponse], job: Job) -> Iterator[ReleasedResponse]:
    """The same responses. Reading very many takes longer than a lease: every thousandth extends it."""
    for number, response in enumerate(responses):
        if number % 1000 == 0:
            jobs.report(job, "reading", number)
        yield response


def _publish(built: Path, target: Path) -> None:
    """Move the finished folder into place; what a killed attempt left there goes."""
    if target.exists():
        shutil.rmtree(target)
    built.replace(target)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
