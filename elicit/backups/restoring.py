"""Put a backup in the place of what is there.

Everything is unpacked beside the site and checked before anything changes. Then the database is loaded in a
transaction, the files are moved in, and the transaction ends: a restore that is killed leaves the old database, or the
new one with its files, and can be run again either way.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.utils import timezone

from annotations.errors import AnnotationError
from annotations.models import Dataset, Session, SessionStatus
from annotations.services import leaving
from elicit.backups import archive, contents, databases, keys
from elicit.backups.archive import Backup, BackupError, Told
from elicit.backups.making import COUNTED, SPARE, Say, alone, version
from exports import building

# There from the first change until the last: whoever finds it goes on.
_UNDER_WAY = "restore-under-way.json"
_STAGE = "backup-work-restore-"


def restore(
    stream: IO[bytes],
    *,
    size: int | None,
    replace: bool = False,
    other_keys: bool = False,
    say: Say,
    told: Told,
) -> Backup:
    """Restore what `stream` holds, `size` bytes where that is known.

    Args:
        replace: also where there is something already, which then is gone.
        other_keys: also where the secret keys are others than those with which the backup was made.

    Raises:
        BackupError: it can't be. Unless it says otherwise nothing was changed.
    """
    with alone():
        # Of a restore that was killed after it had begun to change things.
        begun = _begun()
        _refuse_in_use()
        if not replace and begun is None:
            _refuse_non_empty()
        if size is not None:
            _refuse_small_disk(size)
        with tempfile.TemporaryDirectory(prefix=_STAGE, dir=settings.VAR) as name:
            stage = Path(name)
            say("Unpacking and checking the backup.")
            backup = archive.read(stream, into=stage, on_facts=lambda facts: _check(facts, other_keys), told=told)
            if not other_keys:
                keys.check_signature(backup)
            withdrawn = sorted({*_withdrawn(), *(begun or ())})
            _begin(withdrawn)
            _put_in_place(backup, stage, say)
        _finish(backup, withdrawn, say)
        (settings.VAR / _UNDER_WAY).unlink()
    return backup


def verify(stream: IO[bytes], *, told: Told) -> Backup:
    """Read a backup to its end and check it, by its signature too where the keys are here.

    Raises:
        BackupError: it is damaged, cut short or changed.
    """
    backup = archive.read(stream, told=told)
    if "ELICIT_SECRET_KEY" not in keys.missing(backup.facts.get("keys", {})):
        keys.check_signature(backup)
    return backup


# Before anything changes


def _check(facts: dict[str, Any], other_keys: bool) -> None:
    """Whether this installation can take such a backup."""
    if (kind := databases.kind()) != facts["database"]:
        raise BackupError(f"The backup is of a site on {facts['database']}, this one is on {kind}: set the same.")
    if unknown := databases.unknown_migrations(facts["migrations"]):
        raise BackupError(
            f"The backup was made by a newer Elicit ({facts['version']}; this is {version()}), whose database has "
            f"{unknown[-1]}: install that version first."
        )
    if (here := databases.server_version()) < facts["server"]:
        raise BackupError(f"The backup is of PostgreSQL {facts['server']}, the server here is {here}: use a newer one.")
    databases.refuse_old_programs(facts["client"])
    if other_keys:
        return
    if lacking := keys.missing(facts["keys"]):
        raise BackupError(
            f"These are not the keys with which this backup was made: {' and '.join(lacking)}. Set those of then, or "
            "put the files secret-key and field-keys back into ELICIT_VAR. Where they are lost, --other-keys restores "
            "all the same: platform ids stay unreadable, reset_two_factor lets people in, and everybody is signed out."
        )


def _refuse_in_use() -> None:
    try:
        others = databases.others_connected()
    except DatabaseError as error:
        raise BackupError(f"The database does not answer: {str(error).strip().splitlines()[0]}") from error
    if others:
        raise BackupError(
            f"Somebody else is connected to the database ({others}): stop the site, its workers and its clock first."
        )


def _refuse_non_empty() -> None:
    tables = connections[DEFAULT_DB_ALIAS].introspection.table_names()
    rows = any(model._meta.db_table in tables and model._default_manager.exists() for model in (User, Dataset))
    if rows or contents.anything_there():
        raise BackupError("This installation is not empty. --replace puts the backup in its place; nothing else stays.")


def _refuse_small_disk(size: int) -> None:
    free = shutil.disk_usage(settings.VAR).free
    if free < size + SPARE:
        raise BackupError(
            f"The disk of {settings.VAR} has {free >> 20:,} MB left, unpacking needs {(size + SPARE) >> 20:,} MB."
        )


def _withdrawn() -> list[str]:
    """The sessions that the database which is to go knows as withdrawn: what they gave must not come back."""
    try:
        found = Session.objects.filter(status=SessionStatus.WITHDRAWN).values_list("pk", flat=True)
        return [str(pk) for pk in found]
    except DatabaseError:
        # No such table, or not as this version knows it.
        return []


def _begun() -> list[str] | None:
    try:
        return list(json.loads((settings.VAR / _UNDER_WAY).read_text(encoding="utf-8"))["withdrawn"])
    except FileNotFoundError:
        return None


def _begin(withdrawn: list[str]) -> None:
    path = settings.VAR / _UNDER_WAY
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"withdrawn": withdrawn}), encoding="utf-8")
    part.replace(path)


# The change


def _put_in_place(backup: Backup, stage: Path, say: Say) -> None:
    places = contents.roots()
    skipped = [name for name in backup.files if name.startswith("images/") and "images" not in places]
    if skipped:
        say(f"Images are in a bucket here: the {len(skipped):,} of the backup are left out.")
    say("Loading the database.")
    with databases.loaded(stage / databases.file_name(), backup.facts["client"]):
        for root in places.values():
            _remove_links(root)
        for name in backup.files:
            folder, _, rest = name.partition("/")
            if rest and folder in places:
                _move(stage / name, places[folder] / rest)
        # The rows must not be there before the files are, whatever happens to the machine.
        os.sync()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A disk of its own.
        part = target.with_name(f".restoring-{target.name}")
        shutil.copyfile(source, part)
        part.replace(target)


def _remove_links(root: Path) -> None:
    """Names for people, which lead to what is about to go."""
    with suppress(FileNotFoundError):
        for path in root.iterdir():
            if path.is_symlink():
                path.unlink()


def _finish(backup: Backup, withdrawn: list[str], say: Say) -> None:
    """What follows from the database that is there now."""
    contents.remove_all_but(set(backup.files))
    call_command("migrate", interactive=False, verbosity=0)
    building.settle_all()
    again = sum(map(_withdraw_again, withdrawn))
    if again:
        say(f"Erased again: {again} who withdrew after the backup was made.")
    counts = {name: model._default_manager.count() for name, model in COUNTED.items()}
    if not again and counts != backup.facts["counts"]:
        raise BackupError(f"The database was restored, but it has {counts} and not {backup.facts['counts']}.")


def _withdraw_again(session: str) -> bool:
    try:
        leaving.withdraw(session_id=UUID(session), now=timezone.now())
    except (AnnotationError, Session.DoesNotExist):
        # Withdrawn before the backup too; or it began after that, and is not there.
        return False
    return True
