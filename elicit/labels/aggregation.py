"""Pools: many annotators' soft labels of an image to one.

All have one shape: ``fit(soft_labels (R, K), images (R,), annotators (R,))``, then ``images_`` (N,) int64
ascending, ``soft_labels_`` (N, K), ``counts_`` (N,) int64; ``fit_predict`` gives ``soft_labels_``.
An annotator who answered an image more than once counts once: the own answers are averaged first. The order
of the rows makes no difference to any bit as long as nobody answered an image twice.

In the formulas q_a is annotator a's label of an image that M annotators answered, and every pool divides its
result by its sum. ``exponent`` e > 0 raises that result to the power e and divides again: e > 1 sharpens, for
an average of honest opinions is less certain than it should be (Satopaa et al. 2014, *Combining multiple
probability predictions using a simple logit model*).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.simplex import check_simplex

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Numbers that the bootstrap works on at a time.
_CHUNK_SIZE = 1 << 21


@dataclass(eq=False)
class Pool(ABC):
    """What every pool shares; see the module's words for shapes."""

    exponent: float = field(default=1.0, kw_only=True)

    images_: Integers = field(init=False, repr=False)
    soft_labels_: Floats = field(init=False, repr=False)
    counts_: Integers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.exponent < np.inf:
            raise ValueError(f"exponent must be positive and finite, got {self.exponent}.")

    def fit(self, soft_labels: ArrayLike, images: ArrayLike, annotators: ArrayLike) -> Self:
        """Pool ``soft_labels`` (R, K) by ``images`` (R,) integers; ``annotators`` (R,) are names or numbers.

        Raises ValueError for wrong shapes, labels off the simplex, or no row at all.
        """
        self._fit(_persons(soft_labels, images, annotators))
        return self

    def fit_predict(self, soft_labels: ArrayLike, images: ArrayLike, annotators: ArrayLike) -> Floats:
        """``fit``, then the pooled labels (N, K) in the order of ``images_``."""
        return self.fit(soft_labels, images, annotators).soft_labels_

    def _fit(self, persons: _Persons) -> Floats:
        """Pool, and return the weight of each row (P,)."""
        weights = self._learn(persons)
        self.images_ = persons.images
        self.counts_ = persons.counts
        self.soft_labels_ = self._sharpened(self._combine(persons.labels, weights, persons.run))
        return weights

    def _learn(self, persons: _Persons) -> Floats:
        """Take from all images what the pool needs to know of them, and return each row's weight (P,)."""
        return np.ones(len(persons.labels))

    @abstractmethod
    def _combine(self, labels: Floats, weights: Floats, run: Integers) -> Floats:
        """(N, K): the pooled labels of rows (P, K) whose image is run (P,), rising from 0 to N-1."""

    def _sharpened(self, labels: Floats) -> Floats:
        if self.exponent == 1:
            return labels
        # Roots and products are the same on every machine, np.power is not.
        raised = labels * np.sqrt(labels) if self.exponent == 1.5 else labels**self.exponent
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@dataclass(eq=False)
class MeanPool(Pool):
    """The plain mean over the annotators of each image, sum of q_a / M (Collins, Bhatt & Weller 2022).

    Also known as the linear opinion pool (Stone 1961, *The opinion pool*).
    """

    def _combine(self, labels: Floats, weights: Floats, run: Integers) -> Floats:
        sums = np.stack([np.bincount(run, weights=weights * column) for column in labels.T], axis=1)
        return np.asarray(sums / np.bincount(run, weights=weights)[:, np.newaxis])


@dataclass(eq=False)
class MedianPool(Pool):
    """The median over the annotators, class by class; the mean where every class's median is 0.

    Ignores stray annotators (Hora et al. 2013, *Median aggregation of distribution functions*).
    """

    def _combine(self, labels: Floats, weights: Floats, run: Integers) -> Floats:
        counts = np.bincount(run)
        starts = np.cumsum(counts) - counts
        low, high = starts + (counts - 1) // 2, starts + counts // 2
        medians = np.empty((len(counts), labels.shape[1]))
        for place, column in enumerate(labels.T):
            ranked = column[np.lexsort((column, run))]
            medians[:, place] = (ranked[low] + ranked[high]) / 2
        sums = medians.sum(axis=1)
        if (lost := sums <= 0).any():
            medians[lost] = MeanPool()._combine(labels, weights, run)[lost]
            sums = medians.sum(axis=1)
        return np.asarray(medians / sums[:, np.newaxis])


