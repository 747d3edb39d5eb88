"""The file that a backup is: a tar. Its first member says what it is, its last one lists all others with their sha256.

So it can be written into a pipe, read from one, and told from one that was cut short. No Django here.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

FACTS, MANIFEST = "backup.json", "manifest.json"
DATABASES = ("database.dump", "database.sqlite3")
FOLDERS = ("images", "releases", "training", "media")
# Raised when an older program could not restore what this one writes.
FORMAT = 1
CHUNK = 1 << 20
# backup.json and manifest.json are read as a whole: 200 bytes for each of ten million files.
MOST_JSON = 2 << 30
_PLAIN = re.compile(r"[^/\\\x00-\x1f]+(/[^/\\\x00-\x1f]+)*")

Told = Callable[[int], None]


class BackupError(Exception):
    """What stands in the way, in words for whoever backs up or restores."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was read: the facts of `backup.json`, and by name the bytes and sha256 of every file."""

    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    signature: str

    def digest(self) -> str:
        return digest(self.files)


class Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Writer:
    """Writes a backup into `stream`, which need not be seekable. Without `close` it is not whole, and can't be read.

    `told` hears of the bytes of every chunk.
    """

    def __init__(self, stream: Writable, facts: Mapping[str, Any], told: Told = lambda _: None) -> None:
        self._tar = tarfile.open(fileobj=_Counted(stream), mode="w:", format=tarfile.PAX_FORMAT, copybufsize=CHUNK)  # type: ignore[call-overload] # noqa: SIM115
        self._told = told
        self._files: dict[str, dict[str, Any]] = {}
        self._add_json(FACTS, facts)

    def add(self, name: str, path: Path) -> None:
        """The file as it lies there: one that changes meanwhile is none to keep.

        Raises:
            BackupError: it became shorter while it was read.
        """
        with path.open("rb") as file:
            entry = _entry(name, path.stat().st_size, path.stat().st_mtime)
            reading = _Hashing(file, entry.size, self._told)
            self._tar.addfile(entry, reading)
        self._files[name] = {"bytes": entry.size, "sha256": reading.sha256.hexdigest()}

    def digest(self) -> str:
        """Of all that was added so far."""
        return digest(self._files)

    def close(self, signature: str) -> None:
        """The last member, which makes the backup whole."""
        self._add_json(MANIFEST, {"files": self._files, "signature": signature})
        self._tar.close()

    def _add_json(self, name: str, content: Mapping[str, Any]) -> None:
        body = json.dumps(content, indent=1, sort_keys=True).encode()
        entry = _entry(name, len(body), time.time())
        reading = _Hashing(_Bytes(body), entry.size, self._told)
        self._tar.addfile(entry, reading)
        if name != MANIFEST:
            self._files[name] = {"bytes": entry.size, "sha256": reading.sha256.hexdigest()}


