"""`manage.py import_responses`: a published study into the database."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from annotations.models import Dataset
from annotations.services.published import import_cifar10s
from elicit.labels import cifar10s
from elicit.labels.errors import Refusal

MOST_LINES = 20


class Command(BaseCommand):
    help = (
        "Import the responses of a published study, CIFAR-10S's raw table, as a closed study: all of them or none. It "
        "can be looked at in the console and released like any other."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the authors' raw CSV")
        parser.add_argument("--dataset", default="cifar10-test", help="slug of the dataset that the images are in")
        parser.add_argument("--name", default="CIFAR-10S, as published")
        parser.add_argument("--slug", default="", help="part of the study's address (default: from the name)")
        parser.add_argument("--repairs", type=Path, metavar="CSV", help="write every repair that was made")

    def handle(self, *, file: Path, dataset: str, name: str, slug: str, repairs: Path | None, **_: Any) -> None:
        row = Dataset.objects.filter(slug=dataset, ready_at__isnull=False).first()
        if row is None:
            raise CommandError(f"There is no dataset {dataset}: import one with `manage.py import_cifar10`.")
        try:
            raw, by_hand = cifar10s.read_raw(file)
            done = import_cifar10s(raw=raw, dataset=row, name=name, slug=slug, now=timezone.now(), by_hand=by_hand)
            made = [*by_hand, *done.repairs]
            if repairs:
                cifar10s.write_repairs(repairs, made)
        except Refusal as error:
            lines = [error.message, *[f"  {where}: {words}" for where, words in error.fields.items()]]
            raise CommandError("\n".join(lines[:MOST_LINES])) from error
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        self.stdout.write(
            f"Study {done.study.slug}: {done.sessions:,} sessions, {done.responses:,} responses, {len(made):,} repairs."
        )
