"""Make a backup of a running site.

The database is copied first, as of one moment; then every file is taken hold of, so that whoever removes one meanwhile
takes nothing from the backup. A row is written after its files and goes before them: what a row of the copy names was
there at that moment, and is there still unless the row is gone by now. In that case it begins anew.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.contrib.auth.models import User
from django.db import DEFAULT_DB_ALIAS

from annotations.models import Dataset, Response, Session, Study
from elicit.backups import contents, databases, keys
from elicit.backups.archive import FORMAT, BackupError, Told, Writer
from elicit.labels.release_files.common import sync_directory
from exports.models import Release

TRIES = 5
COUNTED = {
    "accounts": User,
    "datasets": Dataset,
    "studies": Study,
    "sessions": Session,
    "responses": Response,
    "releases": Release,
}
# What is kept free beside the backup itself.
SPARE = 64 << 20
_WORK = "backup-work-"
_PART = ".elicit-backup-"
_NAME = re.compile(r"elicit-\d{8}T\d{6}Z\.tar")

Say = Callable[[str], None]


@dataclass
class Taken:
    """A copy of the database and names for all files, in a folder of their own; what the archive is written from."""

    facts: dict[str, Any]
    files: list[tuple[str, Path]]
    missing: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(path.stat().st_size for _, path in self.files)


def to_file(target: Path, *, keep: int | None = None, say: Say, progress: Callable[[int], Told]) -> Path:
    """Back up into `target`, or into a folder under a name with the time; where it lies, 0600 and on the disk for good.

    Args:
        keep: in a folder, how many of the backups there to keep; the oldest go once the new one is whole.
        progress: given the bytes in all, what hears of those that were written.

    Raises:
        BackupError: see `databases.copied`; there is something of that name; the disk is too small.
    """
    in_folder = target.is_dir()
    if keep is not None and not in_folder:
        raise BackupError("--keep counts the backups of a folder: give the folder to --to.")
    path = target / f"elicit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar" if in_folder else target
    if path.exists():
        raise BackupError(f"{path} is there already: choose another name.")
    if not path.parent.is_dir():
        raise BackupError(f"There is no folder {path.parent}.")
    _clear_killed(path.parent)
    with taken(say) as found:
        _refuse_small_disk(path.parent, found.total)
        with _whole_or_not_at_all(path) as file:
            _write(found, file, progress(found.total))
    if keep is not None:
        whole = sorted(each for each in path.parent.iterdir() if _NAME.fullmatch(each.name))
        for old in whole[: len(whole) - max(keep, 1)]:
            old.unlink()
            say(f"Removed {old.name}.")
    return path


def to_stream(stream: BinaryIO, *, say: Say, progress: Callable[[int], Told]) -> None:
    """Back up into a pipe. What comes out is whole only if this ends without an error."""
    with taken(say) as found:
        _write(found, stream, progress(found.total))
        stream.flush()


@contextmanager
def taken(say: Say) -> Iterator[Taken]:
    """The site as it is, until the block ends."""
    with alone(), tempfile.TemporaryDirectory(prefix=_WORK, dir=settings.VAR) as name:
        lost: list[str] = []
        for _ in range(TRIES):
            found = _take(Path(name), say)
            # What is missing twice was lost before; what is missing once may have been away for a moment.
            if found is not None and found.missing == lost:
                for missing in found.missing[:10]:
                    say(f"Lost before this backup, and not in it: {missing}")
                if len(found.missing) > 10:
                    say(f"... and {len(found.missing) - 10:,} more.")
                yield found
                return
            say("Files were removed meanwhile: looking again.")
            lost = found.missing if found else []
        raise BackupError("Files went while they were backed up, again and again: try later.")


def _take(folder: Path, say: Say) -> Taken | None:
    """None where something that the copy names may have gone before this had hold of it."""
    copy, held = folder / databases.file_name(), folder / "files"
    copy.unlink(missing_ok=True)
    shutil.rmtree(held, ignore_errors=True)
    started = datetime.now(UTC)
    copy.touch(0o600)
    say("Copying the database.")
    with databases.copied(copy) as using:
        named = contents.named(using)
        facts = _facts(using, started)
        say("Taking hold of the files.")
        found = contents.held(contents.kept(using), held)
    if not named <= contents.named(DEFAULT_DB_ALIAS):
        return None
    lost = sorted(name for name in named - found if not name.endswith("/"))
    facts["missing"] = lost
    files = [(copy.name, copy), *((name, held / name) for name in sorted(found))]
    return Taken(facts, files, lost)


def _facts(using: str, started: datetime) -> dict[str, Any]:
    return {
        "product": "elicit",
        "format": FORMAT,
        "version": version(),
        "made_at": started.isoformat(timespec="seconds"),
        "database": databases.kind(),
        "server": databases.server_version(),
        "client": databases.client_version(),
        "migrations": databases.applied_migrations(using),
        "counts": {name: model._default_manager.using(using).count() for name, model in COUNTED.items()},
        "images": "here" if contents.images_on_disk() else "bucket",
        "keys": keys.fingerprint(secrets.token_hex(16)),
    }


def _write(found: Taken, stream: BinaryIO, told: Told) -> None:
    writer = Writer(stream, found.facts, told)
    for name, path in found.files:
        writer.add(name, path)
    writer.close(keys.signature(writer.digest()))


def _refuse_small_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise BackupError(
            f"The disk of {folder} has {free >> 20:,} MB left, the backup needs {(needed + SPARE) >> 20:,} MB."
        )


@contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name once it is whole and on the disk."""
    part = path.with_name(f"{_PART}{secrets.token_hex(8)}")
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        with suppress(OSError):
            # For `_clear_killed`; not every disk for backups can do it.
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.rename(path)
            sync_directory(path.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def alone() -> Iterator[None]:
    """No other backup or restore of this site runs meanwhile; what killed ones left is removed.

    Raises:
        BackupError: one is under way.
    """
    with (settings.VAR / "backup-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError("Another backup or restore is under way.") from error
        for left in settings.VAR.glob(f"{_WORK}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _clear_killed(folder: Path) -> None:
    """Remove what backups into this folder left that were killed: those that run hold a lock."""
    for part in folder.glob(f"{_PART}*"):
        with suppress(OSError), part.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)


def version() -> str:
    """Of this program."""
    found = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text(encoding="utf-8"))
    return str(found["project"]["version"])
