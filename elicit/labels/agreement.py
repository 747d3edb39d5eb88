"""Annotators against each other, on whole distributions instead of top classes.

Every function takes flat arrays: ``labels`` (R, K) on the simplex, ``images`` (R,) and ``annotators`` (R,),
names or whole numbers. Their rows may come in any order, and people may have seen different images.

One person is one voice: whoever answered an image more than once enters every comparison with others by the
mean over the own answers' distances, and never counts as two people.

Nothing here is NaN: what can't be known (a single annotator, no image in common) is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.intervals import Bootstrap, Estimate, estimate, ratio, ratio_of_sums
from elicit.labels.simplex import check_simplex, hellinger, js, total_variation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Numbers worked on at a time, so that memory grows with the responses and not with their pairs.
_BLOCK = 1 << 20
# A mean distance below this is rounding: everybody said the same.
_NOTHING = 1e-12

# Nodes of the trapezoidal rule for the Jensen-Shannon embedding, see _embed. With this step and this range the
# rule's error and what lies beyond its ends are both below 1e-8.
_STEP = 0.5
_NODES = np.arange(-18.0, 18.0 + _STEP, _STEP)


class Distance(StrEnum):
    """How far two soft labels lie apart; 0 for equal ones.

    ``total_variation`` and ``hellinger`` reach 1, ``jensen_shannon`` (a divergence, in nats) log 2, all
    where the two share no class.
    """

    TOTAL_VARIATION = "total_variation"
    HELLINGER = "hellinger"
    JENSEN_SHANNON = "jensen_shannon"

    def between(self, p: ArrayLike, q: ArrayLike) -> Floats:
        """(...) distances of ``p`` (..., K) and ``q`` (..., K), as in :mod:`elicit.labels.simplex`."""
        if self is Distance.TOTAL_VARIATION:
            return total_variation(p, q)
        return hellinger(p, q) if self is Distance.HELLINGER else js(p, q)

    @property
    def most(self) -> float:
        """The distance of two labels without a class in common."""
        return math.log(2) if self is Distance.JENSEN_SHANNON else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """R responses sorted by image, then annotator: all of an image, and all of a person there, lie together.

    ``labels`` (R, K). ``image`` (R,): 0..N-1. ``cell`` (R,): 0..C-1, one for each person on each image.
    ``answers`` (C,): responses of a cell. ``cell_image``, ``cell_annotator`` (C,): whose and where.
    ``people`` (N,): persons on each image. ``order`` (R,): the input's row of each sorted one.
    ``image_names`` (N,) and ``annotator_names`` (A,) are the input's, ascending.
    """

    labels: Floats
    image: Integers
    cell: Integers
    answers: Integers
    cell_image: Integers
    cell_annotator: Integers
    people: Integers
    order: Integers
    image_names: NDArray[Any]
    annotator_names: NDArray[Any]

    @classmethod
    def of(cls, labels: ArrayLike, images: ArrayLike, annotators: ArrayLike) -> Self:
        """Sort and check; ValueError for wrong shapes or types, or labels off the simplex."""
        values = np.asarray(labels, dtype=np.float64)
        image_of, annotator_of = np.asarray(images), np.asarray(annotators)
        if values.ndim != 2 or image_of.shape != values.shape[:1] or annotator_of.shape != values.shape[:1]:
            raise ValueError(
                "labels must be (R, K), images (R,) and annotators (R,), got "
                f"{values.shape}, {image_of.shape} and {annotator_of.shape}."
            )
        for name, array in (("images", image_of), ("annotators", annotator_of)):
            if len(array) and array.dtype.kind not in "iuU":
                raise ValueError(f"{name} must be names or whole numbers, got {array.dtype}.")
        check_simplex(values, name="labels")

        image_names, image_index = np.unique(image_of, return_inverse=True)
        annotator_names, annotator_index = np.unique(annotator_of, return_inverse=True)
        order = np.lexsort((annotator_index, image_index))
        image, annotator = image_index[order], annotator_index[order]
        new_cell = np.ones(len(order), dtype=np.bool_)
        new_cell[1:] = (image[1:] != image[:-1]) | (annotator[1:] != annotator[:-1])
        cell = np.cumsum(new_cell) - 1
        return cls(
            labels=np.maximum(values[order], 0.0),
            image=image,
            cell=cell,
            answers=np.bincount(cell),
            cell_image=image[new_cell],
            cell_annotator=annotator[new_cell],
            people=np.bincount(image[new_cell], minlength=len(image_names)),
            order=order,
            image_names=image_names,
            annotator_names=annotator_names,
        )

    @property
    def weights(self) -> Floats:
        """(R,) the share of a response in its person's voice on the image."""
        return np.asarray(1.0 / self.answers[self.cell])


