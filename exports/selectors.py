"""All reads of releases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db.models import Count, Q, QuerySet

from exports.kinds import BUILD_RELEASE, TRAIN
from exports.models import Release, TrainingRun
from jobs.models import UNFINISHED, Job, Status


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


@dataclass(frozen=True)
class UnderWay:
    """A release that is `requested` or `building`, and since when it stands at this stage."""

    study: str
    version: int
    status: str
    stage: str
    since: datetime


def under_way() -> list[UnderWay]:
    """Of all studies, by the jobs that are not finished."""
    jobs = {job.subject: job for job in Job.objects.filter(kind=BUILD_RELEASE, status__in=UNFINISHED)}
    releases = Release.objects.filter(ready_at__isnull=True, pk__in=[int(pk) for pk in jobs])
    return [
        UnderWay(slug, version, STATUS_OF_JOB[Status(job.status)], job.stage, job.stage_at or job.created_at)
        for pk, slug, version in releases.values_list("pk", "study__slug", "version")
        for job in [jobs[str(pk)]]
    ]


def releases_by_status() -> dict[str, int]:
    """How many are `requested`, `building`, `failed`, `ready`, `superseded` or `withheld`; each is counted once."""
    ready, superseded = Q(ready_at__isnull=False), Q(superseded_at__isnull=False)
    counted: dict[str, int] = Release.objects.aggregate(
        ready=Count("pk", filter=ready & ~superseded),
        superseded=Count("pk", filter=ready & superseded & Q(withheld=False)),
        withheld=Count("pk", filter=ready & Q(withheld=True)),
        failed=Count("pk", filter=~ready),
    )
    counted |= {"requested": 0, "building": 0}
    for each in under_way():
        counted[each.status] += 1
        counted["failed"] -= 1
    return counted


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


# Training


@dataclass(frozen=True)
class TrainingState:
    """How a training run stands: `waiting`, `training`, `finished`, `failed`, `cancelled` or `withheld`; how far, in
    words and per cent; what went wrong; and since when it stands there."""

    status: str
    stage: str = ""
    percent: int | None = None
    error: str = ""
    since: datetime | None = None

    @property
    def is_over(self) -> bool:
        return self.status not in {"waiting", "training"}


STATUS_OF_TRAINING = {
    Status.QUEUED: "waiting",
    Status.RUNNING: "training",
    Status.DONE: "waiting",
    Status.FAILED: "failed",
}


def training_runs() -> QuerySet[TrainingRun]:
    return TrainingRun.objects.select_related("release__study", "requested_by", "cancelled_by").prefetch_related(
        "others__study"
    )


def training_runs_of(release: Release) -> QuerySet[TrainingRun]:
    """Those that were trained on its labels, its own run or another's."""
    return TrainingRun.objects.filter(Q(release=release) | Q(others=release)).distinct()


def training_job(run: TrainingRun) -> Job | None:
    """The last job that was to do it."""
    return Job.objects.filter(kind=TRAIN, subject=str(run.pk)).order_by("-pk").first()


def training_state(run: TrainingRun) -> TrainingState:
    if run.withheld_reason:
        return TrainingState("withheld", error=run.withheld_reason)
    if run.finished_at:
        return TrainingState("finished", since=run.finished_at)
    if run.cancelled_at:
        return TrainingState("cancelled", since=run.cancelled_at)
    job = training_job(run)
    if job is None:
        return TrainingState("waiting", since=run.requested_at)
    return TrainingState(
        STATUS_OF_TRAINING[Status(job.status)], job.stage, job.percent, job.error, job.finished_at or job.created_at
    )


def is_at_work(run: TrainingRun) -> bool:
    """Whether a worker has it, or is to take it."""
    return Job.objects.filter(kind=TRAIN, subject=str(run.pk), status__in=[Status.QUEUED, Status.RUNNING]).exists()


def is_wanted(pk: int) -> bool:
    """Whether the run is there, and neither cancelled nor withheld."""
    return TrainingRun.objects.filter(pk=pk, cancelled_at__isnull=True, withheld_reason="").exists()


def may_keep_files(pk: int | str) -> bool:
    """Whether the run is there, and its releases are given out."""
    return TrainingRun.objects.filter(pk=pk, withheld_reason="").exists()


def training_folder(pk: int | str) -> Path:
    """All that a run's worker and its child write."""
    return Path(settings.TRAINING_ROOT) / str(pk)


def training_output(run: TrainingRun) -> Path:
    """Where its report lies."""
    return training_folder(run.pk) / "output"


def trainable_releases() -> QuerySet[Release]:
    """The releases whose labels can be trained on: whose files there are, and are given out."""
    return ready_releases().filter(withheld=False).order_by("-requested_at")


def comparable_in_training(release: Release) -> list[Release]:
    """Releases of the same images and categories, which networks can be compared on."""
    return [
        other
        for other in comparable_releases(release.manifest["categories"])
        if other.pk != release.pk and other.study.dataset_id == release.study.dataset_id
    ]


# For backups


def release_files(using: str) -> Iterator[str]:
    """All files of the releases that the database `using` has ready, below RELEASES_ROOT; none of what is withheld."""
    root = Path(settings.RELEASES_ROOT)
    for release in Release.objects.using(using).select_related("study").filter(ready_at__isnull=False, withheld=False):
        paths = [folder(release) / name for name in file_names(release)]
        yield from (path.relative_to(root).as_posix() for path in [*paths, archive(release)])


def training_files(using: str) -> Iterator[str]:
    """The reports of finished training runs, below TRAINING_ROOT: each lies in a folder with its figures."""
    finished = TrainingRun.objects.using(using).filter(finished_at__isnull=False, withheld_reason="")
    root = Path(settings.TRAINING_ROOT)
    for run in finished:
        yield (training_output(run) / "result.json").relative_to(root).as_posix()
