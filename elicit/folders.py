"""Images out of a folder, a zip or a tar, with the labels that lie beside them; standard library, numpy and Pillow.

Nothing is unpacked to the disk, no link is followed, and nothing is believed of a file but its bytes. What is wrong
with a file is a :class:`Problem` of that file; what is wrong with the whole raises
:class:`~elicit.labels.errors.Refusal`.

:func:`open_source` finds the form, :func:`plan` the images and their labels, :func:`take` makes a file's bytes pixels.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, TypeAlias, cast

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from elicit.labels.errors import Refusal

Part: TypeAlias = Literal["all", "train", "test", "validation"]
Pixels: TypeAlias = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
LONGEST_NAME = 300
LONGEST_CATEGORY = 80
MOST_CATEGORIES = 1000

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"}
_TABLES = {".csv", ".tsv", ".jsonl"}
_NESTED = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"}
# What people put beside their images; none of it is one.
_PAPERS = {".md", ".txt", ".json", ".yaml", ".yml", ".rst"}
_PAPER_NAMES = {"readme", "license", "licence", "notice", "makefile"}
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini"}
_METADATA = {"metadata.csv", "metadata.tsv", "metadata.jsonl", "labels.csv"}
_PARTS: Mapping[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
_FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_path")
_LABEL_COLUMNS = ("label", "category", "class")
_LARGEST_TABLE = 64 << 20
_PIECE = 1 << 18
# A small file may be anything; a ratio tells of a bomb only where much comes out.
_RATIO_FROM = 1 << 20

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    LZMAError,
    NotImplementedError,
    OSError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# What bytes that are no sound image can make Pillow raise.
_NO_IMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """``files``, ``total`` (bytes) and ``ratio`` (bytes out by bytes in) are of the whole, ``file`` (bytes), ``pixels``
    and ``ratio`` of each file. An image whose longer side exceeds ``side`` pixels is scaled down to that."""

    files: int = 200_000
    total: int = 20 << 30
    file: int = 50 << 20
    ratio: int = 100
    pixels: int = 50_000_000
    side: int = 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, and what to do about it."""

    file: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.todo}"


class Unusable(Exception):
    """These bytes can't become an image: ``what`` is wrong, and what ``todo``."""

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what)
        self.what, self.todo = what, todo


# Where the files are


@dataclass(frozen=True, slots=True)
class Member:
    """``size`` bytes of which ``packed`` are stored; ``odd`` says why it is no plain file, where it is none."""

    key: int
    name: str
    size: int
    packed: int
    odd: str = ""


class Source(ABC):
    """Files under names. ``origin``: where they come from, as a person would say it."""

    origin: str

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """All but folders, hostile names included. Raises Refusal where the whole is damaged."""

    @abstractmethod
    def read(self, keys: Collection[int], most: int) -> Iterator[tuple[int, bytes | Problem]]:
        """The bytes of these members in the order that costs least, or what is wrong with one; ``most`` bytes each."""


def open_source(path: Path, *, name: str = "") -> Source:
    """A folder, a zip or a tar (packed or not). ``name``: what the curator calls it.

    Raises Refusal ``archive_not_found`` or ``archive_unreadable``.
    """
    name = name or path.name
    if path.is_dir():
        return Folder(path, name)
    if not path.exists():
        raise Refusal("archive_not_found", f"There is no file or folder {path}.")
    if not path.is_file():
        raise _unreadable(name, "it is neither a file nor a folder")
    if zipfile.is_zipfile(path):
        return Zips([path], f"{name} (zip of images)")
    return Tar(path, name)


