"""The Parquet files of a release. They need pyarrow, the extra ``formats``.

A soft label is a list of fixed size K; the names of its places are in the schema's metadata under ``categories``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicit.labels.release_files.columns import KINDS, UNKNOWN_DURATION
from elicit.labels.release_files.common import Sink, canonical, pyarrow_module
from elicit.labels.release_files.contents import Contents

Told = Callable[[int], None]

# Numbers in a row group: as large as readers like them, and little to hold.
_GROUP_SIZE = 1 << 20


def write_responses_parquet(out: Sink, contents: Contents, told: Told) -> None:
    """One row a response, as in ``responses.csv``; the answers are lists."""
    pa = pyarrow_module()
    text = pa.string()
    label = pa.list_(pa.float64(), len(contents.categories))
    schema = _schema(
        contents,
        annotator=text,
        image=pa.int64(),
        image_sha256=text,
        kind=text,
        position=pa.int64(),
        duration_ms=pa.int64(),
        named=pa.list_(text),
        percentages=pa.list_(pa.float64()),
        impossible=pa.list_(text),
        category_order=pa.list_(text),
        soft_label=label,
    )
    responses = contents.responses
    digests = responses.digests
    names = pa.array(list(contents.categories), text)
    annotators, kinds = pa.array(responses.annotators, text), pa.array(list(KINDS), text)
    orders = [np.array(order, dtype=np.int64) for order in responses.orders]
    with _Groups(out, schema, len(contents.categories)) as groups:
        for chunk, labels in contents.chunks():
            shown = [orders[code] for code in chunk.orders.tolist()]
            unknown = chunk.durations == UNKNOWN_DURATION
            groups.add(
                annotators.take(pa.array(chunk.annotators)),
                pa.array(chunk.images),
                pa.array([digests[image] for image in chunk.images.tolist()], text),
                kinds.take(pa.array(chunk.kinds)),
                pa.array(chunk.positions),
                pa.array(chunk.durations, mask=unknown),
                _lists(pa, names.take(pa.array(chunk.named_categories)), chunk.named_lengths),
                _lists(pa, pa.array(chunk.named_percentages), chunk.named_lengths),
                _lists(pa, names.take(pa.array(chunk.impossible_categories)), chunk.impossible_lengths),
                _lists(pa, names.take(pa.array(np.concatenate(shown))), np.array([len(each) for each in shown])),
                pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel()), type=label),
            )
            told(chunk.stop)


def write_soft_labels_parquet(out: Sink, contents: Contents, told: Told) -> None:
    """One row an image: the pooled label."""
    pa = pyarrow_module()
    label = pa.list_(pa.float64(), len(contents.categories))
    schema = _schema(contents, image=pa.int64(), image_sha256=pa.string(), annotators=pa.int64(), soft_label=label)
    pooled, digests = contents.pooled, contents.responses.digests
    with _Groups(out, schema, len(contents.categories)) as groups:
        for rows in contents.image_slices():
            images = pooled.images[rows]
            groups.add(
                pa.array(images),
                pa.array([digests[image] for image in images.tolist()], pa.string()),
                pa.array(pooled.counts[rows]),
                pa.FixedSizeListArray.from_arrays(pa.array(pooled.labels[rows].ravel()), type=label),
            )
            told(rows.stop)


def _schema(contents: Contents, **columns: Any) -> Any:
    pa = pyarrow_module()
    fields = [pa.field(name, kind, nullable=name == "duration_ms") for name, kind in columns.items()]
    return pa.schema(fields, metadata={"categories": canonical(list(contents.categories))})


def _lists(pa: Any, values: Any, lengths: NDArray[Any]) -> Any:
    return pa.ListArray.from_arrays(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), values)


class _Groups:
    """Gathers chunks to row groups, so that the file does not depend on how the rows were cut."""

    def __init__(self, out: Sink, schema: Any, categories: int) -> None:
        self._pa, self._schema = pyarrow_module(), schema
        self._rows = max(1, _GROUP_SIZE // categories)
        self._held: list[Any] = []
        self._writer = pyarrow_module("pyarrow.parquet").ParquetWriter(
            self._pa.PythonFile(out, mode="w"), schema, version="2.6", compression="zstd", compression_level=3
        )

    def __enter__(self) -> _Groups:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write(everything=True)
        self._writer.close()

    def add(self, *columns: Any) -> None:
        self._held.append(self._pa.table(list(columns), schema=self._schema))
        if sum(table.num_rows for table in self._held) >= self._rows:
            self._write(everything=False)

    def _write(self, *, everything: bool) -> None:
        held = self._pa.concat_tables(self._held) if self._held else self._schema.empty_table()
        start = 0
        while held.num_rows - start >= self._rows or (everything and start < held.num_rows):
            self._writer.write_table(held.slice(start, self._rows), row_group_size=self._rows)
            start += self._rows
        self._held = [held.slice(start)] if start < held.num_rows else []
