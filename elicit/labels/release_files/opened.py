"""Look into a release without reading all of it: a page of a million responses must not wait for them."""

from __future__ import annotations

import csv
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicit.labels.elicited import Elicited
from elicit.labels.errors import Refusal
from elicit.labels.release_files.columns import ReleasedResponse
from elicit.labels.release_files.common import (
    IMAGE_COLUMNS,
    IMAGES_NPY,
    RESPONSE_COLUMNS,
    RESPONSES_CSV,
    SOFT_LABELS_CSV,
    SOFT_LABELS_NPY,
)
from elicit.labels.release_files.reading import Folder, read_manifest


@dataclass(frozen=True, slots=True, eq=False)
class PooledImage:
    """One image of a release: its number, the digest of its pixels, annotators pooled, its label (K,)."""

    image: int
    sha256: str
    annotators: int
    label: NDArray[np.float64]


class OpenRelease:
    """A release's folder on one's own disk: N pooled images, R responses, K categories, each read when asked for.

    The seals of the files are not checked: `read_release` is for what comes from elsewhere. Raises Refusal as that
    does, and ``release_too_old`` for format 1, which has no arrays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = read_manifest(Folder(folder))
        if not {IMAGES_NPY, SOFT_LABELS_NPY} <= self.manifest["files"].keys():
            raise Refusal("release_too_old", f"{folder.name} has no arrays to look into; request a new release.")
        self.categories: tuple[str, ...] = tuple(self.manifest["categories"])

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """(N,) numbers of the pooled images, rising."""
        return np.asarray(self._array(IMAGES_NPY), dtype=np.int64)

    @cached_property
    def soft_labels(self) -> NDArray[np.float64]:
        """(N, K) pooled labels, mapped from the disk."""
        return self._array(SOFT_LABELS_NPY)

    def row_of(self, image: int) -> int | None:
        """The row of an image in the arrays; None where it is not among the pooled ones."""
        row = int(np.searchsorted(self.images, image))
        return row if row < len(self) and int(self.images[row]) == image else None

    def pooled(self, rows: Iterable[int]) -> list[PooledImage]:
        """These rows of the arrays, with what the table says of them."""
        with self._lines(SOFT_LABELS_CSV, IMAGE_COLUMNS.index("image")) as lines:
            found = []
            for row in rows:
                image = int(self.images[row])
                (cells,) = lines.of(image)
                _, sha256, annotators = cells[: len(IMAGE_COLUMNS)]
                found.append(PooledImage(image, sha256, int(annotators), np.array(self.soft_labels[row])))
        return found

    def responses_of(self, image: int) -> list[tuple[ReleasedResponse, NDArray[np.float64]]]:
        """What was said of an image, and the soft label (K,) of each answer; by annotator and position."""
        with self._lines(RESPONSES_CSV, RESPONSE_COLUMNS.index("image")) as lines:
            return [self._response(cells) for cells in lines.of(image)]

    def _response(self, cells: list[str]) -> tuple[ReleasedResponse, NDArray[np.float64]]:
        """One row of responses.csv, by place: a category may be called like a column."""
        categories = len(self.categories)
        annotator, image, sha256, kind, position, duration = cells[: len(RESPONSE_COLUMNS)]
        *said, order = cells[len(RESPONSE_COLUMNS) : -categories]
        named, flags = said[:-categories], said[-categories:]
        index = {name: place for place, name in enumerate(self.categories)}
        response = ReleasedResponse(
            annotator=annotator,
            image=int(image),
            image_sha256=sha256,
            kind=kind,
            position=int(position),
            elicited=Elicited(
                tuple(
                    (index[name], float(percentage))
                    for name, percentage in zip(named[::2], named[1::2], strict=True)
                    if name
                ),
                frozenset(place for place, flag in enumerate(flags) if flag == "1"),
            ),
            category_order=tuple(map(int, order.split())),
            duration_ms=int(duration) if duration else None,
        )
        return response, np.array(cells[-categories:], dtype=np.float64)

    # Whole columns

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(N,) annotators pooled."""
        column = IMAGE_COLUMNS.index("annotators")
        return np.array([int(cells[column]) for cells in self._leading(SOFT_LABELS_CSV, column)], dtype=np.int64)

    @cached_property
    def _said(self) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.str_]]:
        annotators, images, kinds = [], [], []
        wanted = [RESPONSE_COLUMNS.index(name) for name in ("annotator", "image", "kind")]
        # Names come many times over: one object each.
        names: dict[str, str] = {}
        for cells in self._leading(RESPONSES_CSV, max(wanted)):
            annotator, image, kind = (cells[column] for column in wanted)
            annotators.append(names.setdefault(annotator, annotator))
            images.append(int(image))
            kinds.append(names.setdefault(kind, kind))
        return np.array(annotators, dtype=np.str_), np.array(images, dtype=np.int64), np.array(kinds, dtype=np.str_)

    @property
    def annotators(self) -> NDArray[np.str_]:
        """(R,) pseudonyms."""
        return self._said[0]

    @property
    def response_images(self) -> NDArray[np.int64]:
        """(R,) the images of the responses."""
        return self._said[1]

    @property
    def kinds(self) -> NDArray[np.str_]:
        """(R,) the kinds of the trials."""
        return self._said[2]

    def _leading(self, name: str, last: int) -> Iterator[list[str]]:
        """The first cells of each row, up to the column ``last`` at least."""
        with (self._folder / name).open(encoding="utf-8", newline="") as file:
            next(file)
            for line in file:
                # No row is more than a line: names of categories are printable.
                yield next(csv.reader([line])) if '"' in line else line.split(",", last + 1)

    def _array(self, name: str) -> NDArray[Any]:
        return np.asarray(np.load(self._folder / name, mmap_mode="r", allow_pickle=False))

    @contextmanager
    def _lines(self, name: str, column: int) -> Iterator[_Lines]:
        with (
            (self._folder / name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            yield _Lines(data, column)


class _Lines:
    """The rows of a CSV file with the images' numbers in one column, rising: found by halving the file."""

    def __init__(self, data: mmap.mmap, column: int) -> None:
        self._data, self._column = data, column
        self._first = data.find(b"\n") + 1

    def of(self, image: int) -> list[list[str]]:
        """The cells of all rows about an image."""
        low, high = self._first, len(self._data)
        while low < high:
            start = self._data.rfind(b"\n", low, (low + high) // 2) + 1 or low
            cells, after = self._line(start)
            if int(cells[self._column]) < image:
                low = after
            else:
                high = start
        found = []
        while low < len(self._data):
            cells, low = self._line(low)
            if int(cells[self._column]) != image:
                break
            found.append(cells)
        return found

    def _line(self, start: int) -> tuple[list[str], int]:
        """The cells of the line that begins here, and where the next begins."""
        after = self._data.find(b"\n", start) + 1 or len(self._data)
        return next(csv.reader([self._data[start:after].decode().rstrip("\n")])), after