def _unreadable(name: str, why: str) -> Refusal:
    return Refusal("archive_unreadable", f"{name}: {why}.")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class Folder(Source):
    """A folder on this machine's disk."""

    def __init__(self, path: Path, name: str) -> None:
        self.origin = f"{name} (folder of images)"
        self._path = path
        self._files: list[Path] = []

    def members(self) -> Iterator[Member]:
        self._files = []
        for folder, folders, files in os.walk(self._path):
            # In one order on every machine; links to folders are told rather than walked.
            links = [each for each in sorted(folders) if (Path(folder) / each).is_symlink()]
            folders[:] = [each for each in sorted(folders) if each not in links]
            for file in [*links, *sorted(files)]:
                path = Path(folder) / file
                found = path.lstat()
                odd = "" if stat.S_ISREG(found.st_mode) else "a link" if path.is_symlink() else "no plain file"
                self._files.append(path)
                name = os.fsencode(path.relative_to(self._path).as_posix()).decode(errors="replace")
                yield Member(len(self._files) - 1, name, found.st_size, found.st_size, odd)

    def read(self, keys: Collection[int], most: int) -> Iterator[tuple[int, bytes | Problem]]:
        for key in sorted(keys):
            try:
                with self._files[key].open("rb") as file:
                    yield key, file.read(most + 1)
            except OSError as error:
                yield key, _damaged(error)


class Zips(Source):
    """A zip, or several that are read as one."""

    def __init__(self, paths: Sequence[Path], origin: str) -> None:
        self.origin = origin
        self._paths = paths
        self._infos: list[tuple[int, zipfile.ZipInfo]] = []

    def members(self) -> Iterator[Member]:
        self._infos = []
        for number, path in enumerate(self._paths):
            try:
                _refuse_large_directory(path)
                with zipfile.ZipFile(path) as packed:
                    infos = packed.infolist()
            except _BROKEN as error:
                raise _unreadable(path.name, f"the zip is damaged or cut short ({_one_line(error)})") from None
            for info in infos:
                if info.is_dir():
                    continue
                # The upper half is the Unix mode, where a Unix made the zip.
                mode = info.external_attr >> 16
                odd = "a link" if stat.S_ISLNK(mode) else "encrypted" if info.flag_bits & 1 else ""
                self._infos.append((number, info))
                # The name before zipfile cut it at a NUL.
                yield Member(len(self._infos) - 1, info.orig_filename, info.file_size, info.compress_size, odd)

    def read(self, keys: Collection[int], most: int) -> Iterator[tuple[int, bytes | Problem]]:
        wanted = sorted(keys)
        for number, path in enumerate(self._paths):
            with zipfile.ZipFile(path) as packed:
                for key in wanted:
                    part, info = self._infos[key]
                    if part != number:
                        continue
                    try:
                        with packed.open(info) as file:
                            yield key, file.read(most + 1)
                    except _BROKEN as error:
                        yield key, _damaged(error)


