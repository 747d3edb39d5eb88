"""Which image gains most from one more label, and which has enough.

``unsettled`` looks one answer ahead. ``settled`` is a rule for stopping, by the expected error: an image's mean label
errs because its annotators differ, and with M of them its squared error is v / M, summed over the classes, where v is
the spread between annotators. Two or three answers say little of v, so an image borrows from all others (empirical
Bayes, Efron & Morris 1973):

- its mean q is drawn towards what is confused with what, as if by ``BORROWED`` more annotators (``ConfusionPool``),
  so that a single certain answer isn't believed whole;
- in class c one expects the spread b q_c (1 - q_c). Hard votes have b = 1; people who state percentages have less.
  b is estimated over all images with at least two answers, held to ``USUAL_SPREAD`` as if by ``STEADY`` degrees of
  freedom;
- the image's own spread, of M - 1 degrees of freedom, is averaged with that, which counts as ``TRUSTED`` of them.

The expected error of M labels in total variation is then 1/2 sum over c of sqrt(2 v_c / (pi M)): each class's error
is taken as normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.aggregation import ConfusionPool
from elicit.labels.simplex import check_simplex, kl

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BORROWED = 0.25
"""Annotators' worth of what the other images show, in an image's mean."""
TRUSTED = 2.0
"""Degrees of freedom' worth of the spread that an image's mean makes one expect."""
USUAL_SPREAD = 0.5
"""b where no image has two answers."""
STEADY = 20.0
"""Degrees of freedom' worth of that in the estimate of b."""
# Answers that the look-ahead works on at a time: they stay in the processor's cache.
_ROWS = 1 << 14

