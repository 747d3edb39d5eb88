"""`manage.py restore`: put a backup in the place of an empty installation, or of another one."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotations.management.progress import Bar
from elicit.backups import restoring
from elicit.backups.archive import BackupError
from elicit.backups.files import opened
from elicit.management.commands.backup import counting, summary


class Command(BaseCommand):
    help = "Restore what `manage.py backup` made. The site, its workers and its clock have to be stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="source", required=True, help="the backup, or - for a pipe")
        parser.add_argument("--replace", action="store_true", help="also where something is there, which then is gone")
        parser.add_argument(
            "--other-keys",
            action="store_true",
            help="also with other secret keys: the platform ids of the backup stay unreadable",
        )

    def handle(self, *, source: str, replace: bool, other_keys: bool, **options: Any) -> None:
        try:
            with opened(source) as (stream, size), Bar("restore", "B") as bar:
                backup = restoring.restore(
                    stream,
                    size=size,
                    replace=replace,
                    other_keys=other_keys,
                    say=self.stdout.write,
                    told=counting(bar, size),
                )
        except (BackupError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Restored. {summary(backup)}")
        if backup.facts["images"] == "bucket":
            self.stdout.write("Its images are in a bucket, which is backed up on its own.")
        for name in backup.facts["missing"]:
            self.stdout.write(f"Lost before the backup was made: {name}")