def _refuse_large_directory(path: Path, most: int = 256 << 20) -> None:
    """zipfile reads the list of a zip's files as one piece: one that would fill the memory is refused unread."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 100))
        tail = file.read()
        end = tail.rfind(b"PK\x05\x06")
        if end < 0 or end + 22 > len(tail):
            raise zipfile.BadZipFile("it has no list of its files")
        (listed,) = struct.unpack_from("<L", tail, end + 12)
        if end >= 20 and tail[end - 20 : end - 16] == b"PK\x06\x07":
            (place,) = struct.unpack_from("<Q", tail, end - 12)
            file.seek(min(place, size))
            record = file.read(56)
            if len(record) == 56:
                (listed,) = struct.unpack_from("<Q", record, 40)
    if listed > min(most, size):
        raise zipfile.BadZipFile("the list of its files is too long")


class Tar(Source):
    """A tar, packed or not. It is read from front to end, twice: the names first, then the images."""

    def __init__(self, path: Path, name: str) -> None:
        self.origin = f"{name} (tar of images)"
        self._path, self._name = path, name

    def members(self) -> Iterator[Member]:
        packed = self._path.stat().st_size
        try:
            with tarfile.open(self._path) as tar:
                for key, member in enumerate(_unkept(tar)):
                    if member.isdir():
                        continue
                    odd = "" if member.isreg() else "a link" if member.issym() or member.islnk() else "no plain file"
                    # What one file takes of a packed tar nobody knows: only the whole has a ratio.
                    yield Member(key, member.name, member.size, member.size, odd)
                # The true end is a block of zeros, and nothing else lies behind it: a spoilt header and a file that
                # was cut off between two images would pass for the end as well.
                stream = cast("IO[bytes]", tar.fileobj)
                if stream.tell() < tar.offset + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("it has no end")
                read = 0
                while piece := stream.read(_PIECE):
                    read += len(piece)
                    if piece.strip(b"\0") or read > max(packed, 1 << 26):
                        raise tarfile.ReadError("something lies behind its end")
        except _BROKEN as error:
            raise _unreadable(
                self._name, f"it is neither a zip nor a tar, or damaged or cut short ({_one_line(error)})"
            ) from None

    def read(self, keys: Collection[int], most: int) -> Iterator[tuple[int, bytes | Problem]]:
        left = set(keys)
        with tarfile.open(self._path) as tar:
            for key, member in enumerate(_unkept(tar)):
                if not left:
                    return
                if key not in left:
                    continue
                left.remove(key)
                try:
                    stream = tar.extractfile(member)
                    yield key, b"" if stream is None else stream.read(most + 1)
                except _BROKEN as error:
                    yield key, _damaged(error)


def _unkept(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Its members, none of them kept: tarfile would remember them all."""
    while (member := tar.next()) is not None:
        yield member
        tar.members = []  # type: ignore[attr-defined]


def _damaged(error: object) -> Problem:
    return Problem("", f"can't be read ({_one_line(error)})", "pack it again, or leave it out")


# Which of them are images, and of which category


@dataclass(frozen=True, slots=True)
class Planned:
    """An image to be read. ``category``: the index of its reference label, ``distribution``: its reference
    distribution over the K categories, summing to 1; either may be None."""

    key: int
    name: str
    category: int | None = None
    distribution: tuple[float, ...] | None = None


@dataclass
class Plan:
    """``images`` in the order of the dataset, the K ``categories``, and what is wrong so far. ``ignored``: files that
    nobody would take for images, hidden ones and papers."""

    categories: tuple[str, ...] = ()
    images: list[Planned] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: int = 0


@dataclass(frozen=True)
class Table:
    """Labels in a file of their own: its name and its bytes."""

    name: str
    content: bytes


def plan(
    source: Source,
    *,
    limits: Limits,
    part: Part = "all",
    categories: Sequence[str] = (),
    labels: Table | None = None,
) -> Plan:
    """Which images there are, in which order, and how each is labelled.

    ``categories`` fixes names and order; empty takes them from the folders or the table. ``labels`` goes before any
    table among the files; without either, the folders below the top (or below ``train``, ``test``, ``validation``) name
    the categories. Names are compared without regard to case and to the way that Unicode writes them.

    Raises Refusal: ``archive_unreadable``, ``too_much`` (a limit of the whole), ``no_images``, ``split_missing``,
    ``labels_unreadable``, ``categories_missing``.
    """
    made = Plan()
    files, tables = _survey(source, limits, made)
    if not files:
        raise Refusal("no_images", _first_problem(f"{source.origin}: there are no images in it.", made.problems))
    top = _common_top([*files.values(), *tables.values()])
    names = {key: name[top:] for key, name in files.items()}
    names = _of_part(names, part)
    typed = _checked_categories(categories)
    found = [labels] if labels else _tables(source, {key: name[top:] for key, name in tables.items()}, made)
    if found:
        _by_tables(made, names, {key: files[key] for key in names}, found, typed, part)
    else:
        _by_folders(made, names, typed)
    return made


def _first_problem(message: str, problems: Sequence[Problem]) -> str:
    return f"{message} The first problem: {problems[0]}." if problems else message


