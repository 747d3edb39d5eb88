"""`manage.py import_cifar10`: CIFAR-10 images into the database."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from annotations.management.progress import Bar
from annotations.models import Dataset
from annotations.services import images
from elicit import archives
from elicit.archives import CIFAR10, Split
from elicit.labels.errors import Refusal


class Command(BaseCommand):
    help = (
        "Import CIFAR-10: from PATH (cifar-10-python.tar.gz, cifar-10-binary.tar.gz, their unpacked folders, or a "
        "folder of PNGs), the official download, or the twenty sample images. Without --source the first that can "
        "be had of download and sample."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--source", help="a path, `download` or `sample`")
        parser.add_argument("--split", choices=sorted(CIFAR10.sizes), default="test")
        parser.add_argument("--dataset", default="", help="slug of the dataset (default: cifar10-SPLIT)")

    def handle(self, *, source: str | None, split: Split, dataset: str, **_: Any) -> None:
        try:
            with Bar("download", "B") as bar:
                archive, note = archives.find_images(source, settings.DOWNLOADS, cifar=CIFAR10, progress=bar.show)
            slug = dataset or ("cifar10-sample" if archive.is_sample else f"cifar10-{split}")
            row = Dataset.objects.filter(slug=slug).first()
            if row is not None and row.ready_at is not None:
                self.stdout.write(f"{slug} has its {row.images.count():,} images already: {row.origin}.")
                return
            row = row or Dataset(slug=slug, name=f"CIFAR-10 {slug.removeprefix('cifar10-')} images")
            with Bar("import", " images") as bar:
                count = images.fill_dataset(row, archive, split, bar.count)
        except Refusal as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{note} Imported {count:,} into the dataset {slug}.")