def read(
    stream: IO[bytes],
    *,
    into: Path | None = None,
    on_facts: Callable[[dict[str, Any]], None] = lambda _: None,
    told: Told = lambda _: None,
) -> Backup:
    """Read a backup from its first byte to its last, check every hash, and write the files below `into` if it is given.

    Args:
        on_facts: hears of `backup.json` before anything else is read; what it raises ends the reading.

    Raises:
        BackupError: this is no backup, it was cut short or is damaged: throw away what lies in `into` then.
    """
    try:
        # Not seekable, so that a pipe reads as a file does.
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
            found = _read(tar, into, on_facts, told)
            # tarfile takes what it can't read for the end: zeros to the last byte are one.
            while rest := stream.read(CHUNK):
                if rest.strip(b"\0"):
                    raise BackupError("There is more in the file than its manifest lists: it is damaged.")
            return found
    except (tarfile.TarError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BackupError("This is no backup, or a damaged one.") from error


def digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash for all of them, whatever their order."""
    lines = sorted(f"{each['sha256']} {each['bytes']} {name}\n" for name, each in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read(tar: tarfile.TarFile, into: Path | None, on_facts: Callable[[dict[str, Any]], None], told: Told) -> Backup:
    facts: dict[str, Any] | None = None
    seen: dict[str, dict[str, Any]] = {}
    for entry in tar:
        content = tar.extractfile(entry) if entry.isreg() else None
        if content is None or entry.name in seen:
            raise BackupError(f"{entry.name!r} has no place in a backup.")
        if facts is None:
            if entry.name != FACTS:
                raise BackupError("This is no backup: it does not begin as one.")
            body = _whole(content, entry.size)
            facts = json.loads(body)
            if not isinstance(facts, dict) or facts.get("product") != "elicit":
                raise BackupError("This is no backup of Elicit.")
            if facts.get("format") != FORMAT:
                raise BackupError(
                    f"The backup has format {facts.get('format')}, this version of Elicit reads {FORMAT}: "
                    f"it was made by version {facts.get('version')}."
                )
            on_facts(facts)
            seen[FACTS] = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        elif entry.name == MANIFEST:
            manifest = json.loads(_whole(content, entry.size))
            return _compared(facts, manifest, seen)
        else:
            _refuse_odd_name(entry.name)
            seen[entry.name] = _taken(content, entry, into, told)
    raise BackupError("The backup is not whole: it ends before its manifest.")


def _compared(facts: dict[str, Any], manifest: Any, seen: dict[str, dict[str, Any]]) -> Backup:
    if not isinstance(manifest, dict) or not isinstance(listed := manifest.get("files"), dict):
        raise BackupError("The backup's manifest is damaged.")
    wrong = sorted(name for name in listed.keys() | seen.keys() if listed.get(name) != seen.get(name))
    if wrong:
        more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise BackupError(f"The backup is damaged: {wrong[0]} is not what its manifest says{more}.")
    if not any(name in listed for name in DATABASES):
        raise BackupError("The backup holds no database.")
    return Backup(facts, listed, str(manifest.get("signature", "")))


def _refuse_odd_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    inside = len(parts) > 1 and parts[0] in FOLDERS and not {".", ".."} & set(parts)
    if not _PLAIN.fullmatch(name) or not (inside or name in DATABASES):
        raise BackupError(f"{name!r} has no place in a backup.")


def _taken(content: IO[bytes], entry: tarfile.TarInfo, into: Path | None, told: Told) -> dict[str, Any]:
    reading = _Hashing(content, entry.size, told)
    if into is None:
        while reading.read(CHUNK):
            pass
    else:
        path = into / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while chunk := reading.read(CHUNK):
                file.write(chunk)
    return {"bytes": reading.count, "sha256": reading.sha256.hexdigest()}


def _whole(content: IO[bytes], size: int) -> bytes:
    if size > MOST_JSON:
        raise BackupError("This is no backup, or a damaged one.")
    return content.read()


def _entry(name: str, size: int, changed: float) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, int(changed), 0o600
    return entry


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


class _Bytes:
    def __init__(self, body: bytes) -> None:
        self._left = body

    def read(self, size: int = -1) -> bytes:
        size = len(self._left) if size < 0 else size
        chunk, self._left = self._left[:size], self._left[size:]
        return chunk


class _Hashing:
    """Passes on so many bytes, and hashes them."""

    def __init__(self, source: _Readable, size: int, told: Told) -> None:
        self._source, self._size, self._told = source, size, told
        self.sha256, self.count = hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self.count
        chunk = self._source.read(left if size < 0 else min(size, left))
        if not chunk and left:
            raise BackupError("A file ended before its time.")
        self.sha256.update(chunk)
        self.count += len(chunk)
        self._told(len(chunk))
        return chunk


class _Counted:
    """What tarfile asks of a file that it writes, for a pipe too."""

    def __init__(self, stream: Writable) -> None:
        self._stream, self._at = stream, 0

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at
