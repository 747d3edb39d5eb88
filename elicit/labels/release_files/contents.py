"""What the writers of the single files are given, and how numbers become text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elicit.labels.categories import CategorySet
from elicit.labels.release_files.columns import KINDS, Chunk, Floats, Integers, Spooled, rows_at_a_time
from elicit.labels.release_files.common import JSON, Seal, Sink
from elicit.labels.release_files.recipe import Recipe

Objects = NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """N images: ``images`` (N,) ascending, ``labels`` (N, K), ``counts`` (N,) annotators pooled.

    ``votes`` (N, K): how many annotators found a class the most likely when they first saw the image.
    """

    images: Integers
    labels: Floats
    counts: Integers
    votes: Integers

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """All that a release is made of. ``labels`` (R, K): the responses' soft labels, in the release's order.

    ``files``: the seals of what is written already. ``left_out``: files that can't be written here, and why.
    """

    categories: CategorySet
    responses: Spooled
    labels: Floats
    pooled: Pooled
    recipe: Recipe
    facts: Mapping[str, JSON]
    counts: Mapping[str, Any]
    files: Mapping[str, Seal]
    left_out: Mapping[str, str]

    def chunks(self) -> Iterator[tuple[Chunk, Floats]]:
        """The responses in order, each chunk with its soft labels."""
        for chunk in self.responses.chunks():
            yield chunk, np.asarray(self.labels[chunk.start : chunk.stop])

    def image_slices(self) -> Iterator[slice]:
        """The pooled images in order, a bounded number at a time."""
        step = rows_at_a_time(len(self.categories))
        return (slice(start, min(start + step, len(self.pooled))) for start in range(0, len(self.pooled), step))


class Writer(Protocol):
    """Writes one file, and tells how many rows are in it so far."""

    def __call__(self, out: Sink, contents: Contents, told: Callable[[int], None], /) -> None: ...


MAIN = KINDS.index("main")


def numbers(values: Floats) -> Objects:
    """The shortest text of each double that reads back as the same, in the array's shape."""
    distinct, where = np.unique(values, return_inverse=True)
    # -0.0 equals 0.0: both are written as the one that was kept, and no label or percentage is below 0.
    texts = np.array(list(map(repr, (distinct + 0.0).tolist())), dtype=np.object_)
    return np.asarray(texts[where.reshape(values.shape)])


def table(texts: list[str]) -> Objects:
    """Texts to be taken by number."""
    found = np.empty(len(texts), dtype=np.object_)
    found[:] = texts
    return found


def quoted(text: str) -> str:
    """A text in JSON."""
    return json.dumps(text, ensure_ascii=False)


class ByBytes(dict[bytes, str]):
    """The texts of rows of bits, each made once."""

    def __init__(self, make: Callable[[NDArray[np.intp]], str], categories: int) -> None:
        super().__init__()
        self._make, self._categories = make, categories

    def __missing__(self, key: bytes) -> str:
        bits = np.unpackbits(np.frombuffer(key, dtype=np.uint8), count=self._categories)
        text = self._make(np.flatnonzero(bits))
        self[key] = text
        return text

    def of(self, rows: NDArray[np.bool_]) -> list[str]:
        """The text of each row (R, K)."""
        packed = np.packbits(rows, axis=1)
        width, raw = packed.shape[1], packed.tobytes()
        return [self[raw[start : start + width]] for start in range(0, len(raw), width)]