@dataclass(eq=False)
class LogPool(Pool):
    """The geometric mean, exp(sum of log((1 - f) q_a + f / K) / M): the logarithmic opinion pool.

    ``floor`` f in (0, 1] keeps one annotator's zero from being a veto. Externally Bayesian (Genest & Zidek
    1986, *Combining probability distributions*).
    """

    floor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor must be above 0 and at most 1, got {self.floor}.")

    def _combine(self, labels: Floats, weights: Floats, run: Integers) -> Floats:
        logs = np.log((1 - self.floor) * labels + self.floor / labels.shape[1])
        means = MeanPool()._combine(logs, weights, run)
        pooled = np.exp(means - means.max(axis=1, keepdims=True))
        return np.asarray(pooled / pooled.sum(axis=1, keepdims=True))


@dataclass(eq=False)
class ReliabilityPool(MeanPool):
    """The mean, weighted by how well each annotator agrees with the others on the same images.

    An answer's agreement is 1 - TV between it and the mean of the image's other answers (leave one out); an
    annotator's is the average over the own images, shrunk to that of everybody by ``shrinkage`` answers:
    r = (sum of agreements + shrinkage * overall) / (answers + shrinkage). The weight is r ** ``strength``.
    After ``fit``: ``annotators_`` (A,) sorted, ``weights_`` (A,). Images with one annotator teach nothing.

    In the spirit of Dawid & Skene (1979) and of CROWDLAB (Goh et al. 2022), for soft labels.
    """

    shrinkage: float = 5.0
    strength: float = 2.0

    annotators_: NDArray[Any] = field(init=False, repr=False)
    weights_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.shrinkage < np.inf:
            raise ValueError(f"shrinkage must be positive and finite, got {self.shrinkage}.")
        if not 0 <= self.strength < np.inf:
            raise ValueError(f"strength must be finite and at least 0, got {self.strength}.")

    def _learn(self, persons: _Persons) -> Floats:
        labels, run = persons.labels, persons.run
        sums = np.stack([np.bincount(run, weights=column) for column in labels.T], axis=1)
        taught = np.flatnonzero(persons.counts[run] > 1)
        others = (sums[run[taught]] - labels[taught]) / (persons.counts[run[taught]] - 1)[:, np.newaxis]
        agreement = 1 - 0.5 * np.abs(labels[taught] - others).sum(axis=1)

        self.annotators_, who = np.unique(persons.annotators, return_inverse=True)
        answers = np.bincount(who[taught], minlength=len(self.annotators_))
        total = np.bincount(who[taught], weights=agreement, minlength=len(self.annotators_))
        # Where all disagree, or nobody shares an image, everybody weighs the same.
        overall = float(agreement.mean()) if len(taught) else 1.0
        shrunk = (total + self.shrinkage * overall) / (answers + self.shrinkage)
        self.weights_ = np.maximum(shrunk, 1e-9) ** self.strength
        return self.weights_[who]

    def _combine(self, labels: Floats, weights: Floats, run: Integers) -> Floats:
        # Weights that are all alike must not cost a bit against the mean.
        return super()._combine(labels, weights / weights.max(), run)


@dataclass(eq=False)
class ConfusionPool(MeanPool):
    """The mean q, drawn towards what is confused with what, then sharpened; the recommended pool.

    C[c] is the average label of the images, each weighted by its mass on class c:
    C[c] = (sum over images of q[c] q + kappa / K) / (sum of q[c] + kappa). An image's label is
    (M q + k sum over c of q[c] C[c]) / (M + k), raised to ``exponent``: k = ``prior_weight`` is worth so many
    annotators, and with many annotators the image speaks for itself. Doubt about a cat so falls on dogs before
    it falls on ships, without any reference, and nothing that people confuse stays at 0. kappa =
    ``pseudo_count`` > 0 holds C to the uniform distribution where images are few.

    Empirical Bayes with a Dirichlet prior per image, in the line of Efron & Morris (1973) and of Dawid &
    Skene's (1979) confusion matrices. The defaults were chosen by cross-validation: docs/decisions/0008.
    After ``fit``: ``confusion_`` (K, K), rows on the simplex. A label depends on the other images too.
    """

    exponent: float = field(default=1.5, kw_only=True)
    prior_weight: float = 4.0
    pseudo_count: float = 1.0

    confusion_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prior_weight < np.inf:
            raise ValueError(f"prior_weight must be finite and at least 0, got {self.prior_weight}.")
        if not 0 < self.pseudo_count < np.inf:
            raise ValueError(f"pseudo_count must be positive and finite, got {self.pseudo_count}.")

    def _learn(self, persons: _Persons) -> Floats:
        weights = super()._learn(persons)
        mean = super()._combine(persons.labels, weights, persons.run)
        categories = mean.shape[1]
        # One class at a time, summed down the images: a matrix product rounds differently on each machine.
        shared = np.stack([(column[:, np.newaxis] * mean).sum(axis=0) for column in mean.T])
        raised = shared + self.pseudo_count / categories
        self.confusion_ = raised / raised.sum(axis=1, keepdims=True)
        return weights

    def _combine(self, labels: Floats, weights: Floats, run: Integers) -> Floats:
        mean = super()._combine(labels, weights, run)
        prior = np.zeros_like(mean)
        for column, confused in zip(mean.T, self.confusion_, strict=True):
            prior += column[:, np.newaxis] * confused
        counts = np.bincount(run)[:, np.newaxis]
        drawn = (counts * mean + self.prior_weight * prior) / (counts + self.prior_weight)
        return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


