"""Names and small tools that the parts of this package share."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` at each stage's start and end, and every few thousand rows between."""
Seal: TypeAlias = dict[str, Any]
"""``{"bytes": length, "sha256": hex}`` of a file."""

FORMAT = "elicit-release"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
WRITER_VERSION = "0.1.0"
"""The product's version, as in pyproject.toml: a release tells what wrote it."""

MANIFEST = "manifest.json"
RESPONSES_CSV = "responses.csv"
RESPONSES_JSONL = "responses.jsonl"
RESPONSES_PARQUET = "responses.parquet"
SOFT_LABELS_CSV = "soft_labels.csv"
SOFT_LABELS_PARQUET = "soft_labels.parquet"
SOFT_LABELS_NPY = "soft_labels.npy"
IMAGES_NPY = "images.npy"
ANNOTATOR_SOFT_LABELS_NPY = "annotator_soft_labels.npy"
CIFAR10S = "cifar10s.json"
CIFAR10S_ANSWERS = "cifar10s_answers.json"
CIFAR10H_COUNTS = "cifar10h-counts.npy"
CIFAR10H_PROBS = "cifar10h-probs.npy"
README = "README.md"
DATASHEET = "DATASHEET.md"
CROISSANT = "croissant.json"

RESPONSE_COLUMNS = ("annotator", "image", "image_sha256", "kind", "position", "duration_ms")
IMAGE_COLUMNS = ("image", "image_sha256", "annotators")

PIECE = 1 << 20
LARGEST_MANIFEST = 64 << 20


def silent(stage: str, done: int, total: int) -> None:
    """The progress of nobody in particular."""


def canonical(value: JSON) -> str:
    """The one JSON text of a value; ValueError for what JSON has no form for."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def csv_cell(text: str) -> str:
    """The text as one cell of a CSV row, quoted where it has to be."""
    out = io.StringIO()
    # Never alone in its row: an empty cell would be quoted there.
    csv.writer(out, lineterminator="").writerow(("", text))
    return out.getvalue()[1:]


def pyarrow_module(name: str = "pyarrow") -> Any:
    """pyarrow or a module of it, untyped as it is; None where the extra ``formats`` is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


class Sink:
    """A file that is hashed as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._length = file, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self._digest.update(data)
        length = memoryview(data).nbytes
        self._length += length
        return length

    def text(self, text: str) -> None:
        self.write(text.encode())

    @property
    def seal(self) -> Seal:
        return {"bytes": self._length, "sha256": self._digest.hexdigest()}

    # What pyarrow asks of a file.

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Left to `durable`, which opened it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


@contextmanager
def durable(path: Path) -> Iterator[Sink]:
    """A file that is on the disk under its name once the block is left, or not there at all."""
    part = path.with_name(path.name + ".part")
    # Always another file: who lost this folder may still hold the last one open, and write to it.
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as out:
            yield Sink(out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory as durable as the files."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal_of(path: Path) -> Seal:
    """The seal of a file as it lies on the disk."""
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over the lines ``<sha256>  <name>`` in the order of the names."""
    lines = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