@dataclass(frozen=True, slots=True)
class WithinBetween:
    """People against themselves and against others; None where there are no repeats, or no two people.

    ``within``: mean distance between a person's answers on one image, every person on every image counting
    once. ``between``: as :func:`mean_distance`. ``ratio``: within / between; about how much of what looks
    like disagreement one person's second answer shows as well. It is None where nobody differs.
    """

    within: Estimate | None
    between: Estimate | None
    ratio: Estimate | None


def mean_distance(
    labels: ArrayLike,
    images: ArrayLike,
    annotators: ArrayLike,
    *,
    distance: Distance = Distance.TOTAL_VARIATION,
    bootstrap: Bootstrap | None = None,
) -> Estimate | None:
    """The mean distance between two people on one image: over the pairs of an image, then over images.

    So an image that everybody saw counts as much as any other. 0..``distance.most``, 0 where all agree.
    None where no image has two people. The bootstrap resamples the images that have.
    Time and nothing else grows with the pairs of people on an image.
    """
    responses = Responses.of(labels, images, annotators)
    means = _pair_sums(responses, distance).mean_between(responses.people)
    return _ratio_where_known(means, (responses.people > 1).astype(np.float64), bootstrap)


def within_and_between(
    labels: ArrayLike,
    images: ArrayLike,
    annotators: ArrayLike,
    *,
    distance: Distance = Distance.TOTAL_VARIATION,
    bootstrap: Bootstrap | None = None,
) -> WithinBetween:
    """The noise of one person beside the differences between people; give repeats as rows of their own.

    The bootstrap resamples the images on which the quantity, for the ratio either of the two, is known.
    """
    responses = Responses.of(labels, images, annotators)
    sums = _pair_sums(responses, distance)
    several, means = (responses.people > 1).astype(np.float64), sums.mean_between(responses.people)
    known = (several > 0) | (sums.repeated_cells > 0)
    within = ratio_of_sums(sums.within[known], sums.repeated_cells[known])
    between = ratio_of_sums(means[known], several[known])

    def both(counts: Floats) -> Floats:
        return ratio(within(counts), _positive(between(counts)))

    return WithinBetween(
        within=_ratio_where_known(sums.within, sums.repeated_cells, bootstrap),
        between=_ratio_where_known(means, several, bootstrap),
        ratio=estimate(both, int(known.sum()), bootstrap),
    )


def _ratio_where_known(numerators: Floats, denominators: Floats, bootstrap: Bootstrap | None) -> Estimate | None:
    known = denominators > 0
    return estimate(ratio_of_sums(numerators[known], denominators[known]), int(known.sum()), bootstrap)


