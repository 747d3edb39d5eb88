"""`manage.py import_images`: images of any kind into the database."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.text import slugify

from annotations.management.progress import Bar
from annotations.models import Dataset
from annotations.services import images
from annotations.services.images import Problems, ProblemsFound
from elicit import archives, folders
from elicit.archives import Split
from elicit.folders import Part, Table
from elicit.labels.errors import Refusal

CIFAR = "cifar100"
SHOWN = 20


class Command(BaseCommand):
    help = (
        "Import images from PATH: a folder, a zip or a tar, with categories from its folders, from metadata.csv, or as "
        "--labels or --categories say; or CIFAR-100, if PATH is its official archive or the word cifar100, which "
        "downloads it. CIFAR-10 has import_cifar10. docs/how-to/datasets.md shows the layouts."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", help=f"a folder, a zip, a tar, or `{CIFAR}`")
        parser.add_argument("--name", required=True, help="what the dataset is called")
        parser.add_argument("--labels", help="a CSV or .jsonl with file_name and label, or a column for each category")
        parser.add_argument("--categories", default="", help="their names in order, separated by commas")
        parser.add_argument("--split", choices=["all", "train", "validation", "test"], default="all")
        parser.add_argument(
            "--skip-problems", action="store_true", help="import the good images and leave the others out"
        )

    def handle(
        self,
        *,
        path: str,
        name: str,
        labels: str | None,
        categories: str,
        split: str,
        skip_problems: bool,
        **_: Any,
    ) -> None:
        slug = slugify(name)[:50]
        if not slug:
            raise CommandError("--name needs a letter or a digit.")
        row = Dataset.objects.filter(slug=slug).first()
        if row is not None and row.ready_at is not None:
            raise CommandError(f"There is a dataset {slug} already, with {row.images.count():,} images.")
        row = row or Dataset(slug=slug, name=name)
        try:
            if _is_cifar(path):
                count, problems = self._cifar(row, path, split), Problems()
            else:
                with Bar("import", " images") as bar:
                    count, problems = images.fill_from_files(
                        row,
                        folders.open_source(Path(path).expanduser()),
                        part=cast("Part", split),
                        categories=[each for each in categories.split(",") if each.strip()],
                        labels=_table(labels),
                        skip_problems=skip_problems,
                        progress=bar.show,
                    )
        except ProblemsFound as found:
            self._tell(found.problems)
            raise CommandError(
                f"{found.message} Mend them, or import the {found.good:,} good ones with --skip-problems."
            ) from found
        except Refusal as error:
            raise CommandError(error.message) from error
        self._tell(problems)
        left_out = f" {problems.count:,} left out." if problems.count else ""
        self.stdout.write(f"Imported {count:,} images into the dataset {slug}.{left_out}")

    def _cifar(self, row: Dataset, path: str, split: str) -> int:
        if split not in ("train", "test"):
            raise CommandError("CIFAR numbers its training and test images apart: say --split test or --split train.")
        with Bar("download", "B") as bar:
            archive, note = archives.find_images(path, settings.DOWNLOADS, progress=bar.show)
        self.stdout.write(note)
        with Bar("import", " images") as bar:
            return images.fill_dataset(row, archive, cast("Split", split), bar.count)

    def _tell(self, problems: Problems) -> None:
        for problem in problems.kept[:SHOWN]:
            self.stderr.write(str(problem))
        if problems.count > SHOWN:
            self.stderr.write(f"... and {problems.count - SHOWN:,} more")


def _is_cifar(path: str) -> bool:
    """Whether the path names or holds official CIFAR files."""
    if path == CIFAR:
        return True
    # Their own names tell: to look into every tar would unpack it twice.
    return Path(path).name.startswith(("cifar-10-", "cifar-100-"))


def _table(path: str | None) -> Table | None:
    if path is None:
        return None
    try:
        return Table(Path(path).name, Path(path).expanduser().read_bytes())
    except OSError as error:
        raise CommandError(f"{path} can't be read ({error.strerror}).") from error
