"""Proper scores of soft labels, and the calibration of stated percentages.

A score is *proper* if whoever believes p expects most from saying p, strictly so here (Gneiting & Raftery
2007). All scores are oriented alike: more is better. For a forecast q and an outcome c on K classes:

- ``log``: the logarithm of the mass on c (Good 1952), in nats. A zero on what then happens would cost
  infinitely much, and people's zeros are not zeros, so forecast *and* outcome are first mixed with the share
  ``floor`` of the uniform distribution. Mixing q alone would pay for exaggeration; mixing both keeps honesty
  best. At least log(floor / K), always below 0; a certain and right forecast gets a little below 0 (-0.071 at
  K = 10 and floor .01).
- ``brier``: minus the sum of (q - outcome)^2 over all classes (Brier 1950, who counts it as a loss): -2..0.
- ``spherical``: the mass on c divided by the Euclidean length of q: 0..1.

An outcome may be uncertain itself, a crowd's distribution p: the score is then the expectation under p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.agreement import Responses
from elicit.labels.intervals import Bootstrap, Estimate, estimate, ratio_of_sums
from elicit.labels.simplex import KL_FLOOR, check_simplex

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LOWER_BOUNDS = (0.0, 30.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 100.0)
"""Bins of stated percentages, each up to the next; the last holds 100 alone, which is said most often."""


class Score(StrEnum):
    """A strictly proper scoring rule."""

    LOG = "log"
    BRIER = "brier"
    SPHERICAL = "spherical"


def expected_score(forecast: ArrayLike, crowd: ArrayLike, *, score: Score, floor: float = KL_FLOOR) -> Floats:
    """The score that ``forecast`` (..., K) expects if classes are drawn from ``crowd`` (..., K) or (K,).

    No other forecast expects more than ``crowd`` itself. ``floor``, in (0, 1), matters to ``log`` alone.
    """
    if not 0 < floor < 1:
        raise ValueError(f"floor must lie between 0 and 1, got {floor}.")
    q = np.maximum(check_simplex(forecast, name="forecast"), 0.0)
    p = np.maximum(check_simplex(crowd, name="crowd"), 0.0)
    if p.shape not in (q.shape, q.shape[-1:]):
        raise ValueError(f"crowd must be {q.shape} or {q.shape[-1:]}, as forecast is, got {p.shape}.")
    if score is Score.LOG:
        q, p = ((1.0 - floor) * each + floor / q.shape[-1] for each in (q, p))
        return np.asarray((p * np.log(q)).sum(axis=-1))
    inner, square = (p * q).sum(axis=-1), np.square(q).sum(axis=-1)
    return np.asarray(2.0 * inner - square - 1.0 if score is Score.BRIER else inner / np.sqrt(square))


def score_outcome(forecast: ArrayLike, outcome: ArrayLike, *, score: Score, floor: float = KL_FLOOR) -> Floats:
    """The score of ``forecast`` (..., K) when class ``outcome`` (...), 0..K-1, is the true one."""
    q = np.asarray(forecast, dtype=np.float64)
    return expected_score(q, _certain(outcome, q.shape), score=score, floor=floor)


def leave_one_out(
    labels: ArrayLike, images: ArrayLike, annotators: ArrayLike, *, voices: ArrayLike | None = None
) -> tuple[Floats, Integers]:
    """What the others said: (R, K) the mean of the other people's labels on each response's image, and (R,) how many.

    Takes the flat arrays of :mod:`elicit.labels.agreement`, in any order. Every person's answers on an image
    are averaged first. ``voices`` (R,): whether a response counts among the others; all do by default, and all
    of a person's on an image have to be alike. Where there are no others the row is all 0, which no function
    takes for a label.
    """
    responses = Responses.of(labels, images, annotators)
    count, classes = responses.labels.shape
    crowd, others = np.zeros((count, classes)), np.zeros(count, dtype=np.int64)
    if not count:
        return crowd, others
    cells = np.flatnonzero(np.append(True, responses.cell[1:] != responses.cell[:-1]))
    persons = np.add.reduceat(responses.labels * responses.weights[:, np.newaxis], cells)
    first_cells = np.flatnonzero(np.append(True, responses.cell_image[1:] != responses.cell_image[:-1]))
    heard = np.ones(count, dtype=np.bool_) if voices is None else np.asarray(voices, dtype=np.bool_)
    voice = heard[responses.order][cells]
    persons *= voice[:, np.newaxis]
    everybody = np.add.reduceat(persons, first_cells)
    sums = np.maximum(everybody[responses.cell_image] - persons, 0.0)
    number = (np.add.reduceat(voice.astype(np.int64), first_cells)[responses.cell_image] - voice).astype(np.int64)
    sums[number == 0] = 0.0
    sums /= np.where(number > 0, sums.sum(axis=1), 1.0)[:, np.newaxis]
    crowd[responses.order], others[responses.order] = sums[responses.cell], number[responses.cell]
    return crowd, others


@dataclass(frozen=True, slots=True)
class AnnotatorScore:
    """One annotator's mean score over images; None where none of the images could be scored."""

    annotator: str | int
    score: Estimate | None


