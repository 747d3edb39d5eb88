"""`manage.py backup`: the database and its files in one archive, of a site that goes on running."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotations.management.progress import Bar
from elicit.backups import keys, making, restoring
from elicit.backups.archive import Backup, BackupError, Told
from elicit.backups.files import opened


class Command(BaseCommand):
    help = (
        "Back up the database, images, releases and training results of the running site. The secret keys are not in "
        "it: docs/how-to/back-up.md says how to keep them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--to", help="a folder, a new file, or - for a pipe")
        what.add_argument("--verify", help="a backup to check, or - for a pipe: nothing is restored")
        parser.add_argument("--keep", type=int, help="of the backups in the folder, keep so many")

    def handle(self, *, to: str | None, verify: str | None, keep: int | None, **options: Any) -> None:
        if keep is not None and keep < 1:
            raise CommandError("--keep: write 1 or more.")
        try:
            if verify is not None:
                self._verify(verify)
            elif to == "-":
                self._into_pipe(keep)
            else:
                self._into_file(Path(str(to)), keep)
        except BackupError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup failed, and nothing is left of it: {error}.") from error

    def _into_file(self, target: Path, keep: int | None) -> None:
        with Bar("backup", "B") as bar:
            path = making.to_file(target, keep=keep, say=self.stdout.write, progress=lambda total: counting(bar, total))
        self.stdout.write(f"Backed up into {path}, {path.stat().st_size / 1e6:,.1f} MB.")

    def _into_pipe(self, keep: int | None) -> None:
        if keep is not None:
            raise CommandError("--keep counts the backups of a folder.")
        if sys.stdout.isatty():
            raise CommandError("This is a terminal: lead it somewhere, as in `... --to - > backup.tar`.")
        with Bar("backup", "B") as bar:
            making.to_stream(sys.stdout.buffer, say=self.stderr.write, progress=lambda total: counting(bar, total))

    def _verify(self, source: str) -> None:
        with opened(source) as (stream, size), Bar("verify", "B") as bar:
            backup = restoring.verify(stream, told=counting(bar, size))
        self.stdout.write(f"{summary(backup)} All {len(backup.files):,} files are as they were.")
        if lacking := keys.missing(backup.facts["keys"]):
            self.stdout.write(f"But the keys here are others than its own: {' and '.join(lacking)}.")
        for name in backup.facts["missing"]:
            self.stdout.write(f"Lost before it was made, and not in it: {name}")


def summary(backup: Backup) -> str:
    """What it is, in a sentence."""
    facts = backup.facts
    counts = ", ".join(f"{count:,} {name}" for name, count in facts["counts"].items())
    return f"Made at {facts['made_at']} by Elicit {facts['version']} on {facts['database']}: {counts}."


def counting(bar: Bar, total: int | None) -> Told:
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        bar.show(done, total)

    return told