POOLS: dict[str, type[Pool]] = {
    "mean": MeanPool,
    "median": MedianPool,
    "log": LogPool,
    "reliability": ReliabilityPool,
    "confusion": ConfusionPool,
}
"""By name, with the defaults of each."""

RECOMMENDED_POOL = "confusion"
"""Goes with ``varieties.RECOMMENDED``."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Bounds of pooled labels: ``images`` (N,), ``low`` and ``high`` (N, K), nan for images of one annotator."""

    images: Integers
    low: Floats
    high: Floats


def bootstrap(
    pool: Pool,
    soft_labels: ArrayLike,
    images: ArrayLike,
    annotators: ArrayLike,
    *,
    random: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> Intervals:
    """Percentile intervals of each pooled probability, one image and class at a time.

    Each draw takes as many annotators of an image as it has, with replacement (Efron 1979). ``pool`` is
    fitted to the data first; what it learns from all images (weights, confusion) stays as fitted. With the
    usual half dozen annotators the intervals are too narrow: a rough guide to which images need more.
    Raises ValueError as ``fit`` does, and for draws < 2 or a level outside (0, 1).
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    persons = _persons(soft_labels, images, annotators)
    weights = pool._fit(persons)
    counts = persons.counts
    ends = np.cumsum(counts)
    low, high = np.full_like(pool.soft_labels_, np.nan), np.full_like(pool.soft_labels_, np.nan)

    at_once = max(1, _CHUNK_SIZE // (draws * persons.labels.shape[1]))
    first = 0
    while first < len(counts):
        # As many images as fit, one at least.
        start = ends[first] - counts[first]
        last = max(first + 1, int(np.searchsorted(ends, start + at_once, side="right")))
        sizes, stop = counts[first:last], ends[last - 1]
        offsets = np.repeat(np.cumsum(sizes) - sizes, sizes)
        drawn = start + offsets + (random.random((draws, stop - start)) * np.repeat(sizes, sizes)).astype(np.int64)
        run = np.repeat(np.arange(len(sizes)), sizes) + len(sizes) * np.arange(draws)[:, np.newaxis]
        rows = drawn.ravel()
        pooled = pool._sharpened(pool._combine(persons.labels[rows], weights[rows], run.ravel()))
        bounds = np.quantile(pooled.reshape(draws, len(sizes), -1), [(1 - level) / 2, (1 + level) / 2], axis=0)
        low[first:last], high[first:last] = bounds
        first = last
    low[counts == 1] = high[counts == 1] = np.nan
    return Intervals(persons.images, low, high)


@dataclass(frozen=True, slots=True, eq=False)
class _Persons:
    """One row per annotator of an image: ``labels`` (P, K), ``run`` (P,) the image's place in ``images`` (N,)."""

    labels: Floats
    run: Integers
    annotators: NDArray[Any]
    images: Integers
    counts: Integers


def _persons(soft_labels: ArrayLike, images: ArrayLike, annotators: ArrayLike) -> _Persons:
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
    # A hair below 0 passes as 0 there; here a root or a logarithm may follow. The sum makes -0.0 one of 0.0.
    labels = np.maximum(check_simplex(labels, name="soft_labels"), 0.0)
    labels += 0.0

    # Of many labels a copy is the costliest part; a release has them in order.
    if not _in_order(image_of, annotator_of):
        order = np.lexsort((annotator_of, image_of))
        labels, image_of, annotator_of = labels[order], image_of[order], annotator_of[order]
    new_image = _starts(image_of)
    new_person = new_image | _starts(annotator_of)
    run = np.cumsum(new_image[new_person]) - 1
    return _Persons(
        labels if new_person.all() else _mean_by(labels, new_person),
        run,
        annotator_of[new_person],
        image_of[new_image].astype(np.int64),
        np.bincount(run).astype(np.int64),
    )


def _in_order(images: NDArray[Any], annotators: NDArray[Any]) -> bool:
    """Whether the rows rise by image, and by annotator within one."""
    same = images[1:] == images[:-1]
    return bool(((images[1:] > images[:-1]) | (same & (annotators[1:] >= annotators[:-1]))).all())


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