LOOKED_AHEAD = 2.0
"""Answers' worth of what the other images make one expect of the next answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """What the answers so far say of N images.

    ``counts`` (N,): labels of each. ``variances`` (N, K): of one more annotator's label around what all would say,
    0..1.
    """

    counts: Integers
    variances: Floats

    def total_variation(self) -> Floats:
        """(N,) the expected error of the mean label, 0..1; that of one label where there is none."""
        each = np.sqrt(self.variances / np.maximum(self.counts, 1)[:, np.newaxis])
        return np.asarray(np.minimum(np.sqrt(0.5 / np.pi) * each.sum(axis=1), 1.0))


def _checked(labels: ArrayLike, images: ArrayLike, images_in_all: int) -> tuple[Floats, Integers]:
    rows, image = np.asarray(labels, dtype=np.float64), np.asarray(images)
    if rows.ndim != 2 or rows.shape[1] < 2 or image.shape != rows.shape[:1]:
        raise ValueError(f"labels must be (R, K) with K >= 2 and images (R,), got {rows.shape} and {image.shape}.")
    if images_in_all < 1:
        raise ValueError(f"images_in_all must be at least 1, got {images_in_all}.")
    if len(rows) and not (np.issubdtype(image.dtype, np.integer) and image.min() >= 0 and image.max() < images_in_all):
        raise ValueError(f"images must be integers in 0..{images_in_all - 1}.")
    return check_simplex(rows, name="labels") if len(rows) else rows, image


def spread(labels: ArrayLike, images: ArrayLike, *, images_in_all: int) -> Spread:
    """From ``labels`` (R, K) on the simplex of ``images`` (R,), integers in 0..images_in_all-1; R may be 0.

    Every row counts as another annotator: leave repeats out. Raises ValueError for wrong shapes, labels off the
    simplex or an image outside its range.
    """
    rows, image = _checked(labels, images, images_in_all)
    categories = rows.shape[1]
    if not len(rows):
        uniform = np.full((images_in_all, categories), (1 - 1 / categories) / categories)
        return Spread(np.zeros(images_in_all, dtype=np.int64), USUAL_SPREAD * uniform)
    counts = np.bincount(image, minlength=images_in_all)
    people = np.maximum(counts, 1)[:, np.newaxis]
    sums, squares = (
        np.stack([np.bincount(image, weights=column, minlength=images_in_all) for column in values.T], axis=1)
        for values in (rows, np.square(rows))
    )
    # (N, K): the sums of squares around each image's own mean.
    own = np.maximum(squares - np.square(sums) / people, 0.0)
    freedom = np.maximum(counts - 1, 0)[:, np.newaxis]

    seen = np.flatnonzero(counts)
    means = (sums / people)[seen]
    means /= means.sum(axis=1, keepdims=True)
    overall = np.tile(means.mean(axis=0), (images_in_all, 1))
    borrowed = overall.copy()
    borrowed[seen] = means @ ConfusionPool().fit(means, seen, seen).confusion_
    mean = (sums + BORROWED * borrowed) / (counts[:, np.newaxis] + BORROWED)
    uncertain = mean * (1 - mean)

    pairs = counts > 1
    usual = STEADY * float(uncertain[seen].sum(axis=1).mean())
    expected = float((freedom * uncertain)[pairs].sum())
    ratio = (USUAL_SPREAD * usual + float(own[pairs].sum())) / max(usual + expected, 1e-12)
    variances = (TRUSTED * ratio * uncertain + own) / (TRUSTED + freedom)
    return Spread(counts, variances)


def unsettled(labels: ArrayLike, images: ArrayLike, *, images_in_all: int) -> Floats:
    """(N,) how far the pooled label of each image is expected to move if it got one more answer: nats, >= 0.

    Larger means that the next label helps more; images without a label come first. One step look-ahead:
    KL(label with the answer || label without it) by the recommended pool, averaged over the answers that the image has
    and, counting as ``LOOKED_AHEAD`` of them, over those that the other images make one expect of it. These are: with
    the pooled label's chance of class c, an answer as sure of c as answers usually are of their first class, the rest
    on what c is confused with. Chosen by cross-validation: `python -m benchmarks.adaptive`, docs/how-to/adaptive.md.
    Arguments and errors as for ``spread``.
    """
    rows, image = _checked(labels, images, images_in_all)
    if not len(rows):
        return np.ones(images_in_all)
    pool = ConfusionPool().fit(rows, image, np.arange(len(image)))
    seen, now, confusion = pool.images_, pool.soft_labels_, pool.confusion_
    place = np.searchsorted(seen, image)
    counts = pool.counts_[:, np.newaxis].astype(np.float64)
    sums = np.stack([np.bincount(place, weights=column) for column in rows.T], axis=1)

    def label(total: Floats, number: Floats) -> Floats:
        drawn = (total + pool.prior_weight * (total / number) @ confusion) ** pool.exponent
        return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))

    moved = np.zeros(len(seen))
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        here = place[block]
        with_it = label(sums[here] + rows[block], counts[here] + 1)
        moved += np.bincount(here, weights=kl(with_it, now[here]), minlength=len(seen))
    sure = float(rows.max(axis=1).mean())
    for category in range(rows.shape[1]):
        expected = (1 - sure) * confusion[category]
        expected[category] += sure
        moved += LOOKED_AHEAD * now[:, category] * kl(label(sums + expected, counts + 1), now)
    moved /= counts[:, 0] + LOOKED_AHEAD
    # Nothing is known of the others, so nothing comes before them.
    found = np.full(images_in_all, max(1.0, float(moved.max())))
    found[seen] = moved
    return found


def settled(
    labels: ArrayLike, images: ArrayLike, *, images_in_all: int, within: float, least: int
) -> NDArray[np.bool_]:
    """(N,) whether an image has at least ``least`` labels and an expected total variation of at most ``within``.

    ``within`` in 0..1, ``least`` >= 1; ValueError else. Other arguments and errors as for ``spread``.
    """
    if not 0 <= within <= 1:
        raise ValueError(f"within must lie in 0..1, got {within}.")
    if least < 1:
        raise ValueError(f"least must be at least 1, got {least}.")
    found = spread(labels, images, images_in_all=images_in_all)
    return np.asarray((found.counts >= least) & (found.total_variation() <= within))
