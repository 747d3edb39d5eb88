"""The text files of a release: CSV, lines of JSON, and the published layouts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from elicit.labels.release_files.columns import KINDS, UNKNOWN_DURATION, Chunk, Integers
from elicit.labels.release_files.common import IMAGE_COLUMNS, RESPONSE_COLUMNS, Sink, csv_cell
from elicit.labels.release_files.contents import (
    MAIN,
    ByBytes,
    Contents,
    Objects,
    numbers,
    quoted,
    table,
)

Told = Callable[[int], None]


def write_responses_csv(out: Sink, contents: Contents, told: Told) -> None:
    """One row a response: what was said, and its soft label."""
    responses, categories = contents.responses, [csv_cell(name) for name in contents.categories]
    # Room for two named categories at least, so that the usual release has the usual columns.
    places = max(2, responses.most_named)
    header = [
        *RESPONSE_COLUMNS,
        *(f"{what}_{place}" for place in range(1, places + 1) for what in ("category", "percentage")),
        *(csv_cell(f"impossible_{name}") for name in contents.categories),
        "category_order",
        *(csv_cell(f"soft_{name}") for name in contents.categories),
    ]
    out.text(",".join(header) + "\n")

    names, annotators = table(categories), table([csv_cell(name) for name in responses.annotators])
    digests = {image: csv_cell(digest) for image, digest in responses.digests.items()}
    flags = ByBytes(lambda ruled_out: _flags(ruled_out, len(categories)), len(categories))
    said = len(RESPONSE_COLUMNS)
    ruled_out = said + 2 * places
    for chunk, labels in contents.chunks():
        cells: Objects = np.empty((len(chunk), ruled_out + 2 + len(categories)), dtype=np.object_)
        cells[:, 0] = annotators[chunk.annotators]
        cells[:, 1] = texts_of(chunk.images)
        cells[:, 2] = [digests[image] for image in chunk.images.tolist()]
        cells[:, 3] = _KINDS[chunk.kinds]
        cells[:, 4] = texts_of(chunk.positions)
        cells[:, 5] = np.where(chunk.durations == UNKNOWN_DURATION, "", texts_of(chunk.durations))
        cells[:, said:ruled_out] = ""
        row, column = np.repeat(np.arange(len(chunk)), chunk.named_lengths), said + 2 * chunk.named_places
        cells[row, column] = names[chunk.named_categories]
        cells[row, column + 1] = numbers(chunk.named_percentages)
        cells[:, ruled_out] = flags.of(chunk.impossible)
        cells[:, ruled_out + 1] = _orders(contents, chunk, lambda order: " ".join(map(str, order)))
        cells[:, ruled_out + 2 :] = numbers(labels)
        out.text("\n".join(map(",".join, cells.tolist())) + "\n")
        told(chunk.stop)


def write_responses_jsonl(out: Sink, contents: Contents, told: Told) -> None:
    """One object a line: what was said, by category name; the keys in rising order."""
    responses = contents.responses
    names = [quoted(name) for name in contents.categories]
    annotators = table([quoted(name) for name in responses.annotators])
    digests = {image: quoted(digest) for image, digest in responses.digests.items()}
    kinds = table([quoted(kind) for kind in KINDS])
    openings = table([f'{{"category":{name},"percentage":' for name in names])
    impossible = _impossible_names(names)
    for chunk, _ in contents.chunks():
        said = openings[chunk.named_categories] + numbers(chunk.named_percentages) + "}"
        columns = zip(
            annotators[chunk.annotators],
            _orders(contents, chunk, lambda order: ",".join(names[category] for category in order)),
            np.where(chunk.durations == UNKNOWN_DURATION, "null", texts_of(chunk.durations)),
            chunk.images.tolist(),
            impossible.of(chunk.impossible),
            kinds[chunk.kinds],
            _joined(said, chunk.named_lengths),
            chunk.positions.tolist(),
            strict=True,
        )
        lines = [
            f'{{"annotator":{annotator},"category_order":[{order}],"duration_ms":{duration},"image":{image},'
            f'"image_sha256":{digests[image]},"impossible":[{ruled_out}],"kind":{kind},"named":[{named}],'
            f'"position":{position}}}\n'
            for annotator, order, duration, image, ruled_out, kind, named, position in columns
        ]
        out.text("".join(lines))
        told(chunk.stop)


def write_soft_labels_csv(out: Sink, contents: Contents, told: Told) -> None:
    """One row an image: how many annotators it pools, and the pooled label."""
    out.text(",".join([*IMAGE_COLUMNS, *map(csv_cell, contents.categories)]) + "\n")
    pooled, digests = contents.pooled, contents.responses.digests
    for rows in contents.image_slices():
        columns = zip(
            pooled.images[rows].tolist(), pooled.counts[rows].tolist(), numbers(pooled.labels[rows]), strict=True
        )
        out.text("".join(f"{i},{csv_cell(digests[i])},{count},{','.join(label)}\n" for i, count, label in columns))
        told(rows.stop)


def write_cifar10s(out: Sink, contents: Contents, told: Told) -> None:
    """``{"<image>": [[K numbers], ...]}``: the labels of main trials, a line an image."""
    published = _Published(out)
    for chunk, labels in contents.chunks():
        main = np.flatnonzero(chunk.kinds == MAIN)
        entries = [f"[{','.join(label)}]" for label in numbers(labels[main]).tolist()]
        published.add(chunk.images[main], entries)
        told(chunk.stop)
    published.close()


def write_cifar10s_answers(out: Sink, contents: Contents, told: Told) -> None:
    """``{"<image>": [{what was said}, ...]}``: the first two categories of main trials, a line an image."""
    names = [quoted(name) for name in contents.categories]
    impossible = _impossible_names(names)
    published, named_names = _Published(out), table(names)
    for chunk, _ in contents.chunks():
        main = np.flatnonzero(chunk.kinds == MAIN)
        first = (np.cumsum(chunk.named_lengths) - chunk.named_lengths)[main]
        # Of an answer with one category the place after is another's: it is taken and not used.
        second = np.minimum(first + 1, len(chunk.named_categories) - 1)
        has_second = chunk.named_lengths[main] > 1
        percentages = numbers(chunk.named_percentages)
        columns = zip(
            impossible.of(chunk.impossible[main]),
            named_names[chunk.named_categories[first]],
            percentages[first],
            np.where(has_second, named_names[chunk.named_categories[second]], '"No"'),
            np.where(has_second, percentages[second], "null"),
            strict=True,
        )
        entries = [
            f'{{"Impossible Class(es)":[{ruled_out}],"Most Probable Class":{top},'
            f'"Most Probable Class Prob":{percentage},"Second Most Probable Class":{next_top},'
            f'"Second Most Probable Class Prob":{next_percentage}}}'
            for ruled_out, top, percentage, next_top, next_percentage in columns
        ]
        published.add(chunk.images[main], entries)
        told(chunk.stop)
    published.close()


_KINDS = table(list(KINDS))


def texts_of(values: Integers) -> Objects:
    """Each integer as text."""
    return table(list(map(str, values.tolist())))


def _flags(ruled_out: Integers, categories: int) -> str:
    flags = ["0"] * categories
    for category in ruled_out:
        flags[category] = "1"
    return ",".join(flags)


def _impossible_names(names: list[str]) -> ByBytes:
    return ByBytes(lambda ruled_out: ",".join(names[category] for category in ruled_out), len(names))


def _orders(contents: Contents, chunk: Chunk, text: Callable[[tuple[int, ...]], str]) -> Objects:
    """The text of the order that each response of the chunk was asked in."""
    distinct, where = np.unique(chunk.orders, return_inverse=True)
    return np.asarray(table([text(contents.responses.orders[code]) for code in distinct.tolist()])[where])


def _joined(texts: Objects, lengths: Integers) -> list[str]:
    """Runs of texts of these lengths, each with commas between."""
    edges = [0, *np.cumsum(lengths).tolist()]
    listed: list[str] = texts.tolist()
    return [",".join(listed[start:stop]) for start, stop in pairwise(edges)]


class _Published:
    """Writes ``{"<image>": [entry, ...]}``, a line an image, however the entries are cut into chunks."""

    def __init__(self, out: Sink) -> None:
        self._out, self._image = out, -1
        self._opening = "{\n"

    def add(self, images: Integers, entries: list[str]) -> None:
        """More entries, the images rising."""
        pieces: list[str] = []
        for image, entry in zip(images.tolist(), entries, strict=True):
            if image == self._image:
                pieces += (",", entry)
            else:
                pieces += (self._opening, f'"{image}": [', entry)
                self._image, self._opening = image, "],\n"
        self._out.text("".join(pieces))

    def close(self) -> None:
        self._out.text("{\n}\n" if self._image < 0 else "]\n}\n")