def score_annotators(
    labels: ArrayLike,
    images: ArrayLike,
    annotators: ArrayLike,
    *,
    score: Score = Score.BRIER,
    reference: ArrayLike | None = None,
    floor: float = KL_FLOOR,
    bootstrap: Bootstrap | None = None,
) -> tuple[AnnotatorScore, ...]:
    """Each annotator's mean score, by name, ascending.

    Takes the flat arrays of :mod:`elicit.labels.agreement`. Without ``reference`` every label is scored
    against the mean of the others on its image, and images that nobody else saw are left out; otherwise against
    the row's class, ``reference`` (R,), or distribution, (R, K). Several answers of a person on one image
    count as one, by their mean score. The bootstrap resamples an annotator's images.

    People who saw different images have met different crowds: an ambiguous image earns everybody less.
    """
    responses = Responses.of(labels, images, annotators)
    given = np.asarray(labels, dtype=np.float64)
    if reference is None:
        crowd, others = leave_one_out(labels, images, annotators)
        known = others > 0
    else:
        crowd = _distributions(reference, given.shape)
        known = np.ones(len(given), dtype=np.bool_)
    scores = np.zeros(len(given))
    scores[known] = expected_score(given[known], crowd[known], score=score, floor=floor)

    cells = len(responses.answers)
    of_cell = np.bincount(responses.cell, responses.weights * scores[responses.order], cells).astype(np.float64)
    is_known = np.bincount(responses.cell, known[responses.order], cells) > 0
    by_annotator = np.argsort(responses.cell_annotator, kind="stable")
    ends = np.cumsum(np.bincount(responses.cell_annotator, minlength=len(responses.annotator_names)))
    result = []
    for name, mine in zip(responses.annotator_names.tolist(), np.split(by_annotator, ends)[:-1], strict=True):
        mean = of_cell[mine[is_known[mine]]]
        result.append(AnnotatorScore(name, estimate(ratio_of_sums(mean, np.ones(len(mean))), len(mean), bootstrap)))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Percentages from ``low`` up to below ``high`` (the last bin: up to 100): ``count`` of them.

    ``stated``, the mean percentage as a share, and ``observed``, the mean share that came true, both 0..1,
    are None in an empty bin.
    """

    low: float
    high: float
    count: int
    stated: float | None
    observed: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Stated percentages beside what came true, as shares 0..1.

    ``error``: the expected calibration error, the bins' |stated - observed| weighted by their counts
    (Naeini, Cooper & Hauskrecht 2015). ``stated`` and ``observed`` are means over all; stated above observed
    is overconfidence.
    """

    bins: tuple[CalibrationBin, ...]
    count: int
    stated: float
    observed: float
    error: float