def krippendorff_alpha(
    labels: ArrayLike,
    images: ArrayLike,
    annotators: ArrayLike,
    *,
    distance: Distance = Distance.TOTAL_VARIATION,
    bootstrap: Bootstrap | None = None,
) -> Estimate | None:
    """Krippendorff's alpha for distributions: 1 - D_o / D_e (Krippendorff 2011; Hayes & Krippendorff 2007).

    With m_u people on image u, n the sum of m_u over the images with m_u >= 2 (the others can't be paired and
    are left out), and d the difference of two answers:

        D_o = 1/n        sum over u of  1/(m_u - 1)  sum over ordered pairs of people on u of d
        D_e = 1/(n(n-1)) sum over ordered pairs of all n answers of d

    d is the total variation, the *squared* Hellinger distance, or the Jensen-Shannon divergence: each is the
    square of a metric (for the last one Endres & Schindelin 2003), as Krippendorff's differences are, and each
    is constant between different certain labels, so that on hard votes all three give the nominal alpha.

    1 where people agree on every image, 0 where they differ as much there as anywhere, never below -1. None
    where no image has two people, and where all answers on such images are the same, which leaves nothing to
    tell agreement from (0 / 0): the mean distance is then 0.

    The bootstrap resamples images for D_o and D_e alike. D_e visits no pair: the total variation is summed in
    sorted order, class by class, and the other two are squared Euclidean distances between embeddings, whose
    sums suffice (the Jensen-Shannon divergence to within 1e-7).
    """
    everything = Responses.of(labels, images, annotators)
    paired = (everything.people > 1)[everything.image]
    rows = everything.order[paired]
    if not len(rows):
        return None
    responses = Responses.of(np.asarray(labels)[rows], np.asarray(images)[rows], np.asarray(annotators)[rows])
    sums = _pair_sums(responses, distance)
    people = responses.people.astype(np.float64)
    observed = 2.0 * sums.squared_between / (people - 1.0)
    all_pairs = _all_pairs(responses, distance)

    def alpha(counts: Floats) -> Floats:
        total = counts @ people
        expected = 2.0 * (all_pairs(counts, total) - counts @ sums.squared_within) / (total * (total - 1.0))
        return np.asarray(1.0 - ratio(counts @ observed / total, _positive(expected)))

    return estimate(alpha, len(people), bootstrap)


@dataclass(frozen=True, slots=True, eq=False)
class _PairSums:
    """Per image, (N,): sums over the pairs of people, and over a person's own answers.

    ``between``: of the distances between people, each the mean over their answers; ``squared_between``: of
    alpha's differences instead. ``within``: of the cells' mean distances; ``repeated_cells``: how many cells
    have one. ``squared_within``: of alpha's differences over pairs of own answers, by their weights.
    """

    between: Floats
    squared_between: Floats
    within: Floats
    repeated_cells: Floats
    squared_within: Floats

    def mean_between(self, people: Integers) -> Floats:
        """(N,) over the pairs of people of each image, 0 where there are none."""
        return np.asarray(self.between / np.maximum(people * (people - 1) / 2.0, 1.0))


