"""Datasets, how far their imports are, and what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models import Count, QuerySet

from annotations import image_store
from annotations.kinds import IMPORT_IMAGES
from annotations.models import Category, Consent, Dataset, Image, ImageImport, Study
from jobs.models import Job, Status

Phase = Literal["ready", "empty", "uploading", "busy", "problems", "failed"]
_PICTURE = re.compile(r"picture:([0-9a-f]{64})")


@dataclass(frozen=True)
class ImportState:
    """Where a dataset stands. `uploading`: a browser's folder has yet to come; `busy`: its job waits or runs;
    `problems`: files can't be taken and nothing was imported; `failed`: for the reason that the job gives."""

    phase: Phase
    wanted: ImageImport | None = None
    job: Job | None = None

    @property
    def words(self) -> str:
        match self.phase:
            case "uploading":
                return "waits for its folder"
            case "busy" if self.job is not None:
                percent = "" if self.job.percent is None else f" {self.job.percent} %"
                return f"{self.job.stage or 'waiting for a worker'}{percent}"
            case "problems" | "failed":
                return f"failed: {self.job.error if self.job else ''}"
            case phase:
                return phase


def import_job(wanted: ImageImport) -> Job | None:
    """The latest job of an import."""
    return Job.objects.filter(kind=IMPORT_IMAGES, subject=str(wanted.pk)).order_by("-pk").first()


def import_state(dataset: Dataset) -> ImportState:
    wanted = dataset.imports.order_by("-pk").first()
    job = import_job(wanted) if wanted else None
    if dataset.ready_at is not None:
        return ImportState("ready", wanted, job)
    if wanted is None:
        return ImportState("empty")
    if job is None:
        return ImportState("uploading" if wanted.source == ImageImport.Source.FOLDER else "empty", wanted)
    if job.status == Status.FAILED:
        return ImportState("problems" if wanted.problem_count else "failed", wanted, job)
    return ImportState("busy", wanted, job)


def images_by_category(dataset: Dataset) -> list[tuple[Category, int]]:
    """Every category with the number of images whose reference label it is."""
    counts = dict(
        dataset.images.exclude(reference=None)
        .values_list("reference")
        .annotate(Count("pk"))
        .values_list("reference", "pk__count")
    )
    return [(category, counts.get(category.index, 0)) for category in dataset.categories.all()]


def dataset_images(dataset: Dataset, category: int | None = None) -> QuerySet[Image]:
    """In their order; of one reference label where `category` is its index."""
    images = dataset.images.order_by("index")
    return images if category is None else images.filter(reference=category)


def mentioned_pictures(using: str = DEFAULT_DB_ALIAS) -> set[str]:
    """The hashes of all uploaded pictures that some study's texts show."""
    found: set[str] = set()
    models_with_texts: set[type[models.Model]] = {Study, Consent}
    # Whatever else belongs to a study's settings.
    models_with_texts.update(
        m for m in apps.get_app_config("annotations").get_models() if hasattr(m, "copied_with_study")
    )
    for model in models_with_texts:
        fields = [f for f in model._meta.concrete_fields if isinstance(f, models.TextField | models.JSONField)]
        for field in fields:
            # JSON may be searched as text in neither database alike.
            for value in model._default_manager.using(using).values_list(field.name, flat=True).distinct():
                text = value if isinstance(value, str) else json.dumps(value)
                found.update(_PICTURE.findall(text))
    return found


# For backups


def image_files(using: str) -> Iterator[str]:
    """The names in the image storage of what the rows of the database `using` show."""
    for sha256 in Image.objects.using(using).order_by().values_list("sha256", flat=True).distinct().iterator():
        yield image_store.file_name(sha256)
    yield from map(image_store.file_name, sorted(mentioned_pictures(using)))


def import_files(using: str) -> list[str]:
    """What imports that are not over are to read, below MEDIA_ROOT; for the parts of a browser's folder its name."""
    waiting = ImageImport.objects.using(using).filter(dataset__ready_at__isnull=True)
    files = [name for row in waiting.values_list("file", "labels") for name in row if name]
    sent = waiting.filter(source=ImageImport.Source.FOLDER).values_list("pk", flat=True)
    return [*files, *(f"incoming/{pk}/" for pk in sent)]