def calibration(
    percentages: ArrayLike,
    named: ArrayLike,
    reference: ArrayLike,
    *,
    lower_bounds: Sequence[float] = LOWER_BOUNDS,
) -> Calibration | None:
    """``percentages`` (R,) in 0..100, said of the classes ``named`` (R,), against ``reference``.

    With classes (R,) what came true is 1 where the named class is the right one; with distributions (R, K)
    it is the reference's share of the named class. None without any percentage. Raises ValueError for wrong
    shapes and ranges, and for bounds that do not rise from 0 within 0..100.
    """
    stated, classes = np.asarray(percentages, dtype=np.float64), np.asarray(named)
    if stated.ndim != 1 or classes.shape != stated.shape:
        raise ValueError(f"percentages and named must be (R,), got {stated.shape} and {classes.shape}.")
    if not ((stated >= 0) & (stated <= 100)).all():
        raise ValueError("percentages must be finite and lie in 0..100.")
    bounds = np.asarray(lower_bounds, dtype=np.float64)
    if not len(bounds) or bounds[0] != 0 or not (np.diff(bounds) > 0).all() or bounds[-1] > 100:
        raise ValueError(f"lower_bounds must rise from 0 and stay within 0..100, got {tuple(lower_bounds)}.")
    if not len(stated):
        return None
    observed = _observed(classes, np.asarray(reference))

    bin_of = np.searchsorted(bounds, stated, side="right") - 1
    counts = np.bincount(bin_of, minlength=len(bounds))
    shares = np.bincount(bin_of, stated / 100.0, len(bounds))
    came_true = np.bincount(bin_of, observed, len(bounds))
    bins = tuple(
        CalibrationBin(low, high, n, share / n if n else None, true / n if n else None)
        for low, high, n, share, true in zip(
            bounds.tolist(),
            [*bounds[1:].tolist(), 100.0],
            counts.tolist(),
            shares.tolist(),
            came_true.tolist(),
            strict=True,
        )
    )
    count = len(stated)
    return Calibration(
        bins=bins,
        count=count,
        stated=float(shares.sum() / count),
        observed=float(came_true.sum() / count),
        error=float(np.abs(shares - came_true).sum() / count),
    )


def _observed(named: NDArray[Any], reference: NDArray[Any]) -> Floats:
    """(R,) what of the named classes came true."""
    if not np.issubdtype(named.dtype, np.integer):
        raise ValueError(f"named must be whole numbers, got {named.dtype}.")
    if reference.ndim == 1:
        if reference.shape != named.shape or not np.issubdtype(reference.dtype, np.integer):
            raise ValueError(f"reference must be {named.shape} whole numbers, got {reference.shape} {reference.dtype}.")
        return np.asarray(named == reference, dtype=np.float64)
    distributions = check_simplex(reference, name="reference")
    if distributions.shape[:-1] != named.shape or not ((named >= 0) & (named < distributions.shape[-1])).all():
        raise ValueError(f"reference must be (R, K) and named within 0..K-1, got {distributions.shape}.")
    return np.asarray(distributions[np.arange(len(named)), named])


def _distributions(reference: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """The reference of labels of ``shape`` (R, K) as distributions of that shape."""
    values = np.asarray(reference)
    if values.shape == shape:
        return check_simplex(values, name="reference")
    return _certain(values, shape)


def _certain(outcome: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Classes (...) as certain distributions of ``shape`` (..., K)."""
    classes = np.asarray(outcome)
    if classes.shape != shape[:-1] or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"the reference must be {shape[:-1]} whole numbers, got {classes.shape} {classes.dtype}.")
    if not ((classes >= 0) & (classes < shape[-1])).all():
        raise ValueError(f"the reference has a class outside 0..{shape[-1] - 1}.")
    return np.asarray(np.eye(shape[-1])[classes])
