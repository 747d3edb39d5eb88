"""Responses as columns: taken in by chunks, spooled to a scratch folder, handed out sorted by chunks.

What stays in memory grows slowly: the names of annotators, the digests of images, the orders of categories, and
about 40 bytes a response for the sort. All else is on the disk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from elicit.labels.elicited import Elicited
from elicit.labels.release_files.common import Seal, canonical, durable
from elicit.labels.varieties import Answers, places_within

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

KINDS = ("practice", "main", "repeat", "attention")
UNKNOWN_DURATION = -1
# Numbers of a (rows, K) array that are worked on at a time, and the most rows.
CHUNK_SIZE = 1 << 17
MOST_ROWS = 8192


def rows_at_a_time(categories: int) -> int:
    """How many rows of K columns make a chunk."""
    return max(1, min(MOST_ROWS, CHUNK_SIZE // categories))


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
class ResponseColumns:
    """R responses as columns, each as ReleasedResponse has it, in any order.

    ``durations``: -1 if unknown. The answers lie end to end: response r names as many categories as
    ``named_lengths[r]`` says, most likely first, and rules out ``impossible_lengths[r]``.
    """

    annotators: Sequence[str]
    images: Sequence[int] | Integers
    image_sha256: Sequence[str]
    kinds: Sequence[str]
    positions: Sequence[int] | Integers
    durations: Sequence[int] | Integers
    category_orders: Sequence[tuple[int, ...]]
    named_lengths: Sequence[int] | Integers
    named_categories: Sequence[int] | Integers
    named_percentages: Sequence[float] | Floats
    impossible_lengths: Sequence[int] | Integers
    impossible_categories: Sequence[int] | Integers

    def __len__(self) -> int:
        return len(self.annotators)

    @classmethod
    def of(cls, responses: Sequence[ReleasedResponse]) -> Self:
        """The same responses as columns."""
        named = [response.elicited.named for response in responses]
        impossible = [sorted(response.elicited.impossible) for response in responses]
        return cls(
            annotators=[response.annotator for response in responses],
            images=[response.image for response in responses],
            image_sha256=[response.image_sha256 for response in responses],
            kinds=[response.kind for response in responses],
            positions=[response.position for response in responses],
            durations=[UNKNOWN_DURATION if r.duration_ms is None else r.duration_ms for r in responses],
            category_orders=[response.category_order for response in responses],
            named_lengths=[len(each) for each in named],
            named_categories=[category for each in named for category, _ in each],
            named_percentages=[percentage for each in named for _, percentage in each],
            impossible_lengths=[len(each) for each in impossible],
            impossible_categories=list(chain.from_iterable(impossible)),
        )


def in_columns(responses: Iterable[ReleasedResponse | ResponseColumns]) -> Iterator[ResponseColumns]:
    """The same responses, single ones gathered to chunks."""
    single: list[ReleasedResponse] = []
    for response in responses:
        if isinstance(response, ReleasedResponse):
            single.append(response)
            if len(single) < MOST_ROWS:
                continue
        if single:
            yield ResponseColumns.of(single)
            single = []
        if isinstance(response, ResponseColumns):
            yield response
    if single:
        yield ResponseColumns.of(single)


# The spool


_COLUMNS: dict[str, type[np.generic]] = {
    "image": np.int64,
    "annotator": np.int32,
    "kind": np.int8,
    "position": np.int64,
    "duration": np.int64,
    "order": np.int32,
    "named_length": np.int16,
    "impossible_length": np.int16,
    "named_category": np.int16,
    "named_percentage": np.float64,
    "impossible_category": np.int16,
}
_TABLES = "tables.json"


def _ints(values: Sequence[int] | Integers) -> Integers:
    return np.asarray(values, dtype=np.int64)


class _Tables:
    """What columns hold numbers of: names in the order in which they came."""

    def __init__(self, categories: int) -> None:
        self.annotators: dict[str, int] = {}
        self.orders: dict[tuple[int, ...], int] = {(): 0}
        self.digests: dict[int, str] = {}
        self._everything = list(range(categories))

    def add_images(self, images: Iterable[int], digests: Iterable[str]) -> None:
        for image, digest in dict.fromkeys(zip(images, digests, strict=True)):
            if self.digests.setdefault(image, digest) != digest:
                raise ValueError(f"image {image} comes with two digests.")

    def annotator_codes(self, annotators: Iterable[str]) -> list[int]:
        known = self.annotators
        codes = [known.setdefault(annotator, len(known)) for annotator in annotators]
        if "" in known:
            raise ValueError("a response has no annotator.")
        return codes

    def order_codes(self, orders: Iterable[tuple[int, ...]]) -> list[int]:
        known, before = self.orders, len(self.orders)
        codes = [known.setdefault(order, len(known)) for order in orders]
        for order in islice(known, before, None):
            if sorted(order) != self._everything:
                raise ValueError(
                    f"category_order must list each of {len(self._everything)} categories once, got {order}."
                )
        return codes


def spool(
    folder: Path,
    responses: Iterable[ReleasedResponse | ResponseColumns],
    *,
    categories: int,
) -> dict[str, Seal]:
    """Write responses to files in ``folder``, and return the seal of each.

    Raises ValueError for responses that contradict themselves or each other.
    """
    tables = _Tables(categories)
    rows, most_named = 0, 0
    kind_codes = {kind: code for code, kind in enumerate(KINDS)}
    by_kind: Counter[str] = Counter()
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(durable(folder / f"{name}.column")) for name in _COLUMNS}
        for chunk in in_columns(responses):
            if not len(chunk):
                continue
            for kind in set(chunk.kinds) - kind_codes.keys():
                raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
            by_kind.update(chunk.kinds)
            images = _ints(chunk.images)
            tables.add_images(images.tolist(), chunk.image_sha256)
            columns: dict[str, Any] = {
                "image": images,
                "annotator": tables.annotator_codes(chunk.annotators),
                "kind": [kind_codes[kind] for kind in chunk.kinds],
                "position": chunk.positions,
                "duration": chunk.durations,
                "order": tables.order_codes(chunk.category_orders),
                "named_length": chunk.named_lengths,
                "impossible_length": chunk.impossible_lengths,
                "named_category": chunk.named_categories,
                "named_percentage": chunk.named_percentages,
                "impossible_category": chunk.impossible_categories,
            }
            # The answers must be ones before anything is written of them.
            Answers.from_flat(
                _ints(chunk.named_lengths),
                _ints(chunk.named_categories),
                np.asarray(chunk.named_percentages, dtype=np.float64),
                _ints(chunk.impossible_lengths),
                _ints(chunk.impossible_categories),
                categories=categories,
            )
            for name, values in columns.items():
                sinks[name].write(np.ascontiguousarray(values, dtype=_COLUMNS[name]).tobytes())
            rows += len(chunk)
            most_named = max(most_named, int(_ints(chunk.named_lengths).max()))
    seals = {f"{name}.column": sink.seal for name, sink in sinks.items()}
    with durable(folder / _TABLES) as out:
        out.text(
            canonical(
                {
                    "rows": rows,
                    "most_named": most_named,
                    "by_kind": {kind: by_kind[kind] for kind in KINDS},
                    "annotators": list(tables.annotators),
                    "orders": [list(order) for order in tables.orders],
                    "images": list(tables.digests),
                    "digests": list(tables.digests.values()),
                }
            )
        )
    return {**seals, _TABLES: out.seal}


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The rows ``start`` to ``stop`` of a release's responses: numbers of tables, and what was said."""

    start: int
    images: Integers
    annotators: Integers
    kinds: Integers
    positions: Integers
    durations: Integers
    orders: Integers
    named_lengths: Integers
    named_categories: Integers
    named_percentages: Floats
    impossible_lengths: Integers
    impossible_categories: Integers
    categories: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def stop(self) -> int:
        return self.start + len(self)

    @property
    def answers(self) -> Answers:
        return Answers.from_flat(
            self.named_lengths,
            self.named_categories,
            self.named_percentages,
            self.impossible_lengths,
            self.impossible_categories,
            categories=self.categories,
        )

    @property
    def impossible(self) -> NDArray[np.bool_]:
        """(rows, K) the categories that were ruled out."""
        found = np.zeros((len(self), self.categories), dtype=np.bool_)
        found[np.repeat(np.arange(len(self)), self.impossible_lengths), self.impossible_categories] = True
        return found

    @property
    def named_places(self) -> Integers:
        """For each named category of the chunk, its place in its answer, from 0."""
        return places_within(self.named_lengths)


