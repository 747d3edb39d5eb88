"""Take a copy of the whole database while the site writes to it, and put one back.

PostgreSQL by its own programs, which have to be as new as the server; SQLite by its online backup. Passwords go to the
programs in their environment.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from psycopg2.extensions import make_dsn

from elicit.backups.archive import CHUNK, BackupError

# Of a connection's options those that are Django's own.
_DJANGO_S = {"assume_role", "isolation_level", "pool", "server_side_binding"}
_LOADED = "elicit: loaded"
PROGRAM_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/*/bin", "usr/local/opt/*/bin")


def kind() -> str:
    """`postgresql` or `sqlite`."""
    return connection.vendor


def file_name() -> str:
    """Of the copy, in an archive."""
    return "database.sqlite3" if kind() == "sqlite" else "database.dump"


def server_version() -> int:
    """PostgreSQL's major version; 0 for SQLite, whose files every version reads."""
    return int(cast("Any", connection).pg_version) // 10_000 if kind() == "postgresql" else 0


def client_version() -> int:
    """The major version of the pg_dump that makes copies here; 0 for SQLite. BackupError as `program`."""
    return _version_of(program("pg_dump", server_version())) or 0 if kind() == "postgresql" else 0


def refuse_old_programs(made_by: int) -> None:
    """Raise BackupError where a copy that this version of pg_dump made can't be loaded."""
    if kind() == "postgresql":
        _programs_to_load(made_by)


def applied_migrations(using: str) -> list[list[str]]:
    return sorted([app, name] for app, name in MigrationRecorder(connections[using]).applied_migrations())


def unknown_migrations(applied: Sequence[Sequence[str]]) -> list[str]:
    """Those that this version of the code doesn't have: the database is of a newer one."""
    loader = MigrationLoader(None)
    # What a squashed migration replaces may stand in the table under its old name.
    known = {key for migration in loader.disk_migrations.values() for key in migration.replaces}
    known |= set(loader.disk_migrations)
    return [f"{app}.{name}" for app, name in applied if (app, name) not in known]


@contextmanager
def copied(to: Path) -> Iterator[str]:
    """Copy the database into the file `to`; inside the block the alias that is given reads what the copy holds.

    Raises:
        BackupError: a program is missing or too old, or the copy failed.
    """
    if kind() == "sqlite":
        _copy_sqlite(Path(connection.settings_dict["NAME"]), to)
        _make_one_file(to)
        with _opened(to) as alias:
            yield alias
        return
    pg_dump = program("pg_dump", server_version())
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SELECT pg_export_snapshot()")
        (snapshot,) = cursor.fetchone()
        words = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--file={to}"]
        _run([pg_dump, *words, f"--dbname={_address()}", "--no-password"])
        yield DEFAULT_DB_ALIAS


@contextmanager
def loaded(copy: Path, made_by: int) -> Iterator[None]:
    """Put the copy in the place of the database that is there: whole, once the block ends; or not at all.

    Args:
        made_by: the major version of the pg_dump that made the copy.

    Raises:
        BackupError: it can't be; the database is as it was.
    """
    if kind() == "sqlite":
        yield
        connections.close_all()
        _copy_sqlite(copy, Path(connection.settings_dict["NAME"]))
        return
    programs = _programs_to_load(made_by)
    emptied = _emptied()
    connections.close_all()
    with _Load(copy, *programs) as load:
        load.send(f"BEGIN;\n{emptied}".encode())
        load.send_dump()
        yield
        load.send(b"COMMIT;\n")


def others_connected() -> int:
    """How many other connections the database has; 0 for SQLite, which doesn't tell."""
    if kind() == "sqlite":
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return int(cursor.fetchone()[0])


# SQLite


def _copy_sqlite(source: Path, target: Path) -> None:
    """In one step: in small ones, each write of the site would begin it anew. The site goes on writing meanwhile."""
    try:
        with closing(sqlite3.connect(source, timeout=60)) as ours, closing(sqlite3.connect(target, timeout=60)) as copy:
            ours.backup(copy)
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"SQLite: {error}.") from error
    if found != "ok":
        raise BackupError(f"SQLite: the database is damaged ({found}).")


def _make_one_file(path: Path) -> None:
    """Without a write-ahead log beside it; the site's next connection turns that on again."""
    with closing(sqlite3.connect(path)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def _opened(path: Path) -> Iterator[str]:
    alias = "copy"
    connections.settings[alias] = {**connections.settings[DEFAULT_DB_ALIAS], "NAME": str(path), "OPTIONS": {}}
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


# PostgreSQL


def _emptied() -> str:
    """SQL that drops all tables and functions: not the schema, which may be somebody else's to drop."""
    tables = [connection.ops.quote_name(name) for name in connection.introspection.table_names()]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace "
            "AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')"
        )
        routines = [row[0] for row in cursor.fetchall()]
    drops = [*(f"TABLE {table}" for table in tables), *(f"ROUTINE {routine}" for routine in routines)]
    return "".join(f"DROP {each} CASCADE;\n" for each in drops)


