"""Installations of a test's own, each with its folder and its database, driven by whole processes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import services

KEYS = {"ELICIT_SECRET_KEY": secrets.token_hex(32), "ELICIT_FIELD_KEYS": secrets.token_hex(32)}


@dataclass
class Site:
    """An installation of its own."""

    folder: Path
    database: str

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
        own = {"ELICIT_VAR": str(self.folder), **KEYS}
        if self.database:
            own["ELICIT_DATABASE_URL"] = self.database
        return {**kept, "PATH": os.pathsep.join([services.postgres_programs(), kept["PATH"]]), **own}

    def __call__(self, *commands: str) -> list[Any]:
        """Run commands of `tests.backed_up` in one process; what each said."""
        words = " + ".join(commands).split()
        done = subprocess.run(
            [sys.executable, "-m", "tests.backed_up", *words],
            cwd=services.ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.backed_up", *command],
            cwd=services.ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def manage(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=services.ROOT,
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            check=False,
        )

    def backup(self, target: Path) -> None:
        done = self.manage("backup", "--to", str(target))
        assert done.returncode == 0, done.stderr

    def restore(self, source: Path, *options: str) -> str:
        done = self.manage("restore", "--from", str(source), *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wipe(self) -> None:
        shutil.rmtree(self.folder)
        self.drop()
        self.create()

    def create(self) -> None:
        if self.database:
            services.new_database(os.environ["ELICIT_DATABASE_URL"], urlsplit(self.database).path.lstrip("/"))

    def sql(self, sql: str) -> None:
        """On its PostgreSQL."""
        services.execute(self.database, sql)

    def drop(self) -> None:
        if self.database:
            services.drop_database(os.environ["ELICIT_DATABASE_URL"], self.database)


class Sites:
    """Makes installations on one kind of database."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.made: list[Site] = []

    def __call__(self) -> Site:
        database = ""
        if self.kind == "postgresql":
            server = urlsplit(os.environ["ELICIT_DATABASE_URL"])
            database = server._replace(path=f"/backup_{secrets.token_hex(6)}").geturl()
        site = Site(self.folder / f"site-{len(self.made)}", database)
        site.create()
        self.made.append(site)
        return site
