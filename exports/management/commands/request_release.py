"""`manage.py request_release`: ask for a release, and wait for the worker to build it."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotations import selectors as annotated
from elicit.labels.errors import Refusal
from exports import recipes, selectors, services


class Command(BaseCommand):
    help = "Ask for a release of a study's soft labels. A worker builds it; with --wait the command waits for that."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--study", required=True, metavar="SLUG")
        parser.add_argument(
            "--recipe",
            default="recommended",
            help="recommended (the default), published, or the slug of a label variety: t1|t2|tall-clamp|uniform|none",
        )
        parser.add_argument("--gamma", type=float, help="other than the recipe's")
        parser.add_argument("--pool", help="other than the recipe's: mean, median, log, reliability or confusion")
        parser.add_argument("--include-repeats", action="store_true")
        parser.add_argument("--leave-out-inconsistent", action="store_true")
        parser.add_argument(
            "--framing", choices=["others", "self"], default="", help="in a study that asks two questions: which one's"
        )
        parser.add_argument(
            "--wait",
            type=float,
            nargs="?",
            const=120.0,
            metavar="SECONDS",
            help="until it is built (120 s at most)",
        )

    def handle(self, *, study: str, wait: float | None, **options: Any) -> None:
        row = annotated.releasable_studies().filter(slug=study).first()
        if row is None:
            raise CommandError(f"There is no launched study {study}.")
        try:
            asked = recipes.recipe(
                options["recipe"],
                gamma=options["gamma"],
                pool=options["pool"],
                include_repeats=options["include_repeats"],
                leave_out_inconsistent=options["leave_out_inconsistent"],
                framing=options["framing"],
            )
            release = services.request_release(study_id=row.pk, recipe=asked, user=None)
        except (Refusal, ValueError) as error:
            raise CommandError(str(error)) from error
        if wait is None:
            self.stdout.write(f"Asked for {release.name}.")
            return
        deadline = time.monotonic() + wait
        while not release.is_ready:
            state = selectors.build_state(release)
            if state.status == "failed":
                raise CommandError(f"{release.name} could not be built: {state.error}")
            if time.monotonic() > deadline:
                raise CommandError(
                    f"{release.name} is still {state.status} after {wait:.0f} s. Is a worker running (`make run`)? "
                    "It will be built as soon as one is."
                )
            time.sleep(0.2)
            release.refresh_from_db()
        self.stdout.write(str(selectors.folder(release)))
