"""Read a release back, checking every byte of it on the way."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from elicit.labels.categories import CategorySet
from elicit.labels.errors import Refusal
from elicit.labels.release_files.common import (
    ANNOTATOR_SOFT_LABELS_NPY,
    FORMAT,
    IMAGE_COLUMNS,
    LARGEST_MANIFEST,
    MANIFEST,
    PIECE,
    READABLE_VERSIONS,
    RESPONSE_COLUMNS,
    RESPONSES_CSV,
    RESPONSES_PARQUET,
    SOFT_LABELS_CSV,
    SOFT_LABELS_NPY,
    digest_of,
    pyarrow_module,
)
from elicit.labels.simplex import check_simplex

Column = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ReadRelease:
    """A release in memory: N pooled images, R responses, K categories.

    ``categories``: K names. ``images`` (N,) int64, ascending; ``image_sha256``: N digests; ``soft_labels``
    (N, K); ``counts`` (N,) int64, annotators pooled. ``annotators`` (R,) pseudonyms; ``response_images`` (R,)
    int64; ``response_soft_labels`` (R, K); ``kinds`` (R,) text. ``manifest``: as in ``manifest.json``.
    """

    categories: tuple[str, ...]
    images: NDArray[np.int64]
    image_sha256: tuple[str, ...]
    soft_labels: NDArray[np.float64]
    counts: NDArray[np.int64]
    annotators: NDArray[np.str_]
    response_images: NDArray[np.int64]
    response_soft_labels: NDArray[np.float64]
    kinds: NDArray[np.str_]
    manifest: dict[str, Any]
    _path: Path | None = field(default=None, repr=False)

    def table(self) -> dict[str, Column]:
        """The responses as columns, as ``pandas.DataFrame`` takes them: one row a response, all (R,).

        ``annotator``, ``image``, ``image_sha256``, ``kind``, ``position``, ``duration_ms`` (float64, nan if
        unknown), ``category_1``, ``percentage_1`` and so on (None and nan where fewer were named),
        ``impossible_<category>`` (bool), ``category_order`` (indices with spaces between, empty if unknown) and
        ``soft_<category>``. Read anew from the release, and checked again; Refusal as for ``read_release``.
        """
        if self._path is None:
            raise Refusal("release_not_found", "This release was not read from a file, so it has no table.")
        return _opened(self._path, lambda source: _table(source, self))


# Where a release lies


class Source(Protocol):
    """A release's files by name, in a directory or in a .zip."""

    label: str

    def open(self, name: str) -> IO[bytes]:
        """The file's bytes as a stream; KeyError or OSError where there is no such file."""


class Folder:
    def __init__(self, path: Path) -> None:
        self.label, self._path = path.name, path

    def open(self, name: str) -> IO[bytes]:
        return (self._path / name).open("rb")


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, label: str) -> None:
        self.label, self._archive = label, archive
        tops = [
            folder + slash
            for folder, slash, file in (name.rpartition("/") for name in archive.namelist())
            if file == MANIFEST and "/" not in folder
        ]
        self._top = tops[0] if len(tops) == 1 else ""

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(self._top + name)


def read_release(path: Path | str) -> ReadRelease:
    """Read a release from its directory or .zip, checking each file against the manifest's sha256.

    Formats 1 and 2. The arrays come from the .npy files where the release has them.
    Raises Refusal ``release_not_found`` (no such path, or no manifest there), ``release_unknown_format`` (not
    a release, or of a later format) or ``release_damaged`` (naming the file).
    """
    path = Path(path)
    return _opened(path, lambda source: _read(source, path))