def _survey(source: Source, limits: Limits, made: Plan) -> tuple[dict[int, str], dict[int, str]]:
    """The sound names of what may be images, and of tables, by key."""
    files: dict[int, str] = {}
    tables: dict[int, str] = {}
    seen: dict[str, str] = {}
    count = total = packed = 0
    for member in source.members():
        count, total, packed = count + 1, total + member.size, packed + member.packed
        if count > limits.files:
            raise Refusal("too_much", f"{source.origin}: more than {limits.files:,} files. Import it in parts.")
        if total > limits.total:
            raise Refusal("too_much", f"{source.origin}: more than {limits.total >> 20:,} MB unpacked.")
        try:
            name = _sound_name(member.name)
            kind = _kind(name)
            if kind == "ignored":
                made.ignored += 1
                continue
            _refuse_odd(member, limits, kind)
            key = _fold(name)
            if key in seen:
                raise Unusable(f"has the name of {seen[key]} but for case or accents", "rename one of the two")
            seen[key] = name
            (tables if kind == "table" else files)[member.key] = name
        except Unusable as error:
            made.problems.append(Problem(_shown(member.name), error.what, error.todo))
    if total > limits.ratio * packed and total > limits.file:
        raise Refusal("too_much", f"{source.origin}: unpacked it is {total // max(1, packed):,} times as large.")
    return files, tables


def _refuse_odd(member: Member, limits: Limits, kind: str) -> None:
    if member.odd:
        raise Unusable(f"is {member.odd}", "put the file itself in its place")
    if kind == "nested":
        raise Unusable("is an archive within the archive", "unpack it first")
    if kind == "other":
        raise Unusable("is of a type that is not taken", "save it as PNG, JPEG, WebP, BMP or GIF, or leave it out")
    if not member.size:
        raise Unusable("is empty", "put the image in its place")
    largest = _LARGEST_TABLE if kind == "table" else limits.file
    if member.size > largest:
        raise Unusable(f"is larger than {largest >> 20} MB", "save it smaller")
    if member.size > _RATIO_FROM and member.size > limits.ratio * member.packed:
        raise Unusable(f"unpacks to {member.size // max(1, member.packed):,} times its size", "save it as PNG or JPEG")


def _kind(name: str) -> str:
    path = PurePosixPath(name.casefold())
    if any(part.startswith(".") or part in _SYSTEM for part in path.parts):
        return "ignored"
    suffix = path.suffix
    for kind, suffixes in (("image", SUFFIXES), ("table", _TABLES), ("nested", _NESTED), ("ignored", _PAPERS)):
        if suffix in suffixes:
            return kind
    return "ignored" if not suffix and path.name in _PAPER_NAMES else "other"


def _shown(name: str) -> str:
    """A name that can be shown and stored, whatever it holds."""
    safe = "".join(sign if sign.isprintable() else "�" for sign in name)
    return safe if len(safe) <= LONGEST_NAME else safe[: LONGEST_NAME - 1] + "…"


