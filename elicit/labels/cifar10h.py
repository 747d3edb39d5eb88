"""The layouts of CIFAR-10H (Peterson et al. 2019), and a pooled label against such a reference.

``counts.npy``: (N, K) integers, the hard votes for each class; ``probs.npy``: (N, K) float64, their shares.
Row i is image i of the dataset, in the dataset's order; a row without votes (zeros) or of nan has no label.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.errors import Refusal
from elicit.labels.simplex import check_simplex, entropy, hellinger, js, kl, total_variation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The published shares come from single precision in places.
_TOLERANCE = 1e-6


def read(path: Path | str) -> Floats:
    """(N, K) float64 probabilities from either layout; nan in the rows of images without a label.

    Raises Refusal ``reference_unreadable``: no such file, no array of numbers, or rows that are neither votes
    nor probabilities.
    """
    path = Path(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Refusal("reference_unreadable", f"{path} can't be read: {error}.") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] < 2:
        raise Refusal("reference_unreadable", f"{path} holds no table of images by classes.")
    if np.issubdtype(array.dtype, np.integer):
        return from_counts(array, name=path.name)
    if not np.issubdtype(array.dtype, np.floating):
        raise Refusal("reference_unreadable", f"{path} holds {array.dtype}, not numbers.")
    shares: Floats = array.astype(np.float64)
    labelled = ~np.isnan(shares).all(axis=1)
    try:
        check_simplex(shares[labelled], tolerance=_TOLERANCE, name="a row")
    except ValueError as error:
        raise Refusal("reference_unreadable", f"{path.name} holds no probabilities: {error}") from None
    return shares


def from_counts(counts: ArrayLike, *, name: str = "the table") -> Floats:
    """(N, K) shares of the votes ``counts`` (N, K), nan where an image has none."""
    votes = np.asarray(counts)
    if (votes < 0).any():
        raise Refusal("reference_unreadable", f"{name} holds a negative number of votes.")
    sums = votes.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(votes, sums, out=np.full(votes.shape, np.nan), where=sums > 0))


def write_probs(path: Path | str, images: ArrayLike, soft_labels: ArrayLike, *, size: int | None = None) -> None:
    """Write ``probs.npy``: ``soft_labels`` (N, K) at the rows ``images`` (N,) of ``size`` rows, nan elsewhere.

    ``size``: images of the whole dataset; by default up to the last one given. The file appears complete or
    not at all. Raises ValueError for labels off the simplex, images given twice or outside 0..size-1.
    """
    labels = check_simplex(soft_labels, name="soft_labels")
    _write(path, _table(images, labels, size, np.nan))


def write_counts(
    path: Path | str, images: ArrayLike, classes: ArrayLike, *, categories: int, size: int | None = None
) -> None:
    """Write ``counts.npy`` from R hard votes: ``classes`` (R,) in 0..categories-1 on ``images`` (R,).

    ``size`` as in ``write_probs``; images without votes are rows of zeros. Raises ValueError for a class or
    image outside its range.
    """
    voted, chosen = np.asarray(images), np.asarray(classes)
    if voted.ndim != 1 or voted.shape != chosen.shape:
        raise ValueError(f"images and classes must have one shape (R,), got {voted.shape} and {chosen.shape}.")
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < categories:
        raise ValueError(f"a class lies outside 0..{categories - 1}.")
    rows, place = np.unique(voted, return_inverse=True)
    votes = np.bincount(place * categories + chosen, minlength=len(rows) * categories)
    _write(path, _table(rows, votes.astype(np.int64).reshape(-1, categories), size, 0))


def _table(images: ArrayLike, values: NDArray[np.generic], size: int | None, empty: float) -> NDArray[np.generic]:
    rows = np.asarray(images)
    if rows.shape != values.shape[:1] or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"images must be integers of shape (N,) for values {values.shape}, got {rows.shape}.")
    last = int(rows.max()) + 1 if rows.size else 0
    size = last if size is None else size
    if rows.size and (rows.min() < 0 or last > size):
        raise ValueError(f"an image lies outside 0..{size - 1}.")
    if len(np.unique(rows)) != len(rows):
        raise ValueError("an image is given twice.")
    table: NDArray[np.generic] = np.full((size, values.shape[1]), empty, dtype=values.dtype)
    table[rows] = values
    return table


def _write(path: Path | str, table: NDArray[np.generic]) -> None:
    write_whole(Path(path), lambda part: _save(part, table))


def _save(path: Path, table: NDArray[np.generic]) -> None:
    with path.open("wb") as out:
        np.save(out, table, allow_pickle=False)


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file beside ``path``, then put it in its place."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Means over the images, in nats where it is information; ``against`` says of what."""

    images: int
    total_variation: float
    kl: float
    js: float
    hellinger: float
    entropy: float
    reference_entropy: float
    entropy_correlation: float | None
    accuracy: float


def against(soft_labels: ArrayLike, reference: ArrayLike) -> Comparison:
    """How far ``soft_labels`` (N, K) lie from ``reference`` (N, K), row by row.

    ``kl`` is KL(reference || 0.99 label + 0.01 / K). ``entropy_correlation`` is Pearson's, None where one side
    does not vary. ``accuracy``: the share of images whose most probable class is the reference's (ties: the
    first). Raises ValueError for wrong shapes or no image.
    """
    labels = check_simplex(soft_labels, name="soft_labels")
    truth = check_simplex(reference, tolerance=_TOLERANCE, name="the reference")
    if labels.ndim != 2 or labels.shape != truth.shape or not len(labels):
        raise ValueError(f"labels and reference must have one shape (N, K), got {labels.shape} and {truth.shape}.")
    truth = truth / truth.sum(axis=1, keepdims=True)
    ours, theirs = entropy(labels), entropy(truth)
    varies = len(ours) > 1 and ours.std() > 0 and theirs.std() > 0
    return Comparison(
        images=len(labels),
        total_variation=float(total_variation(truth, labels).mean()),
        kl=float(kl(truth, labels).mean()),
        js=float(js(truth, labels).mean()),
        hellinger=float(hellinger(truth, labels).mean()),
        entropy=float(ours.mean()),
        reference_entropy=float(theirs.mean()),
        entropy_correlation=float(np.corrcoef(ours, theirs)[0, 1]) if varies else None,
        accuracy=float((labels.argmax(axis=1) == truth.argmax(axis=1)).mean()),
    )
