"""The files of a release: the only module that knows their formats.

A release is a directory of plain text files and a ``manifest.json`` that is written last and holds the
sha256 of each of them. The bytes are a function of the arguments alone: no clock, no host, no path.

- ``responses.csv``: one row per response, with what was said and its soft label (``soft_<category>``).
- ``responses.jsonl``: one object per response: what was said, by category name.
- ``soft_labels.csv``: one row per image: the pooled label and how many annotators it pools.
- ``cifar10s.json``: the published CIFAR-10S layout, ``{"<image>": [[K floats], ...]}``, main trials only.
- ``cifar10s_answers.json``: the published layout of the answers, main trials only. It has room for two
  named categories; later ones are in the other files.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Protocol, Self, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elicit.labels.aggregation import ConfusionPool, MeanPool, ReliabilityPool
from elicit.labels.categories import CategorySet
from elicit.labels.elicited import Elicited
from elicit.labels.errors import Refusal
from elicit.labels.simplex import check_simplex
from elicit.labels.varieties import Answers, LabelVariety

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` at each stage's start and end, and every 1,000 rows between."""

FORMAT = "elicit-release"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
RESPONSES_CSV = "responses.csv"
RESPONSES_JSONL = "responses.jsonl"
SOFT_LABELS_CSV = "soft_labels.csv"
CIFAR10S = "cifar10s.json"
CIFAR10S_ANSWERS = "cifar10s_answers.json"

KINDS = ("practice", "main", "repeat", "attention")
POOLS = {"mean": MeanPool, "reliability": ReliabilityPool, "confusion": ConfusionPool}

