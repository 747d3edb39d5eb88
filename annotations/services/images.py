"""Fill a dataset with images: all of them or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from annotations import image_store
from annotations.kinds import IMPORT_IMAGES
from annotations.models import Category, Dataset, Image, ImageImport
from elicit import archives
from elicit.archives import CIFAR10_CATEGORIES, Cifar10Archive, Split
from jobs import services as jobs
from jobs.models import Job

# CIFAR-10's published sizes, for the progress bar.
SPLIT_SIZES = {"test": 10_000, "train": 50_000}
ROWS_AT_ONCE = 1000


def fill_dataset(
    dataset: Dataset,
    archive: Cifar10Archive,
    split: Split,
    progress: Callable[[int], None],
) -> int:
    """Import one split of a CIFAR-10 archive into a dataset that has no images yet (saved or not).

    The files are written first: named by their content, they do no harm if the import breaks off. The rows follow in
    one transaction, so that a dataset is empty or complete. Returns the number of images;
    `progress` is called with the count so far.

    Raises:
        Refusal: the archive is broken or has no such split; the dataset stays empty.
    """
    rows: list[Image] = []
    for batch in archive.batches(split):
        for offset, (label, pixels) in enumerate(zip(batch.labels, batch.pixels, strict=True)):
            height, width, _ = pixels.shape
            rows.append(
                Image(
                    dataset=dataset,
                    index=batch.start + offset,
                    sha256=image_store.put(pixels),
                    width=width,
                    height=height,
                    reference=int(label),
                )
            )
            if len(rows) % 100 == 0:
                progress(len(rows))
    dataset.origin = archive.origin
    dataset.ready_at = timezone.now()
    with transaction.atomic():
        dataset.save()
        Category.objects.bulk_create(
            Category(dataset=dataset, index=index, name=name) for index, name in enumerate(CIFAR10_CATEGORIES)
        )
        Image.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)
    progress(len(rows))
    return len(rows)


@transaction.atomic
def request_import(*, dataset: Dataset, source: str, split: str, file: object = "") -> ImageImport:
    """Queue the import of images into a dataset."""
    wanted = ImageImport(dataset=dataset, source=source, split=split, file=file)
    wanted.full_clean()
    wanted.save()
    jobs.enqueue(IMPORT_IMAGES, wanted.pk)
    return wanted


def run_import(job: Job) -> None:
    """Do a requested import, reporting to its job."""
    wanted = ImageImport.objects.select_related("dataset").get(pk=job.subject)
    if wanted.dataset.ready_at is not None:
        return
    jobs.report(job, "finding the images")
    choice = wanted.file.path if wanted.source == ImageImport.Source.UPLOAD else str(wanted.source)
    archive, _ = archives.find_images(
        choice, settings.DOWNLOADS, progress=lambda done, total: jobs.report(job, "downloading", done, total or 0)
    )
    fill_dataset(
        wanted.dataset,
        archive,
        cast("Split", wanted.split),
        lambda done: jobs.report(job, "importing", done, SPLIT_SIZES[wanted.split]),
    )
    if wanted.file:
        Path(wanted.file.path).unlink(missing_ok=True)
