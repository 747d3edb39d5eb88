"""The .npy files of a release, among them the layout of CIFAR-10H (Peterson et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicit.labels.release_files.common import Sink
from elicit.labels.release_files.contents import Contents, Pooled

Told = Callable[[int], None]


def _header(out: Sink, shape: tuple[int, ...], kind: type[np.generic]) -> None:
    # Little-endian on every machine.
    description = {"descr": np.dtype(kind).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, description)


def write_annotator_soft_labels(out: Sink, contents: Contents, told: Told) -> None:
    """(R, K) float64: row r is the soft label of row r of the responses."""
    _header(out, contents.labels.shape, np.float64)
    for chunk, labels in contents.chunks():
        out.write(labels.astype("<f8").tobytes())
        told(chunk.stop)


def image_array(kind: type[np.generic], values: Callable[[Pooled], NDArray[Any]]) -> Callable[..., None]:
    """A writer of one row for each pooled image."""

    def write(out: Sink, contents: Contents, told: Told) -> None:
        array = values(contents.pooled)
        _header(out, array.shape, kind)
        for rows in contents.image_slices():
            out.write(array[rows].astype(np.dtype(kind).newbyteorder("<")).tobytes())
            told(rows.stop)

    return write


def _shares(pooled: Pooled) -> NDArray[np.float64]:
    # An image that people saw as a repeat only has no first vote: its row is 0.
    return np.asarray(pooled.votes / np.maximum(pooled.votes.sum(axis=1, keepdims=True), 1))


write_images = image_array(np.int64, lambda pooled: pooled.images)
"""(N,) int64: the images of the other arrays' rows."""
write_soft_labels = image_array(np.float64, lambda pooled: pooled.labels)
"""(N, K) float64: pooled labels."""
write_cifar10h_counts = image_array(np.int64, lambda pooled: pooled.votes)
"""(N, K) int64: votes for the most likely class."""
write_cifar10h_probs = image_array(np.float64, _shares)
"""(N, K) float64: those votes as shares."""