def _sound_name(raw: str) -> str:
    """``raw`` in one spelling, with / between its parts and none of them a dot."""
    name = unicodedata.normalize("NFC", raw).replace("\\", "/")
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
        raise Unusable("has control signs in its name", "rename it")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise Unusable("has an absolute name", "pack it under a name relative to the folder")
    parts = [part.strip() for part in name.split("/")]
    parts = [part for part in parts if part not in ("", ".")]
    if ".." in parts:
        raise Unusable("has a name that leads out of its folder", "pack it under a plain name")
    name = "/".join(parts)
    if not name or len(name) > LONGEST_NAME:
        raise Unusable(f"has no name, or one longer than {LONGEST_NAME} signs", "rename it")
    return name


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _natural(name: str) -> tuple[Any, ...]:
    """So that 2.png comes before 10.png, whatever the spelling of either."""
    pieces = re.split(r"(\d+)", _fold(name))
    return (*((int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces), (-1, name))


def _common_top(names: Collection[str]) -> int:
    """How many signs of all names are folders around the whole, which say nothing of a single image."""
    split = [name.split("/") for name in names]
    top = 0
    while all(len(parts) > top + 1 for parts in split):
        first = split[0][top]
        if any(parts[top] != first for parts in split) or first.casefold() in _PARTS:
            break
        top += 1
    return len("/".join(split[0][:top])) + 1 if top else 0


def _of_part(names: dict[int, str], part: Part) -> dict[int, str]:
    """The images of a part, where there are folders of parts."""
    parts = {key: _PARTS.get(name.split("/")[0].casefold()) if "/" in name else None for key, name in names.items()}
    if part == "all":
        return names
    if None in parts.values() or part not in parts.values():
        raise Refusal("split_missing", f"There is no folder “{part}” beside nothing but such folders: take all images.")
    return {key: name for key, name in names.items() if parts[key] == part}


def _checked_categories(names: Iterable[str]) -> tuple[str, ...]:
    cleaned = tuple(" ".join(unicodedata.normalize("NFC", name).split()) for name in names)
    cleaned = tuple(name for name in cleaned if name)
    twice = [name for name, count in Counter(map(_fold, cleaned)).items() if count > 1]
    if twice:
        raise Refusal("categories_wrong", f"A category is named twice: {twice[0]}.")
    if cleaned and not 2 <= len(cleaned) <= MOST_CATEGORIES:
        raise Refusal(
            "categories_wrong", f"There have to be 2 to {MOST_CATEGORIES:,} categories, not {len(cleaned):,}."
        )
    for name in cleaned:
        if len(name) > LONGEST_CATEGORY or not name.isprintable():
            raise Refusal("categories_wrong", f"A category's name is too long or can't be shown: {_shown(name)[:80]}.")
    return cleaned


def _found_categories(names: Iterable[str]) -> tuple[str, ...]:
    """Each once, in natural order, spelt as it first came."""
    spelt: dict[str, str] = {}
    for name in names:
        spelt.setdefault(_fold(name), name)
    if len(spelt) < 2:
        raise Refusal(
            "categories_missing",
            f"Only one category was found ({_shown(next(iter(spelt.values()), 'none'))}): a study needs two or more. "
            "Put each category's images into a folder of its own, add a table of labels, or type the categories.",
        )
    return _checked_categories(sorted(spelt.values(), key=_natural))


def _by_folders(made: Plan, names: Mapping[int, str], typed: tuple[str, ...]) -> None:
    """Categories are folders; where there are none, nothing is labelled."""
    folders: dict[int, str | None] = {}
    with_parts = all("/" in name and name.split("/")[0].casefold() in _PARTS for name in names.values())
    for key, name in names.items():
        parts = name.split("/")[1 if with_parts else 0 :]
        folders[key] = parts[0] if len(parts) > 1 else None
    there = [folder for folder in folders.values() if folder is not None]
    indices = {_fold(name): index for index, name in enumerate(typed)}
    if not there or (typed and not any(_fold(folder) in indices for folder in there)):
        if not typed:
            raise Refusal(
                "categories_missing",
                "The images are in no folders of categories and there is no table of labels: type the categories.",
            )
        made.categories = typed
        made.images = [Planned(key, name) for key, name in sorted(names.items(), key=lambda item: _natural(item[1]))]
        return
    made.categories = typed or _found_categories(there)
    indices = {_fold(name): index for index, name in enumerate(made.categories)}
    for key, name in sorted(names.items(), key=lambda item: _natural(item[1])):
        folder = folders[key]
        if folder is None:
            made.problems.append(Problem(name, "is in no category's folder", "move it into one"))
        elif (index := indices.get(_fold(folder))) is None:
            made.problems.append(
                Problem(name, f"there is no category “{folder}”", "add it to the categories, or move it")
            )
        else:
            made.images.append(Planned(key, name, index))


# Tables of labels


@dataclass(frozen=True, slots=True)
class _Row:
    table: str
    line: int
    file: str
    label: str | None
    numbers: Mapping[str, float | None]
    """Every further column whose value is a number, 0 or more; None where it is not."""

    @property
    def place(self) -> str:
        return f"{_shown(self.table)}, line {self.line}"


def _tables(source: Source, tables: Mapping[int, str], made: Plan) -> list[Table]:
    """The tables among the files that label the images."""
    named = {key: name for key, name in tables.items() if name.rpartition("/")[2].casefold() in _METADATA}
    at_top = {key: name for key, name in tables.items() if "/" not in name}
    if not named and len(at_top) > 1:
        raise Refusal(
            "labels_unreadable",
            f"There are several tables ({', '.join(sorted(at_top.values())[:5])}): call the one with the labels "
            "metadata.csv.",
        )
    chosen = named or at_top
    made.ignored += len(tables) - len(chosen)
    found = []
    for key, content in source.read(chosen, _LARGEST_TABLE):
        if isinstance(content, Problem):
            raise Refusal("labels_unreadable", f"{chosen[key]}: {content.what}.")
        found.append(Table(chosen[key], content))
    return sorted(found, key=lambda table: _natural(table.name))


def _by_tables(
    made: Plan,
    names: Mapping[int, str],
    originals: Mapping[int, str],
    tables: Sequence[Table],
    typed: tuple[str, ...],
    part: Part,
) -> None:
    """Labels and distributions as the tables say, images in the order of their rows."""
    rows = [row for table in tables for row in _rows(table)]
    made.categories, use_numbers = _table_categories(rows, typed)
    indices = {_fold(name): index for index, name in enumerate(made.categories)}
    find = _Finder(names, originals)
    labelled: dict[int, str] = {}
    for row in rows:
        try:
            key = find(row, part)
            if key is None:
                continue
            if key in labelled:
                raise Unusable(f"{names[key]} was labelled in {labelled[key]} already", "delete one of the two lines")
            labelled[key] = row.place
            category = _category(row, indices)
            distribution = _distribution(row, made.categories) if use_numbers else None
            if category is None and distribution is not None:
                category = _likeliest(distribution)
            made.images.append(Planned(key, names[key], category, distribution))
        except Unusable as error:
            made.problems.append(Problem(row.place, error.what, error.todo))
    where = " and ".join(_shown(table.name) for table in tables[:3])
    for key, name in sorted(names.items(), key=lambda item: _natural(item[1])):
        if key not in labelled:
            made.problems.append(Problem(name, f"has no line in {where}", "add the line, or leave the file out"))


class _Finder:
    """Which file a row means: by its path from the table's folder, from the top, as packed, or by its bare name."""

    def __init__(self, names: Mapping[int, str], originals: Mapping[int, str]) -> None:
        self._keys = {_fold(name): key for key, name in originals.items()} | {
            _fold(name): key for key, name in names.items()
        }
        bare = Counter(_fold(name.rpartition("/")[2]) for name in names.values())
        self._bare = {
            _fold(last): key for key, name in names.items() if bare[_fold(last := name.rpartition("/")[2])] == 1
        }

    def __call__(self, row: _Row, part: Part) -> int | None:
        """The file's key; None where it belongs to another part."""
        name = _fold(_sound_name(row.file))
        folder = row.table.rpartition("/")[0]
        beside = _fold(f"{folder}/{name}") if folder else name
        for candidate in (beside, name):
            if (key := self._keys.get(candidate)) is not None:
                return key
        if part != "all" and _PARTS.get(beside.split("/")[0]) not in (part, None):
            return None
        if "/" not in name and (key := self._bare.get(name)) is not None:
            return key
        raise Unusable(f"there is no image “{_shown(row.file)}”", "correct the name, or delete the line")


def _rows(table: Table) -> list[_Row]:
    """The lines of a table, the first column of which that names a file being the file's.

    Raises Refusal ``labels_unreadable``.
    """
    lines = _json_lines(table) if table.name.casefold().endswith(".jsonl") else _csv_lines(table)
    rows = []
    file = label = None
    for number, values in lines:
        columns = {_fold(column).strip(): column for column in values}
        if file is None:
            file = next((columns[name] for name in _FILE_COLUMNS if name in columns), None)
            label = next((columns[name] for name in _LABEL_COLUMNS if name in columns), None)
            if file is None:
                raise _no_table(table, f"no column is called file_name; there are: {', '.join(list(values)[:8])}")
        said = values.get(label) if label is not None else None
        rows.append(
            _Row(
                table.name,
                number,
                str(values.get(file) or ""),
                None if said is None or not str(said).strip() else " ".join(str(said).split()),
                {column: _number(value) for column, value in values.items() if column not in (file, label)},
            )
        )
    if not rows:
        raise _no_table(table, "it has no lines")
    return rows


def _no_table(table: Table, why: str) -> Refusal:
    return Refusal("labels_unreadable", f"{_shown(table.name)}: {why}.")


def _text(table: Table) -> str:
    encoding = "utf-16" if table.content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = table.content.decode(encoding)
    except UnicodeDecodeError:
        raise _no_table(table, "it is not UTF-8; save it as “CSV UTF-8”") from None
    if "\0" in text:
        raise _no_table(table, "it is no text")
    return unicodedata.normalize("NFC", text)


def _csv_lines(table: Table) -> Iterator[tuple[int, dict[str, object]]]:
    text = _text(table)
    head = text.partition("\n")[0]
    mark = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        if len({_fold(column) for column in columns}) < len(columns):
            raise _no_table(table, "two columns have one name")
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(columns):
                raise _no_table(table, f"line {reader.line_num} has {len(values)} values, not {len(columns)}")
            if mark == ";":
                # Where ; parts the values, the comma is the decimal point.
                values = [re.sub(r"^(\d*),(\d+)$", r"\1.\2", value.strip()) for value in values]
            yield reader.line_num, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise _no_table(table, f"line {reader.line_num} can't be read ({_one_line(error)})") from None


def _json_lines(table: Table) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(_text(table).splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise _no_table(table, f"line {number} is no JSON object")
        yield number, values


def _number(value: object) -> float | None:
    """A probability or a count, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _table_categories(rows: Sequence[_Row], typed: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The categories, and whether further columns give a number for each.

    Columns are categories where they are called like those that were typed; else where there is no label, or every
    label is one of them.
    """
    columns = list(rows[0].numbers)
    folded = {_fold(column) for column in columns}
    labels = [row.label for row in rows if row.label is not None]
    if typed:
        return typed, bool(columns) and all(_fold(name) in folded for name in typed)
    # Columns that tell of something else, a caption or a licence, hold no numbers at all.
    numeric = [name for name in columns if any(row.numbers.get(name) is not None for row in rows)]
    if not labels and len(numeric) >= 2:
        return _checked_categories(numeric), True
    if not labels:
        raise Refusal(
            "categories_missing",
            "The table has neither a column “label” nor a column for each category: add them, or type the categories.",
        )
    if len(numeric) >= 2 and {_fold(label) for label in labels} <= {_fold(name) for name in numeric}:
        return _checked_categories(numeric), True
    return _found_categories(labels), False


def _category(row: _Row, indices: Mapping[str, int]) -> int | None:
    if row.label is None:
        return None
    index = indices.get(_fold(row.label))
    if index is None and row.label.isdecimal() and int(row.label) < len(indices):
        # The number of a class, as Hugging Face writes it.
        return int(row.label)
    if index is None:
        raise Unusable(f"there is no category “{_shown(row.label)[:80]}”", "correct the label, or add the category")
    return index


def _distribution(row: _Row, categories: Sequence[str]) -> tuple[float, ...] | None:
    """Its numbers, divided by their sum."""
    numbers = {_fold(column): number for column, number in row.numbers.items()}
    values = [numbers.get(_fold(name)) for name in categories]
    missing = [name for name, value in zip(categories, values, strict=True) if value is None]
    if missing:
        raise Unusable(f"“{missing[0]}” is no number, 0 or more", "write the votes or the probability")
    known = cast("list[float]", values)
    if not (total := math.fsum(known)):
        raise Unusable("its numbers are all 0", "write the votes or the probabilities, or delete the line")
    return tuple(value / total for value in known)


def _likeliest(distribution: tuple[float, ...]) -> int | None:
    """The category with the most, None where two have it."""
    most = max(distribution)
    return distribution.index(most) if distribution.count(most) == 1 else None


# From a file's bytes to pixels


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """``pixels``: (H, W, 3) uint8, RGB. ``changes``: what was done to the image on the way, empty for nothing."""

    pixels: Pixels
    changes: str


def take(content: bytes, limits: Limits) -> Taken:
    """The picture that these bytes hold, checked from the first to the last.

    It is turned as its EXIF data say, put on white where it is see-through, reduced to 8 bits and RGB, and scaled down
    to ``limits.side``. Of an animation the first frame is taken. Colour profiles are not applied.

    Raises Unusable.
    """
    if len(content) > limits.file:
        raise Unusable(f"is larger than {limits.file >> 20} MB", "save it smaller")
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > limits.pixels:
                raise Unusable(
                    f"has {image.width:,} × {image.height:,} pixels, more than {limits.pixels / 1e6:g} million",
                    "save it smaller",
                )
            # Finds what loading passes over: wrong checksums.
            image.verify()
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _pixels(image, limits)
    except PIL.UnidentifiedImageError:
        raise Unusable("is no image of a known type", "save it as PNG, JPEG, WebP, BMP or GIF") from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise Unusable(f"has more than {limits.pixels / 1e6:g} million pixels", "save it smaller") from None
    except _NO_IMAGE as error:
        raise Unusable(f"is damaged or cut short ({_one_line(error)})", "save it again from the original") from None


def _pixels(image: PIL.Image.Image, limits: Limits) -> Taken:
    changes = []
    whole = image.size
    if getattr(image, "is_animated", False):
        changes.append("first frame of an animation")
        image.seek(0)
    turned = image.getexif().get(0x0112, 1) in range(2, 9)
    if max(whole) > limits.side:
        # A JPEG can be decoded at a half, a quarter, an eighth: not below what is wanted.
        image.draft(image.mode, (limits.side, limits.side))
    image.load()
    plain = _rgb(image, changes)
    if turned:
        # Converting keeps no EXIF data: the turn is that of the image as it was opened.
        plain = PIL.ImageOps.exif_transpose(_with_exif(plain, image))
        changes.append("turned as its EXIF data say")
    if max(plain.size) > limits.side:
        plain.thumbnail((limits.side, limits.side), PIL.Image.Resampling.LANCZOS)
    if max(whole) > limits.side:
        changes.append(f"scaled down from {whole[0]} × {whole[1]}")
    return Taken(np.asarray(plain, dtype=np.uint8), ", ".join(changes))


def _with_exif(plain: PIL.Image.Image, image: PIL.Image.Image) -> PIL.Image.Image:
    plain.info["exif"] = image.getexif().tobytes()
    return plain


def _rgb(image: PIL.Image.Image, changes: list[str]) -> PIL.Image.Image:
    """8 bits, RGB, nothing to see through."""
    if image.mode.startswith("I"):
        # Pillow itself would cut every value above 255 down to white.
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise Unusable("has values beyond 16 bits", "save it with 8 bits per colour")
        changes.append("16 bits reduced to 8")
        return PIL.Image.fromarray(np.round(deep / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unusable("has broken numbers for colours", "save it with 8 bits per colour")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        if cast("tuple[int, int]", seen.getchannel("A").getextrema())[0] < 255:
            changes.append("on white where it was see-through")
            seen = PIL.Image.alpha_composite(PIL.Image.new("RGBA", seen.size, "white"), seen)
        return seen.convert("RGB")
    if image.mode not in ("RGB", "L", "1", "P"):
        changes.append(f"{image.mode} turned into RGB")
    return image.convert("RGB")