def _address() -> str:
    """For libpq, without the password."""
    here = connection.settings_dict
    options = {name: value for name, value in here["OPTIONS"].items() if name not in _DJANGO_S}
    who = {"dbname": here["NAME"], "user": here["USER"], "host": here["HOST"], "port": here["PORT"]}
    return str(make_dsn(**{name: value for name, value in {**options, **who}.items() if value}))


def _environment() -> dict[str, str]:
    password = connection.settings_dict["PASSWORD"]
    return {**os.environ, **({"PGPASSWORD": password} if password else {})}


def _programs_to_load(made_by: int) -> tuple[Path, Path]:
    return program("pg_restore", max(server_version(), made_by)), program("psql", server_version())


def program(name: str, least: int) -> Path:
    """The program of that name and of the major version `least`, or of the next newer one there is.

    Raises:
        BackupError: it is not there, or too old; says what to install.
    """
    found: dict[int, Path] = {}
    on_path = shutil.which(name)
    here = [Path(on_path)] if on_path else []
    for path in [*here, *(each / name for pattern in PROGRAM_FOLDERS for each in Path("/").glob(pattern))]:
        if version := _version_of(path):
            found.setdefault(version, path)
    package = f"postgresql-client-{least}"
    if not found:
        raise BackupError(
            f"The program {name} was not found: install PostgreSQL's client programs "
            f"(Debian, Ubuntu: apt-get install {package}; macOS: brew install libpq)."
        )
    if max(found) < least:
        raise BackupError(
            f"{name} is of version {max(found)} here ({found[max(found)]}), and {least} is needed: install {package}, "
            "or run this where the client programs are as new as the server."
        )
    return found[min(version for version in found if version >= least)]


def _version_of(path: Path) -> int | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(match[1]) if match else None


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupError(f"{Path(command[0]).name}: {_last_line(done.stderr)}")
    return done.stdout


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # The first error; what follows it are its consequences.
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it failed")


class _Load:
    """psql, in a transaction of ours: whatever breaks off before COMMIT changes nothing."""

    def __init__(self, dump: Path, pg_restore: Path, psql: Path) -> None:
        self._dump, self._pg_restore = dump, pg_restore
        self._older = 0 if server_version() >= 17 else 1
        words = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--output={os.devnull}", "--no-password"]
        self._command: list[str | Path] = [psql, *words, f"--dbname={_address()}", "--file=-"]

    def __enter__(self) -> _Load:
        self._said: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._psql = subprocess.Popen(
            self._command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        self._in, self._out = cast("IO[bytes]", self._psql.stdin), cast("IO[bytes]", self._psql.stdout)
        return self

    def send(self, sql: bytes) -> None:
        try:
            self._in.write(sql)
            self._in.flush()
        except BrokenPipeError:
            self._failed()

    def send_dump(self) -> None:
        """All of it, and wait until the server has taken it."""
        words: list[str | Path] = [
            self._pg_restore,
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--file=-",
            self._dump,
        ]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
            out, errors = cast("IO[bytes]", reading.stdout), cast("IO[bytes]", reading.stderr)
            try:
                while sql := out.read(CHUNK):
                    # Programs from 17 on say it to older servers too, which don't know it.
                    self.send(sql.replace(b"\nSET transaction_timeout = 0;\n", b"\n", self._older))
                    self._older = 0
            except BaseException:
                reading.kill()
                raise
            said = errors.read().decode(errors="replace")
        if reading.returncode:
            raise BackupError(f"pg_restore: {_last_line(said)}")
        self.send(f"\\echo {_LOADED}\n".encode())
        for line in self._out:
            if line.decode(errors="replace").strip() == _LOADED:
                return
        self._failed()

    def __exit__(self, wrong: type[BaseException] | None, *_: Any) -> None:
        try:
            if wrong:
                self._psql.kill()
            with suppress(BrokenPipeError):
                self._in.close()
            self._psql.wait()
            if not wrong and self._psql.returncode:
                self._failed()
        finally:
            self._out.close()
            self._said.close()

    def _failed(self) -> None:
        self._psql.wait()
        self._said.seek(0)
        raise BackupError(f"psql: {_last_line(self._said.read())}")