def _opened(path: Path, read: Callable[[Source], T]) -> T:
    if path.is_dir():
        return read(Folder(path))
    if not path.is_file():
        raise Refusal("release_not_found", f"There is no release at {path}.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        if path.suffix == ".zip":
            raise _damaged(path.name, "it is no readable .zip") from None
        raise Refusal("release_unknown_format", f"{path.name} is neither a release's directory nor its .zip.") from None
    with archive:
        return read(_Zip(archive, path.name))


def _damaged(name: str, why: str) -> Refusal:
    return Refusal("release_damaged", f"The release is damaged: {name}: {why}.")


_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


# The manifest, and the seals of the files


def read_manifest(source: Source) -> dict[str, Any]:
    """The manifest, if it is sound; Refusal as for ``read_release``."""
    try:
        with source.open(MANIFEST) as file:
            raw = file.read(LARGEST_MANIFEST)
    except (KeyError, FileNotFoundError):
        raise Refusal("release_not_found", f"{source.label} holds no {MANIFEST}.") from None
    except _UNREADABLE as error:
        raise _damaged(MANIFEST, str(error)) from None
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(MANIFEST, "it is no JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Refusal("release_unknown_format", f"The {MANIFEST} of {source.label} is not one of a release.")
    if manifest.get("format_version") not in READABLE_VERSIONS:
        raise Refusal(
            "release_unknown_format",
            f"{source.label} has release format {manifest.get('format_version')!r}; "
            f"this version reads formats {' and '.join(map(str, READABLE_VERSIONS))}.",
        )
    try:
        files = manifest["files"]
        plain = all(re.fullmatch(r"[A-Za-z0-9_-]+\.[a-z0-9.]+", name) for name in files)
        sizes = all(isinstance(files[name]["bytes"], int) for name in files)
        sound = plain and sizes and digest_of(files) == manifest["digest"]
        complete = {RESPONSES_CSV, SOFT_LABELS_CSV} <= set(files)
        categories = manifest["categories"]
        CategorySet(tuple(categories))
    except (KeyError, TypeError, AttributeError, Refusal):
        raise _damaged(MANIFEST, "a part of it is missing or of the wrong form") from None
    if not (sound and complete and isinstance(categories, list) and isinstance(manifest.get("facts"), dict)):
        raise _damaged(MANIFEST, "its list of files does not match its digest")
    return manifest


class Watched:
    """A file of a release as a stream; leaving it, Refusal if what went through is not what was sealed."""

    def __init__(self, source: Source, name: str, seal: Mapping[str, Any]) -> None:
        self._source, self._name, self._seal = source, name, seal
        self._digest, self._length = hashlib.sha256(), 0

    def __enter__(self) -> Watched:
        try:
            self._file = self._source.open(self._name)
        except (KeyError, FileNotFoundError):
            raise _damaged(self._name, "it is missing") from None
        except _UNREADABLE as error:
            raise _damaged(self._name, str(error)) from None
        return self

    def read(self, size: int = PIECE) -> bytes:
        # A piece past the promised length is enough to know, and all that a bomb gets to unpack.
        if self._length > self._seal["bytes"]:
            return b""
        try:
            piece = self._file.read(size)
        except _UNREADABLE as error:
            raise _damaged(self._name, str(error)) from None
        self._digest.update(piece)
        self._length += len(piece)
        return piece

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is not None:
                return
            while self.read():
                pass
        if self._length != self._seal["bytes"] or self._digest.hexdigest() != self._seal["sha256"]:
            raise _damaged(self._name, "its content is not what the manifest recorded")


def _verify(source: Source, name: str, seal: Mapping[str, Any]) -> None:
    with Watched(source, name, seal):
        """Leaving it reads and checks it."""


# What is in them


def _read(source: Source, path: Path) -> ReadRelease:
    manifest = read_manifest(source)
    for name in sorted(manifest["files"]):
        _verify(source, name, manifest["files"][name])
    categories = tuple(manifest["categories"])
    pooled = _read_table(source, SOFT_LABELS_CSV, IMAGE_COLUMNS, categories, manifest, SOFT_LABELS_NPY)
    soft = [f"soft_{category}" for category in categories]
    responses = _read_table(source, RESPONSES_CSV, RESPONSE_COLUMNS, soft, manifest, ANNOTATOR_SOFT_LABELS_NPY)
    return ReadRelease(
        categories=categories,
        images=_integers(pooled.columns["image"], SOFT_LABELS_CSV),
        image_sha256=tuple(pooled.columns["image_sha256"]),
        soft_labels=pooled.labels,
        counts=_integers(pooled.columns["annotators"], SOFT_LABELS_CSV),
        annotators=np.array(responses.columns["annotator"], dtype=np.str_),
        response_images=_integers(responses.columns["image"], RESPONSES_CSV),
        response_soft_labels=responses.labels,
        kinds=np.array(responses.columns["kind"], dtype=np.str_),
        manifest=manifest,
        _path=path,
    )


@dataclass(frozen=True, slots=True)
class _Table:
    columns: dict[str, list[str]]
    labels: NDArray[np.float64]


def _read_table(
    source: Source,
    name: str,
    leading: Sequence[str],
    soft: Sequence[str],
    manifest: Mapping[str, Any],
    array_name: str,
) -> _Table:
    """The leading columns as text, and the last, ``soft``, as (rows, K) soft labels: from the array if there is one.

    Columns are found by place, for a category may be called ``image``.
    """
    has_array = array_name in manifest["files"]
    labels = array("d")
    columns: dict[str, list[str]] = {column: [] for column in leading}
    with _sealed_nonsense(name), source.open(name) as raw, io.TextIOWrapper(raw, "utf-8", newline="") as text:
        rows = csv.reader(text, strict=True)
        header = next(rows)
        if [*header[: len(leading)], *header[len(leading) :][-len(soft) :]] != [*leading, *soft]:
            raise ValueError("its header is not that of a release")
        values = list(columns.values())
        for row in rows:
            if len(row) != len(header):
                raise ValueError("a row is too short or too long")
            for column, value in zip(values, row, strict=False):
                column.append(value)
            if not has_array:
                labels.extend(map(float, row[-len(soft) :]))
        length = len(values[0])
        table = np.array(labels, dtype=np.float64).reshape(-1, len(soft))
        if not has_array:
            check_simplex(table, name="a label")
    if has_array:
        with _sealed_nonsense(array_name), source.open(array_name) as raw:
            table = np.lib.format.read_array(raw, allow_pickle=False)
            if table.dtype != np.float64 or table.shape != (length, len(soft)):
                raise ValueError("it is not of the table's shape")
            check_simplex(table, name="a label")
    return _Table(columns, table)


@contextmanager
def _sealed_nonsense(name: str) -> Iterator[None]:
    """Whoever sealed the file may still have put nonsense in it."""
    try:
        yield
    except (csv.Error, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise _damaged(name, str(error) or "it is empty") from None


def _integers(values: Sequence[str], name: str) -> NDArray[np.int64]:
    try:
        return np.array([int(value) for value in values], dtype=np.int64)
    except (ValueError, OverflowError):
        raise _damaged(name, "a number is expected where there is none") from None


# The responses as a table


def _table(source: Source, release: ReadRelease) -> dict[str, Column]:
    files = release.manifest["files"]
    soft = {f"soft_{name}": release.response_soft_labels[:, place] for place, name in enumerate(release.categories)}
    if RESPONSES_PARQUET in files and pyarrow_module() is not None:
        _verify(source, RESPONSES_PARQUET, files[RESPONSES_PARQUET])
        return {**_from_parquet(source, release.categories), **soft}
    _verify(source, RESPONSES_CSV, files[RESPONSES_CSV])
    return {**_from_csv(source, release.categories), **soft}


def _from_csv(source: Source, categories: Sequence[str]) -> dict[str, Column]:
    with _sealed_nonsense(RESPONSES_CSV), source.open(RESPONSES_CSV) as raw:
        rows = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""), strict=True)
        header = next(rows)[: -len(categories)]
        # By column while reading: a million rows as lists of lists would not fit.
        columns: list[list[str]] = [[] for _ in header]
        known: dict[str, str] = {}
        for row in rows:
            for column, value in zip(columns, row, strict=False):
                column.append(known.setdefault(value, value))
        after_named = header.index(f"impossible_{categories[0]}", len(RESPONSE_COLUMNS))
        found: dict[str, Column] = {}
        for place, (name, column) in enumerate(zip(header, columns, strict=True)):
            columns[place] = []
            if place < len(RESPONSE_COLUMNS):
                found[name] = _leading(name, column)
            elif place < after_named and (place - len(RESPONSE_COLUMNS)) % 2 == 0:
                found[name] = np.array([value or None for value in column], dtype=np.object_)
            elif place < after_named:
                found[name] = _floats(column)
            elif name == "category_order":
                found[name] = np.array(column, dtype=np.object_)
            else:
                found[name] = np.array(column) == "1"
    return found


def _leading(name: str, column: list[str]) -> Column:
    if name in ("image", "position"):
        return _integers(column, RESPONSES_CSV)
    return _floats(column) if name == "duration_ms" else np.array(column, dtype=np.object_)


def _floats(column: list[str]) -> Column:
    return np.array([float(value) if value else np.nan for value in column])


def _from_parquet(source: Source, categories: Sequence[str]) -> dict[str, Column]:
    pa, compute = pyarrow_module(), pyarrow_module("pyarrow.compute")
    names = np.array(categories, dtype=np.object_)

    def texts(column: Any) -> Column:
        """Equal texts are one object: a million of their own would be ten times as large."""
        encoded = column.combine_chunks().dictionary_encode()
        table = np.array([*encoded.dictionary.to_pylist(), ""], dtype=np.object_)
        return np.asarray(table[encoded.indices.to_numpy(zero_copy_only=False)])

    def lists(name: str) -> tuple[Column, Column, Any]:
        """The length of each row, the row of each entry, and the entries."""
        column = read[name].combine_chunks()
        lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths, np.repeat(np.arange(len(lengths)), lengths), column.flatten()

    def indices(entries: Any) -> Column:
        return np.asarray(compute.index_in(entries, pa.array(list(categories))).to_numpy(zero_copy_only=False))

    with _sealed_nonsense(RESPONSES_PARQUET), source.open(RESPONSES_PARQUET) as raw:
        wanted = [*RESPONSE_COLUMNS, "named", "percentages", "impossible", "category_order"]
        read = pyarrow_module("pyarrow.parquet").read_table(pa.BufferReader(raw.read()), columns=wanted)
        found: dict[str, Column] = {}
        for name in RESPONSE_COLUMNS:
            if name in ("image", "position", "duration_ms"):
                values = read[name].to_numpy()
                found[name] = values.astype(np.float64) if name == "duration_ms" else values
            else:
                found[name] = texts(read[name])
        lengths, row, named = lists("named")
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        said, percentages = indices(named), lists("percentages")[2].to_numpy()
        for number in range(max(2, int(place.max(initial=0)) + 1)):
            here = place == number
            category = np.full(len(read), None, dtype=np.object_)
            category[row[here]] = names[said[here]]
            percentage = np.full(len(read), np.nan)
            percentage[row[here]] = percentages[here]
            found |= {f"category_{number + 1}": category, f"percentage_{number + 1}": percentage}
        _, row, ruled_out = lists("impossible")
        impossible = np.zeros((len(read), len(categories)), dtype=np.bool_)
        impossible[row, indices(ruled_out)] = True
        found |= {f"impossible_{name}": impossible[:, place] for place, name in enumerate(categories)}
        lengths, _, shown = lists("category_order")
        found["category_order"] = _orders(indices(shown).astype(np.int32), lengths)
    return found


def _orders(indices: NDArray[np.int32], lengths: Column) -> Column:
    """Runs of indices with spaces between, each text made once."""
    raw, width = indices.tobytes(), indices.itemsize
    known: dict[bytes, str] = {}
    texts = np.empty(len(lengths), dtype=np.object_)
    ends = np.cumsum(lengths) * width
    for place, (start, stop) in enumerate(zip((ends - lengths * width).tolist(), ends.tolist(), strict=True)):
        key = raw[start:stop]
        if key not in known:
            known[key] = " ".join(map(str, np.frombuffer(key, dtype=np.int32).tolist()))
        texts[place] = known[key]
    return texts