_RESPONSE_COLUMNS = ("annotator", "image", "image_sha256", "kind", "position", "duration_ms")
_IMAGE_COLUMNS = ("image", "image_sha256", "annotators")
_ROWS_PER_STEP = 1000
_PIECE = 1 << 20
_LARGEST_MANIFEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """How responses become a release's labels.

    ``pool``: ``mean``. ``include_repeats``: whether repeats of an image by the same annotator count; practice
    and attention trials never do. ``leave_out_inconsistent``: whether whoever collects the responses left out
    the sessions that their repeats call inconsistent. Raises Refusal ``unknown_pool``.
    """

    variety: LabelVariety = field(default_factory=LabelVariety)
    pool: str = "mean"
    include_repeats: bool = False
    leave_out_inconsistent: bool = False

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise Refusal("unknown_pool", f"There is no pool {self.pool!r}; choose one of {', '.join(POOLS)}.")

    def to_dict(self) -> dict[str, JSON]:
        """Plain JSON, as in the manifest."""
        return {
            "variety": {"slug": self.variety.slug, "gamma": float(self.variety.gamma)},
            "pool": self.pool,
            "include_repeats": self.include_repeats,
            "leave_out_inconsistent": self.leave_out_inconsistent,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The recipe of ``to_dict``; Refusal ``recipe_invalid``, ``unknown_variety`` or ``unknown_pool``."""
        try:
            slug, gamma = data["variety"]["slug"], data["variety"]["gamma"]
            pool, repeats, leave_out = data["pool"], data["include_repeats"], data["leave_out_inconsistent"]
        except (KeyError, TypeError):
            raise Refusal("recipe_invalid", "The recipe lacks a part; it has what Recipe.to_dict gives.") from None
        number = isinstance(gamma, int | float) and not isinstance(gamma, bool)
        flags = isinstance(repeats, bool) and isinstance(leave_out, bool)
        if not (isinstance(slug, str) and number and isinstance(pool, str) and flags):
            raise Refusal("recipe_invalid", "The recipe has a value of the wrong type.")
        return cls(LabelVariety.from_slug(slug, float(gamma)), pool, repeats, leave_out)

    @property
    def digest(self) -> str:
        """sha256 of the recipe's canonical JSON, as hex."""
        return hashlib.sha256(_canonical(self.to_dict()).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ReleasedResponse:
    """One response as it is released.

    ``annotator``: the pseudonym. ``image``: index in the dataset; ``image_sha256``: digest of its pixels.
    ``kind``: practice, main, repeat or attention. ``position``: place in the session, from 1.
    ``category_order``: category indices in the order shown, empty if unknown. ``duration_ms``: time to
    answer, None if unknown.
    """

    annotator: str
    image: int
    image_sha256: str
    kind: str
    position: int
    elicited: Elicited
    category_order: tuple[int, ...]
    duration_ms: int | None


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


# Writing


def write_release(
    directory: Path,
    *,
    categories: CategorySet,
    responses: Iterable[ReleasedResponse],
    recipe: Recipe,
    facts: Mapping[str, JSON],
    version: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a release into ``directory`` (made if absent) and return its manifest.

    Same arguments, same bytes, in whatever order the responses come. What an interrupted run left behind is
    overwritten: without a manifest there is no release.

    Raises Refusal ``release_exists`` (the directory holds a manifest) or ``release_empty`` (no response that
    the recipe pools); ValueError for responses that contradict themselves or each other, and for facts that
    JSON has no form for; whatever ``progress`` raises.
    """
    tell = progress or _silent
    if (directory / MANIFEST).exists():
        raise Refusal("release_exists", f"There is a release in {directory.name} already.")
    facts_text = _canonical(facts)

    ordered = sorted(responses, key=_order)
    digests = _check_responses(ordered, categories)
    pooled_kinds = {"main", "repeat"} if recipe.include_repeats else {"main"}
    pooled = np.array([response.kind in pooled_kinds for response in ordered], dtype=np.bool_)
    if not pooled.any():
        raise Refusal("release_empty", "There is no response to release.")

    tell("labels", 0, len(ordered))
    answers = Answers.from_elicited([r.elicited for r in ordered], categories=len(categories))
    labels = recipe.variety.soft_labels(answers)
    images = np.array([response.image for response in ordered], dtype=np.int64)
    annotators = np.array([response.annotator for response in ordered])
    pool = POOLS[recipe.pool]().fit(labels[pooled], images[pooled], annotators[pooled])
    tell("labels", len(ordered), len(ordered))

    directory.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[TextIO, _Step], None]] = {
        RESPONSES_CSV: lambda out, step: _write_responses_csv(out, ordered, labels, categories, step),
        RESPONSES_JSONL: lambda out, step: _write_responses_jsonl(out, ordered, categories, step),
        SOFT_LABELS_CSV: lambda out, step: _write_soft_labels(out, pool, digests, categories, step),
        CIFAR10S: lambda out, step: _write_cifar10s(out, ordered, labels, step),
        CIFAR10S_ANSWERS: lambda out, step: _write_cifar10s_answers(out, ordered, categories, step),
    }
    files: dict[str, dict[str, Any]] = {}
    for name, write in writers.items():
        step = _Step(tell, name, len(pool.images_) if name == SOFT_LABELS_CSV else len(ordered))
        with _durable(directory / name) as out:
            write(out, step)
        step.finish()
        files[name] = _seal(directory / name)
    _sync_directory(directory)

    kinds = Counter(response.kind for response in ordered)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": version,
        "categories": list(categories.names),
        "recipe": recipe.to_dict(),
        "recipe_digest": recipe.digest,
        "counts": {
            "images": len(pool.images_),
            "annotators": len(np.unique(annotators[pooled])),
            "responses": len(ordered),
            "pooled_responses": int(pooled.sum()),
            "by_kind": {kind: kinds[kind] for kind in KINDS},
        },
        "facts": json.loads(facts_text),
        "files": files,
        "digest": _digest_of(files),
    }
    with _durable(directory / MANIFEST) as out:
        out.write(json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _sync_directory(directory)
    return manifest


def _silent(stage: str, done: int, total: int) -> None:
    """The progress of nobody in particular."""


class _Step:
    """Counts the rows of one stage and tells every thousandth."""

    def __init__(self, tell: Progress, stage: str, total: int) -> None:
        self._tell, self._stage, self._total, self._done = tell, stage, total, 0
        tell(stage, 0, total)

    def row(self) -> None:
        self._done += 1
        if self._done % _ROWS_PER_STEP == 0 and self._done < self._total:
            self._tell(self._stage, self._done, self._total)

    def finish(self) -> None:
        self._tell(self._stage, self._total, self._total)


def _canonical(value: JSON) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _order(response: ReleasedResponse) -> tuple[Any, ...]:
    """Image, annotator, position; the rest so that ties don't fall back on the input's order."""
    said = response.elicited
    return (
        response.image,
        response.annotator,
        response.position,
        response.kind,
        said.named,
        sorted(said.impossible),
        -1 if response.duration_ms is None else response.duration_ms,
        response.category_order,
        response.image_sha256,
    )


def _check_responses(responses: Sequence[ReleasedResponse], categories: CategorySet) -> dict[int, str]:
    """The digest of each image; ValueError for rows that no release can hold."""
    digests: dict[int, str] = {}
    everything = list(range(len(categories)))
    for response in responses:
        if response.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {response.kind!r}.")
        if not response.annotator:
            raise ValueError("a response has no annotator.")
        if response.category_order and sorted(response.category_order) != everything:
            raise ValueError(
                f"category_order must list each of {len(everything)} categories once, got {response.category_order}."
            )
        if digests.setdefault(response.image, response.image_sha256) != response.image_sha256:
            raise ValueError(f"image {response.image} comes with two digests.")
    return digests


def _write_responses_csv(
    out: TextIO,
    responses: Sequence[ReleasedResponse],
    labels: NDArray[np.float64],
    categories: CategorySet,
    step: _Step,
) -> None:
    # Room for two named categories at least, so that the usual release has the usual columns.
    places = max(2, max(len(response.elicited.named) for response in responses))
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        [
            *_RESPONSE_COLUMNS,
            *(f"{what}_{place}" for place in range(1, places + 1) for what in ("category", "percentage")),
            *(f"impossible_{name}" for name in categories),
            "category_order",
            *(f"soft_{name}" for name in categories),
        ]
    )
    for response, label in zip(responses, labels, strict=True):
        said = response.elicited
        named: list[object] = []
        for category, percentage in said.named:
            named += (categories.name(category), float(percentage))
        rows.writerow(
            [
                response.annotator,
                response.image,
                response.image_sha256,
                response.kind,
                response.position,
                response.duration_ms,
                *named,
                *[None] * (2 * places - len(named)),
                *(int(category in said.impossible) for category in range(len(categories))),
                " ".join(map(str, response.category_order)),
                *label.tolist(),
            ]
        )
        step.row()


def _write_responses_jsonl(
    out: TextIO, responses: Sequence[ReleasedResponse], categories: CategorySet, step: _Step
) -> None:
    for response in responses:
        said = response.elicited
        line: dict[str, JSON] = {
            "annotator": response.annotator,
            "image": response.image,
            "image_sha256": response.image_sha256,
            "kind": response.kind,
            "position": response.position,
            "duration_ms": response.duration_ms,
            "named": [
                {"category": categories.name(category), "percentage": float(percentage)}
                for category, percentage in said.named
            ],
            "impossible": _impossible_names(said, categories),
            "category_order": [categories.name(category) for category in response.category_order],
        }
        out.write(_canonical(line) + "\n")
        step.row()


def _impossible_names(said: Elicited, categories: CategorySet) -> list[str]:
    return [categories.name(category) for category in sorted(said.impossible)]


def _write_soft_labels(
    out: TextIO, pool: MeanPool, digests: Mapping[int, str], categories: CategorySet, step: _Step
) -> None:
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow([*_IMAGE_COLUMNS, *categories])
    pooled = zip(pool.images_.tolist(), pool.counts_.tolist(), pool.soft_labels_, strict=True)
    for image, count, label in pooled:
        rows.writerow([image, digests[image], count, *label.tolist()])
        step.row()


def _write_cifar10s(
    out: TextIO, responses: Sequence[ReleasedResponse], labels: NDArray[np.float64], step: _Step
) -> None:
    def entry(place: int) -> JSON:
        label: list[float] = labels[place].tolist()
        return label

    _write_published(out, responses, entry, step)


def _write_cifar10s_answers(
    out: TextIO, responses: Sequence[ReleasedResponse], categories: CategorySet, step: _Step
) -> None:
    def entry(place: int) -> JSON:
        said = responses[place].elicited
        (top, percentage), second = said.named[0], said.named[1:2]
        return {
            "Most Probable Class": categories.name(top),
            "Most Probable Class Prob": float(percentage),
            "Second Most Probable Class": categories.name(second[0][0]) if second else "No",
            "Second Most Probable Class Prob": float(second[0][1]) if second else None,
            "Impossible Class(es)": _impossible_names(said, categories),
        }

    _write_published(out, responses, entry, step)


def _write_published(
    out: TextIO, responses: Sequence[ReleasedResponse], entry: Callable[[int], JSON], step: _Step
) -> None:
    """``{"<image>": [entry, ...]}``, one line per image in rising order, main trials only."""
    main = (place for place, response in enumerate(responses) if response.kind == "main")
    opening = "{\n"
    for image, places in groupby(main, key=lambda place: responses[place].image):
        entries: list[JSON] = []
        for place in places:
            entries.append(entry(place))
            step.row()
        out.write(f"{opening}{_canonical(str(image))}: {_canonical(entries)}")
        opening = ",\n"
    out.write("\n}\n")


@contextmanager
def _durable(path: Path) -> Iterator[TextIO]:
    """A text file that is on the disk under its name once the block is left, or not there at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Makes the names in a directory as durable as the files."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal(path: Path) -> dict[str, Any]:
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over the lines ``<sha256>  <name>`` in the order of the names."""
    lines = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def zip_release(directory: Path, target: Path) -> Path:
    """Pack the release in ``directory`` as the .zip ``target`` and return that; same release, same bytes.

    The one folder inside is called after the study and the version (``<study>-v<version>``) where the facts
    name the study's slug under ``study_slug`` or ``study``, else ``release-v<version>``.
    Raises Refusal ``release_not_found``, ``release_unknown_format`` or ``release_damaged``.
    """
    source = _Folder(directory)
    manifest = _read_manifest(source)
    for name in sorted(manifest["files"]):
        _verify(source, name, manifest["files"][name])
    folder = _folder_name(manifest)
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as out:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in sorted([*manifest["files"], MANIFEST]):
                    _pack(archive, f"{folder}/{name}", directory / name)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _folder_name(manifest: Mapping[str, Any]) -> str:
    facts = manifest.get("facts", {})
    for key in ("study_slug", "study"):
        slug = facts.get(key)
        if isinstance(slug, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", slug):
            return f"{slug}-v{manifest['version']}"
    return f"release-v{manifest['version']}"


def _pack(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    # ZipInfo by hand: from_file would record the clock and the owner's permissions.
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o644 << 16
    with path.open("rb") as source:
        info.file_size = path.stat().st_size
        with archive.open(info, "w") as out:
            while piece := source.read(_PIECE):
                out.write(piece)


# Reading


class _Source(Protocol):
    """A release's files by name, in a directory or in a .zip."""

    label: str

    def open(self, name: str) -> IO[bytes]:
        """The file's bytes as a stream; KeyError or OSError where there is no such file."""


class _Folder:
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

    Raises Refusal ``release_not_found`` (no such path, or no manifest there), ``release_unknown_format`` (not
    a release, or of a later format) or ``release_damaged`` (naming the file).
    """
    path = Path(path)
    if path.is_dir():
        return _read(_Folder(path))
    if not path.is_file():
        raise Refusal("release_not_found", f"There is no release at {path}.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        if path.suffix == ".zip":
            raise _damaged(path.name, "it is no readable .zip") from None
        raise Refusal("release_unknown_format", f"{path.name} is neither a release's directory nor its .zip.") from None
    with archive:
        return _read(_Zip(archive, path.name))


def _damaged(name: str, why: str) -> Refusal:
    return Refusal("release_damaged", f"The release is damaged: {name}: {why}.")


_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def _read_manifest(source: _Source) -> dict[str, Any]:
    try:
        with source.open(MANIFEST) as file:
            raw = file.read(_LARGEST_MANIFEST)
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
    if manifest.get("format_version") != FORMAT_VERSION:
        raise Refusal(
            "release_unknown_format",
            f"{source.label} has release format {manifest.get('format_version')!r}; "
            f"this version reads format {FORMAT_VERSION}.",
        )
    try:
        files = manifest["files"]
        plain = all(re.fullmatch(r"[a-z0-9_]+\.[a-z0-9.]+", name) for name in files)
        sizes = all(isinstance(files[name]["bytes"], int) for name in files)
        sound = plain and sizes and _digest_of(files) == manifest["digest"]
        complete = {RESPONSES_CSV, SOFT_LABELS_CSV} <= set(files)
        categories = manifest["categories"]
        CategorySet(tuple(categories))
    except (KeyError, TypeError, AttributeError, Refusal):
        raise _damaged(MANIFEST, "a part of it is missing or of the wrong form") from None
    if not (sound and complete and isinstance(categories, list) and isinstance(manifest.get("facts"), dict)):
        raise _damaged(MANIFEST, "its list of files does not match its digest")
    return manifest


def _verify(source: _Source, name: str, seal: Mapping[str, Any]) -> None:
    digest, length = hashlib.sha256(), 0
    try:
        with source.open(name) as file:
            # One piece past the promised length is enough to know, and all that a bomb gets to unpack.
            while length <= seal["bytes"] and (piece := file.read(_PIECE)):
                digest.update(piece)
                length += len(piece)
    except (KeyError, FileNotFoundError):
        raise _damaged(name, "it is missing") from None
    except _UNREADABLE as error:
        raise _damaged(name, str(error)) from None
    if length != seal["bytes"] or digest.hexdigest() != seal["sha256"]:
        raise _damaged(name, "its content is not what the manifest recorded")


def _read(source: _Source) -> ReadRelease:
    manifest = _read_manifest(source)
    for name in sorted(manifest["files"]):
        _verify(source, name, manifest["files"][name])
    categories = tuple(manifest["categories"])

    pooled = _read_table(source, SOFT_LABELS_CSV, _IMAGE_COLUMNS, categories)
    responses = _read_table(source, RESPONSES_CSV, _RESPONSE_COLUMNS, [f"soft_{category}" for category in categories])
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
    )


@dataclass(frozen=True, slots=True)
class _Table:
    columns: dict[str, list[str]]
    labels: NDArray[np.float64]


def _read_table(source: _Source, name: str, leading: Sequence[str], soft: Sequence[str]) -> _Table:
    """The leading columns as text and the last, ``soft``, as (rows, K) soft labels.

    Columns are found by place, for a category may be called ``image``.
    """
    labels = array("d")
    columns: dict[str, list[str]] = {column: [] for column in leading}
    try:
        with source.open(name) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
            rows = csv.reader(text, strict=True)
            header = next(rows)
            if [*header[: len(leading)], *header[len(leading) :][-len(soft) :]] != [*leading, *soft]:
                raise ValueError("its header is not that of a release")
            for row in rows:
                if len(row) != len(header):
                    raise ValueError("a row is too short or too long")
                for column, value in zip(leading, row[: len(leading)], strict=True):
                    columns[column].append(value)
                labels.extend(map(float, row[-len(soft) :]))
        table = np.array(labels, dtype=np.float64).reshape(-1, len(soft))
        check_simplex(table, name="a label")
    except (csv.Error, StopIteration, ValueError) as error:
        raise _damaged(name, str(error) or "it is empty") from None
    return _Table(columns, table)


def _integers(values: Sequence[str], name: str) -> NDArray[np.int64]:
    try:
        return np.array([int(value) for value in values], dtype=np.int64)
    except (ValueError, OverflowError):
        raise _damaged(name, "a number is expected where there is none") from None
