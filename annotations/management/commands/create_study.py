"""`manage.py create_study`: a study from a preset, launched if asked."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

import numpy as np
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotations.models import Assignment, Dataset, Language, Study
from annotations.presets import PRESETS
from annotations.services import choosing, studies
from elicit.labels.errors import Refusal

OVERRIDES = (
    "assignment",
    "labels_per_image",
    "images_per_session",
    "repeats_per_session",
    "least_labels",
    "settled_within",
    "budget_labels",
)


class Command(BaseCommand):
    help = "Make a study from a preset. A study that exists under the slug is left as it is."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument("--slug", default="", help="part of the link (default: from the name)")
        parser.add_argument("--dataset", default="cifar10-test", help="slug of the dataset")
        parser.add_argument("--preset", choices=sorted(PRESETS), default="cifar10s")
        parser.add_argument("--language", choices=sorted(filter(None, Language.values)), default="")
        parser.add_argument(
            "--assignment", choices=Assignment.values, help="how images are handed out (default: fixed batches)"
        )
        parser.add_argument("--labels-per-image", type=int, metavar="K")
        parser.add_argument("--least-labels", type=int, help="adaptive: of every image, before it may be settled")
        parser.add_argument("--settled-within", type=float, metavar="TV", help="adaptive: the stopping rule, 0 to 1")
        parser.add_argument("--budget-labels", type=int, help="one by one and adaptive: most labels in all")
        parser.add_argument("--images-per-session", type=int)
        parser.add_argument("--repeats-per-session", type=int)
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--images", type=_count, metavar="N", help="only the first N images (default: as the preset says)"
        )
        which.add_argument(
            "--batches",
            type=Path,
            metavar="FILE",
            help="JSON: batch number -> the image indices that it holds",
        )
        parser.add_argument("--launch", action="store_true", help="open it at once")
        parser.add_argument("--seed", type=int, help="for the draw of batches and their order")

    def handle(self, *, name: str, slug: str, launch: bool, seed: int | None, **options: Any) -> None:
        if slug and (study := Study.objects.filter(slug=slug).first()):
            self.stdout.write(f"The study {slug} is there already ({study.get_status_display()}).")
            return
        rng = np.random.default_rng(seed)
        overrides = {key: options[key] for key in OVERRIDES if options[key] is not None}
        try:
            with transaction.atomic():
                study = self._create(name, slug, overrides, options, rng)
                if launch:
                    study = studies.launch(study.pk, rng)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except Refusal as error:
            raise CommandError(error.message) from error
        images, batches = study.study_images.count(), study.batches.count()
        self.stdout.write(
            f"Study {study.slug} ({study.get_status_display()}): {images:,} images, "
            f"{study.labels_per_image} labels each, in {batches:,} {'batch' if batches == 1 else 'batches'}."
        )

    def _create(
        self,
        name: str,
        slug: str,
        overrides: dict[str, Any],
        options: dict[str, Any],
        rng: np.random.Generator,
    ) -> Study:
        dataset = Dataset.objects.filter(slug=options["dataset"]).first()
        if dataset is None:
            raise CommandError(f"There is no dataset {options['dataset']}: import one with `manage.py import_cifar10`.")
        study = studies.create_study(
            name=name,
            slug=slug,
            dataset=dataset,
            preset=(preset := PRESETS[options["preset"]]).in_language(options["language"]),
            overrides=overrides,
        )
        if options["batches"]:
            studies.choose_batches(study, _read_batches(options["batches"]))
        elif preset.images and options["images"] is None:
            studies.choose_images(study, choosing.at_random(dataset, preset.images, rng), rng)
        else:
            studies.choose_images(study, studies.images_of(dataset, options["images"]), rng)
        choosing.choose_practice(study, preset.practice, rng)
        return study


def _read_batches(path: Path) -> list[list[int]]:
    try:
        return studies.parse_batches(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not text in UTF-8.") from error


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ArgumentTypeError("at least 1")
    return number