def _pairs(responses: Responses) -> Iterator[tuple[Integers, Integers]]:
    """All pairs of rows of one image, in blocks: first the neighbours, then those two rows apart, and so on."""
    step = max(1, _BLOCK // max(1, responses.labels.shape[1]))
    ends = np.cumsum(np.bincount(responses.image))[responses.image]
    firsts = np.arange(len(responses.image))
    lag = 1
    while len(firsts := firsts[firsts + lag < ends[firsts]]):
        for start in range(0, len(firsts), step):
            block = firsts[start : start + step]
            yield block, block + lag
        lag += 1


def _pair_sums(responses: Responses, distance: Distance) -> _PairSums:
    images = len(responses.people)
    between, squared_between, within, squared_within = np.zeros((4, images))
    weights = responses.weights
    for first, second in _pairs(responses):
        apart = distance.between(responses.labels[first], responses.labels[second])
        difference = np.square(apart) if distance is Distance.HELLINGER else apart
        image, cell = responses.image[first], responses.cell[first]
        own = cell == responses.cell[second]
        weight = weights[first] * weights[second]
        answers = responses.answers[cell]
        own_pairs = np.where(own, answers * (answers - 1) / 2.0, np.inf)
        between += np.bincount(image, np.where(own, 0.0, weight * apart), images)
        squared_between += np.bincount(image, np.where(own, 0.0, weight * difference), images)
        within += np.bincount(image, apart / own_pairs, images)
        squared_within += np.bincount(image, np.where(own, weight * difference, 0.0), images)
    repeated = np.bincount(responses.cell_image, responses.answers > 1, images).astype(np.float64)
    return _PairSums(between, squared_between, within, repeated, squared_within)


PairSum: TypeAlias = Callable[[Floats, Floats], Floats]
"""From how often each image counts, (B, N), and the weights' sums, (B,), to (B,) sums over all pairs of rows."""


def _all_pairs(responses: Responses, distance: Distance) -> PairSum:
    """The sum of alpha's difference over all unordered pairs of rows, by their weights.

    Classes that a response leaves at 0 cost nothing.
    """
    prepare = _sorted_pairs if distance is Distance.TOTAL_VARIATION else _embedded_pairs
    classes: list[PairSum] = []
    for column in responses.labels.T:
        rows = np.flatnonzero(column)
        if len(rows):
            classes.append(prepare(distance, column[rows], responses.image[rows], responses.weights[rows]))
    return lambda counts, total: np.sum([pairs(counts, total) for pairs in classes], axis=0)


def _sorted_pairs(_: Distance, values: Floats, image: Integers, weights: Floats) -> PairSum:
    """Half the sum of |x - y| over pairs: between two neighbouring values, those above times those below."""
    order = np.argsort(-values, kind="stable")
    values, image, weights = values[order], image[order], weights[order]
    half_gaps = 0.5 * (values - np.append(values[1:], 0.0))

    def pairs(counts: Floats, total: Floats) -> Floats:
        sums = np.empty(len(counts))
        # One draw at a time: it fits the processor's cache, a block of them does not.
        for draw, (count, all_weights) in enumerate(zip(counts, total, strict=True)):
            above = count[image]
            above *= weights
            np.cumsum(above, out=above)
            # A dot product of BLAS would start its threads anew for each draw.
            sums[draw] = np.einsum("i,i,i", half_gaps, above, all_weights - above)
        return sums

    return pairs


def _embedded_pairs(distance: Distance, values: Floats, image: Integers, weights: Floats) -> PairSum:
    """The sum of |z(x) - z(y)|^2 over pairs, out of the sums of z and of |z|^2 by image."""
    starts = np.flatnonzero(np.append(True, image[1:] != image[:-1]))
    present = image[starts]
    firsts, seconds = [], np.zeros(len(starts))
    for feature in _embed(distance, values):
        firsts.append(np.add.reduceat(weights * feature, starts))
        seconds += np.add.reduceat(weights * np.square(feature), starts)
    sums = np.stack(firsts, axis=1)

    def pairs(counts: Floats, total: Floats) -> Floats:
        some = counts[:, present]
        return np.asarray(total * (some @ seconds) - np.square(some @ sums).sum(axis=1))

    return pairs


def _embed(distance: Distance, values: Floats) -> Iterator[Floats]:
    """(n,) features z of one class's masses, 0 at 0, whose squared differences add up to that class's term.

    Hellinger: sqrt(x / 2). Jensen-Shannon: since x log x has the second derivative 1/x, the integral of
    exp(-xt), its term is 1/4 of the integral of (exp(-xt) - exp(-yt))^2 / t^2 over t > 0; with t = exp(v)
    the trapezoidal rule converges geometrically.
    """
    if distance is Distance.HELLINGER:
        yield np.sqrt(values / 2.0)
        return
    for node in _NODES:
        yield -0.5 * math.sqrt(_STEP) * math.exp(-node / 2.0) * np.expm1(-values * math.exp(node))


def _positive(values: Floats) -> Floats:
    """Mean distances with what is mere rounding taken as 0."""
    return np.where(values > _NOTHING, values, 0.0)
