"""Pools: many annotators' soft labels of an image to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.simplex import check_simplex

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(eq=False)
class MeanPool:
    """The plain mean over the annotators of each image (the linear pool; Collins et al. 2022).

    An annotator who answered an image more than once counts once: the own answers are averaged first.

    After ``fit``: ``images_`` (N,) int64, ascending; ``soft_labels_`` (N, K) float64; ``counts_`` (N,) int64,
    the annotators of each image. The order of the input's rows makes no difference as long as nobody
    answered an image twice.
    """

    images_: Integers = field(init=False, repr=False)
    soft_labels_: Floats = field(init=False, repr=False)
    counts_: Integers = field(init=False, repr=False)

    def fit(self, soft_labels: ArrayLike, images: ArrayLike, annotators: ArrayLike) -> Self:
        """Pool ``soft_labels`` (R, K) by ``images`` (R,) integers; ``annotators`` (R,) are names or numbers.

        Raises ValueError for wrong shapes, labels off the simplex, or no row at all.
        """
        labels = np.asarray(soft_labels, dtype=np.float64)
        image_of, annotator_of = np.asarray(images), np.asarray(annotators)
        if labels.ndim != 2 or image_of.shape != labels.shape[:1] or annotator_of.shape != labels.shape[:1]:
            raise ValueError(
                "soft_labels must be (R, K), images (R,) and annotators (R,), got "
                f"{labels.shape}, {image_of.shape} and {annotator_of.shape}."
            )
        if not len(labels):
            raise ValueError("there is no soft label to pool.")
        if not np.issubdtype(image_of.dtype, np.integer):
            raise ValueError(f"images must be integers, got {image_of.dtype}.")
        check_simplex(labels, name="soft_labels")

        order = np.lexsort((annotator_of, image_of))
        labels, image_of, annotator_of = labels[order], image_of[order], annotator_of[order]
        new_image = _starts(image_of)
        new_person = new_image | _starts(annotator_of)

        persons = _mean_by(labels, new_person)
        self.images_ = image_of[new_image].astype(np.int64)
        self.soft_labels_ = _mean_by(persons, new_image[new_person])
        self.counts_ = np.bincount(np.cumsum(new_image[new_person]) - 1).astype(np.int64)
        return self

    def fit_predict(self, soft_labels: ArrayLike, images: ArrayLike, annotators: ArrayLike) -> Floats:
        """``fit``, then the pooled labels (N, K) in the order of ``images_``."""
        return self.fit(soft_labels, images, annotators).soft_labels_


def _starts(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(R,) True where a run of equal values begins."""
    first = np.ones(len(values), dtype=np.bool_)
    first[1:] = values[1:] != values[:-1]
    return first


def _mean_by(labels: Floats, starts: NDArray[np.bool_]) -> Floats:
    """The mean of each run of rows that begins where ``starts`` is True."""
    run = np.cumsum(starts) - 1
    sums = np.stack([np.bincount(run, weights=column) for column in labels.T], axis=1)
    return np.asarray(sums / np.bincount(run)[:, np.newaxis])
