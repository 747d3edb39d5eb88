"""All reads of releases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet

from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs.models import Job, Status


@dataclass(frozen=True)
class BuildState:
    """How a release stands: `requested`, `building`, `ready` or `failed`; how far; and what went wrong."""

    status: str
    stage: str = ""
    percent: int | None = None
    error: str = ""


STATUS_OF_JOB = {
    Status.QUEUED: "requested",
    Status.RUNNING: "building",
    Status.DONE: "building",
    Status.FAILED: "failed",
}


def releases() -> QuerySet[Release]:
    return Release.objects.select_related("study", "requested_by", "superseded_by__study")


def ready_releases() -> QuerySet[Release]:
    return releases().filter(ready_at__isnull=False)


def _last_job(release: Release) -> Job | None:
    return Job.objects.filter(kind=BUILD_RELEASE, subject=str(release.pk)).order_by("-pk").first()


def failed_build(release: Release) -> Job | None:
    """The job that failed for good to build the release; None where it may yet be built."""
    job = _last_job(release)
    return job if job and job.status == Status.FAILED else None


def build_state(release: Release) -> BuildState:
    if release.is_ready:
        return BuildState("ready")
    job = _last_job(release)
    if job is None:
        return BuildState("requested")
    return BuildState(STATUS_OF_JOB[Status(job.status)], job.stage, job.percent, job.error)


def folder(release: Release) -> Path:
    """A ready release's files, where its row says."""
    return Path(settings.RELEASES_ROOT) / release.folder / release.name


def archive(release: Release) -> Path:
    """A ready release's .zip, where its row says."""
    return Path(settings.RELEASES_ROOT) / release.folder / f"{release.name}.zip"


def file_names(release: Release) -> list[str]:
    """What may be downloaded: exactly what the manifest lists, and the manifest."""
    return [*sorted(release.manifest["files"]), "manifest.json"]


def comparable_releases(categories: list[str] | None = None) -> list[Release]:
    """The newest releases whose files there are, study by study; only those with these categories, if any are given."""
    ready = ready_releases().filter(withheld=False).defer("manifest")
    if categories is not None:
        ready = ready.filter(manifest__categories=categories)
    return sorted(ready.order_by("-requested_at")[:500], key=lambda release: (release.study.name, -release.version))