class Spooled:
    """Spooled responses, in the order of a release: by image, annotator, position, and on to the last bit.

    ``annotators``: names by number, in rising order. ``orders``: category orders by number.
    """

    def __init__(self, folder: Path, categories: int) -> None:
        tables: Mapping[str, Any] = json.loads((folder / _TABLES).read_text(encoding="utf-8"))
        self.categories = categories
        self.rows: int = tables["rows"]
        self.most_named: int = tables["most_named"]
        self.by_kind: dict[str, int] = tables["by_kind"]
        self.orders: list[tuple[int, ...]] = [tuple(order) for order in tables["orders"]]
        self.digests: dict[int, str] = dict(zip(tables["images"], tables["digests"], strict=True))
        self._columns = {name: self._open(folder / f"{name}.column", kind) for name, kind in _COLUMNS.items()}
        names: list[str] = tables["annotators"]
        by_name = sorted(range(len(names)), key=names.__getitem__)
        self.annotators = [names[code] for code in by_name]
        self._rank = np.empty(len(names), dtype=np.int64)
        self._rank[by_name] = np.arange(len(names))
        self._named_starts = self._starts("named_length")
        self._impossible_starts = self._starts("impossible_length")
        self._order = self._sorted()

    @staticmethod
    def _open(path: Path, kind: type[np.generic]) -> NDArray[Any]:
        # An empty file can't be mapped.
        return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)

    def _starts(self, name: str) -> Integers:
        ends = np.cumsum(self._columns[name], dtype=np.int64)
        ends -= self._columns[name]
        return np.asarray(ends)

    def _sorted(self) -> Integers:
        column = self._columns
        # Kinds in the order of their names, as the release's order has it.
        kind_rank = np.argsort(np.argsort(np.array(KINDS))).astype(np.int8)
        keys = (kind_rank[column["kind"]], column["position"], self._rank[column["annotator"]], column["image"])
        order: Integers = np.lexsort(keys).astype(np.int64)
        tied = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
        for key in keys:
            # By slices: a sorted copy of each column would be as large as the order itself.
            for start in range(0, len(tied), 1 << 20):
                rows = order[start : start + (1 << 20) + 1]
                values = key[rows]
                tied[start : start + len(rows) - 1] &= values[1:] == values[:-1]
        if tied.any():
            self._break_ties(order, tied)
        return order

    def _break_ties(self, order: Integers, tied: NDArray[np.bool_]) -> None:
        edges = np.flatnonzero(np.diff(np.concatenate(([False], tied, [False])).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2).tolist():
            rows = order[start : stop + 1].tolist()
            order[start : stop + 1] = sorted(rows, key=self._last_keys)

    def _last_keys(self, row: int) -> tuple[Any, ...]:
        chunk = self._take(np.array([row]), 0)
        return (
            tuple(zip(chunk.named_categories.tolist(), chunk.named_percentages.tolist(), strict=True)),
            sorted(chunk.impossible_categories.tolist()),
            int(chunk.durations[0]),
            self.orders[int(chunk.orders[0])],
        )

    def _take(self, rows: Integers, start: int) -> Chunk:
        column = self._columns
        named_lengths = column["named_length"][rows].astype(np.int64)
        impossible_lengths = column["impossible_length"][rows].astype(np.int64)
        named = np.repeat(self._named_starts[rows], named_lengths) + places_within(named_lengths)
        impossible = np.repeat(self._impossible_starts[rows], impossible_lengths) + places_within(impossible_lengths)
        return Chunk(
            start=start,
            images=np.asarray(column["image"][rows]),
            annotators=self._rank[column["annotator"][rows]],
            kinds=column["kind"][rows].astype(np.int64),
            positions=np.asarray(column["position"][rows]),
            durations=np.asarray(column["duration"][rows]),
            orders=column["order"][rows].astype(np.int64),
            named_lengths=named_lengths,
            named_categories=column["named_category"][named].astype(np.int64),
            named_percentages=np.asarray(column["named_percentage"][named]),
            impossible_lengths=impossible_lengths,
            impossible_categories=column["impossible_category"][impossible].astype(np.int64),
            categories=self.categories,
        )

    def __len__(self) -> int:
        return self.rows

    def chunks(self) -> Iterator[Chunk]:
        """All rows in order, a bounded number at a time."""
        step = rows_at_a_time(self.categories)
        for start in range(0, self.rows, step):
            yield self._take(self._order[start : start + step], start)

    def whole(self, name: str) -> NDArray[Any]:
        """One column in order, in memory; annotators by the number of their name."""
        values = self._columns[name][self._order]
        return self._rank[values] if name == "annotator" else values
