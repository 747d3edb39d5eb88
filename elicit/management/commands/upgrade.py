"""`manage.py upgrade`: the migrations that are missing, while the site goes on."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from psycopg2.errors import LockNotAvailable

# Between two tries others have the table.
PAUSE = 2.0


class Command(BaseCommand):
    help = (
        "Apply missing migrations. One that would have to wait for others at a table gives up soon, lets them through "
        "and tries again, rather than have everybody else queue up behind it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--lock-seconds", type=float, default=3.0, help="how long the site may have to wait")
        parser.add_argument("--patience", type=float, default=300.0, help="for how many seconds to try again")

    def handle(self, *, lock_seconds: float, patience: float, **options: Any) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                if connection.vendor == "postgresql":
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{lock_seconds * 1000:.0f}ms"])
                call_command("migrate", interactive=False, verbosity=options["verbosity"], stdout=self.stdout)
                return
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    raise
                if time.monotonic() > deadline:
                    raise CommandError(
                        "Somebody holds a table that a migration needs: a long query, a backup, or a transaction that "
                        "was left open (pg_stat_activity shows it). What was applied so far stays; run this again."
                    ) from error
                # A migration whose last statements fail leaves its transaction open: nothing of it may hold the table.
                connection.close()
                del connections[DEFAULT_DB_ALIAS]
                self.stderr.write("A table is in use: letting the others through, then trying again.")
                time.sleep(PAUSE)
