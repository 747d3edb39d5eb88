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
    return Release.objects.select_related("study", "requested_by")


def ready_releases() -> QuerySet[Release]:
    return releases().filter(ready_at__isnull=False)


def build_state(release: Release) -> BuildState:
    if release.is_ready:
        return BuildState("ready")
    job = Job.objects.filter(kind=BUILD_RELEASE, subject=str(release.pk)).order_by("-pk").first()
    if job is None:
        return BuildState("requested")
    return BuildState(STATUS_OF_JOB[Status(job.status)], job.stage, job.percent, job.error)


def folder(release: Release) -> Path:
    return Path(settings.RELEASES_ROOT) / release.name


def archive(release: Release) -> Path:
    return Path(settings.RELEASES_ROOT) / f"{release.name}.zip"


def file_names(release: Release) -> list[str]:
    """What may be downloaded: exactly what the manifest lists, and the manifest."""
    return [*sorted(release.manifest["files"]), "manifest.json"]
