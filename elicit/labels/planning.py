"""How many labels per image: what they cost, and how far the pooled label will err.

Two halves that meet at K, the labels per image. ``Terms`` say what K labels cost in sessions, hours and money.
An ``ErrorCurve`` says what they buy, in one metric, and is either measured on answers at hand (``against_reference``,
``against_the_crowd``) or ``PUBLISHED``.

**Curves.** Between the numbers of labels that were measured a curve is interpolated, beyond them it is extrapolated by
a line in 1 / M, fitted to all of them and moved to pass through the last: independent errors average out with 1 / M,
what remains as M grows is what no number of such answers mends. The line is of

- TV: the squared error (bias and variance add up as squares);
- KL: the divergence itself (second order in the error);
- entropy correlation r: 1 / r^2, for noise in the entropies attenuates r to r_limit sqrt(M / (M + c)) (Spearman
  1904; 1910 with Brown).

**Against the crowd.** Without a reference, M people of an image are compared with M others of it, who are as far from
the limit of the crowd as they are: for independent normal errors E TV(mean, mean') is sqrt(2) times the error of one
mean, and the correlation of entropies is the square of that with the limit. Nothing is measured against answers that
it is made of. The limit is what ever more such people would say on average, not the truth.

**Intervals** are of the jackknife over groups of annotators (Quenouille 1956; Kott 2001, *The delete-a-group
jackknife*), for people answer many images and are what will be drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.aggregation import MeanPool, Pool
from elicit.labels.simplex import check_simplex, entropy, kl, total_variation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_LABELS = 1000
"""K beyond which nothing is looked for."""

# Standard errors to either side of a 95 % interval.
_NORMAL_95 = 1.959964


class Metric(StrEnum):
    """What is meant by error."""

    TV = "tv"
    KL = "kl"
    ENTROPY = "entropy"

    @property
    def higher_is_better(self) -> bool:
        return self is Metric.ENTROPY

    def _straight(self, values: Floats) -> Floats:
        """What is a line in 1 / M."""
        if self is Metric.KL:
            return values
        return np.square(values) if self is Metric.TV else 1.0 / np.square(values)

    def _back(self, straight: Floats) -> Floats:
        if self is Metric.KL:
            return straight
        return np.sqrt(straight) if self is Metric.TV else 1.0 / np.sqrt(straight)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorCurve:
    """The error of ``labels`` (P,) per image, rising integers from 1: ``errors`` (P,), and 95 % intervals around them,
    ``low`` and ``high`` (P,), nan where unknown.

    Raises ValueError for wrong shapes or values that are no errors. Errors that rise with M by chance are levelled.
    """

    metric: Metric
    labels: Integers
    errors: Floats
    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or not len(self.labels) or (np.diff(self.labels) <= 0).any() or self.labels[0] < 1:
            raise ValueError("labels must be rising integers from 1.")
        if any(each.shape != self.labels.shape for each in (self.errors, self.low, self.high)):
            raise ValueError("errors, low and high must be as many as labels.")
        if not (np.isfinite(self.errors) & (self.errors >= 0)).all():
            raise ValueError("errors must be finite and at least 0.")
        if self.metric is Metric.ENTROPY and not (self.errors > 0).all():
            raise ValueError("a correlation that isn't positive tells nothing of more labels.")

    @classmethod
    def measured(cls, metric: Metric, errors: Mapping[int, float]) -> Self:
        """From errors by the number of labels, without intervals."""
        labels = np.array(sorted(errors), dtype=np.int64)
        nothing = np.full(len(labels), np.nan)
        return cls(metric, labels, np.array([errors[label] for label in labels.tolist()]), nothing, nothing)

    def _line(self) -> tuple[float, float, Floats]:
        """The limit and the slope in 1 / M of what is straight, and that at ``labels``, levelled."""
        straight = np.minimum.accumulate(self.metric._straight(self.errors))
        inverse = 1.0 / self.labels
        slope = 0.0
        if len(self.labels) > 1:
            away = inverse - inverse.mean()
            slope = max(float(away @ (straight - straight.mean())) / float(away @ away), 0.0)
        elif self.metric is not Metric.ENTROPY:
            # One point can't tell noise from bias: taken as noise alone.
            slope = float(straight[0] * self.labels[0])
        limit = float(straight[-1]) - slope * float(inverse[-1])
        # A line that falls below what is possible is made less steep.
        least = 1.0 if self.metric is Metric.ENTROPY else 0.0
        if limit < least:
            limit = min(least, float(straight[-1]))
            slope = (float(straight[-1]) - limit) / float(inverse[-1])
        return limit, slope, straight

    def at(self, labels: ArrayLike) -> Floats:
        """(...) the error expected of so many labels per image, each at least 1."""
        wanted = np.asarray(labels, dtype=np.float64)
        if (wanted < 1).any():
            raise ValueError("labels must be at least 1.")
        limit, slope, straight = self._line()
        outside = np.where(wanted < self.labels[0], 1.0 / wanted - 1.0 / self.labels[0], 0.0)
        inside = np.interp(1.0 / wanted, (1.0 / self.labels)[::-1], straight[::-1]) + slope * outside
        return self.metric._back(np.where(wanted > self.labels[-1], limit + slope / wanted, inside))

    @property
    def limit(self) -> float:
        """The error that remains however many labels there are."""
        return float(self.metric._back(np.array(self._line()[0])))

    def reaches(self, labels: float, error: float) -> bool:
        """Whether so many labels are as good as ``error``, or better."""
        found = float(self.at(labels))
        return found >= error - 1e-12 if self.metric.higher_is_better else found <= error + 1e-12

    def labels_for(self, error: float) -> int | None:
        """The least K whose error is ``error`` or better; None where ``MOST_LABELS`` aren't enough."""
        if not self.reaches(MOST_LABELS, error):
            return None
        everywhere = self.at(np.arange(1, MOST_LABELS + 1))
        good = everywhere >= error - 1e-12 if self.metric.higher_is_better else everywhere <= error + 1e-12
        return int(np.argmax(good)) + 1

    def worth(self, error: float) -> float | None:
        """How many labels of this curve err by ``error``: between whole numbers too, None beyond its ends."""
        everywhere = np.arange(1, MOST_LABELS + 1)
        straight = self.metric._straight(self.at(everywhere))
        target = float(self.metric._straight(np.array(error)))
        if not straight[-1] <= target <= straight[0]:
            return None
        return 1.0 / float(np.interp(target, straight[::-1], (1.0 / everywhere)[::-1]))


@dataclass(frozen=True, slots=True)
class Terms:
    """What one session is, and what it costs.

    ``extra_per_session``: repeats and check items, which are paid and answered like images but are no labels.
    ``questions``: answers to each image shown (two where both framings are asked). ``seconds_per_session``: all but the
    trials. ``fee_share``: the platform's, of the pay. Money is in minor units (pence, cents) of one currency.
    Raises ValueError for numbers out of range.
    """

    images: int
    images_per_session: int
    seconds_per_response: float
    pay_per_hour_minor: int
    fee_share: float = 0.0
    extra_per_session: int = 0
    seconds_per_session: float = 0.0
    questions: int = 1

    def __post_init__(self) -> None:
        if min(self.images, self.images_per_session, self.questions) < 1 or self.extra_per_session < 0:
            raise ValueError("images, images_per_session and questions must be at least 1, extra_per_session 0.")
        numbers = (self.seconds_per_response, self.seconds_per_session, self.pay_per_hour_minor, self.fee_share)
        if not all(0 <= number < math.inf for number in numbers):
            raise ValueError("seconds, pay and fee must be finite and at least 0.")

    def cost(self, labels: int) -> Cost:
        """Of ``labels`` (K) per image, at least 1."""
        if labels < 1:
            raise ValueError(f"labels must be at least 1, got {labels}.")
        batches = -(-self.images // self.images_per_session)
        sessions = batches * labels
        shown = self.images * labels + self.extra_per_session * sessions
        seconds = shown * self.questions * self.seconds_per_response + sessions * self.seconds_per_session
        pay = round(seconds / 3600 * self.pay_per_hour_minor)
        fees = round(pay * self.fee_share)
        return Cost(labels, sessions, shown * self.questions, seconds / 3600, pay, fees)

    def labels_for(self, budget_minor: int) -> int:
        """The most K, up to ``MOST_LABELS``, that costs at most ``budget_minor``; 0 where one label is too dear."""
        low, high = 0, MOST_LABELS
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(middle).total_minor <= budget_minor else (low, middle - 1)
        return low


@dataclass(frozen=True, slots=True)
class Cost:
    """Of K ``labels`` per image. One session is one sitting of one person."""

    labels: int
    sessions: int
    responses: int
    hours: float
    pay_minor: int
    fees_minor: int

    @property
    def total_minor(self) -> int:
        return self.pay_minor + self.fees_minor

    @property
    def minutes_per_session(self) -> float:
        return self.hours * 60 / self.sessions


@dataclass(frozen=True, slots=True, eq=False)
class Pilot:
    """Answers to learn a curve from: ``labels`` (R, K) on the simplex, ``images`` (R,) and ``annotators`` (R,).

    Each person answers an image once: leave repeats out. Raises ValueError for wrong shapes and labels.
    """

    labels: Floats
    images: Integers
    annotators: NDArray[Any]

    def __post_init__(self) -> None:
        rows = check_simplex(self.labels, name="labels")
        if rows.ndim != 2 or {self.images.shape, self.annotators.shape} != {rows.shape[:1]}:
            raise ValueError("labels must be (R, K), images and annotators (R,).")

    def only(self, rows: NDArray[np.bool_]) -> Self:
        return replace(self, labels=self.labels[rows], images=self.images[rows], annotators=self.annotators[rows])

    def shuffled(self, random: np.random.Generator) -> tuple[Self, Integers]:
        """Its rows image by image, those of an image in random order, and how many came before each (R,)."""
        order = np.lexsort((random.random(len(self.images)), self.images))
        images = self.images[order]
        firsts = np.flatnonzero(np.append(True, images[1:] != images[:-1]))
        counts = np.diff(np.append(firsts, len(images)))
        found = replace(self, labels=self.labels[order], images=images, annotators=self.annotators[order])
        return found, np.arange(len(images)) - np.repeat(firsts, counts)


def against_the_crowd(
    pilot: Pilot, metric: Metric, *, random: np.random.Generator, draws: int = 20, groups: int = 10, most: int = 12
) -> ErrorCurve | None:
    """The error of the mean label of M people against the limit of the crowd, for M up to half of the people that the
    images have, at most ``most``; see the module's words.

    ``metric``: TV or ENTROPY (ValueError for KL: it needs a reference). ``draws``: splits to average over; ``groups``:
    of the jackknife. None where no two people share an image, or the entropies tell nothing.
    """
    if metric is Metric.KL:
        raise ValueError("KL against the crowd's limit can't be measured without a reference.")

    def errors(some: Pilot) -> dict[int, float]:
        sums: dict[int, list[float]] = {}
        for _ in range(draws):
            rows, before = some.shuffled(random)
            running = np.cumsum(rows.labels, axis=0)
            sizes = np.bincount(np.cumsum(before == 0) - 1)
            starts = np.cumsum(sizes) - sizes
            for people in range(1, min(int(sizes.max(initial=0)) // 2, most) + 1):
                # Images with fewer people would make the next number another population.
                found = starts[sizes >= 2 * people]
                if 2 * len(found) < (sizes >= 2).sum():
                    break
                one, other = (_between(running, found + people * half, people) for half in (0, 1))
                if metric is Metric.TV:
                    value = float(total_variation(one, other).mean()) / math.sqrt(2.0)
                else:
                    value = _correlation(entropy(one), entropy(other))
                sums.setdefault(people, []).append(value)
        means = {people: float(np.mean(values)) for people, values in sums.items()}
        if metric is Metric.TV:
            return means
        return {people: math.sqrt(value) for people, value in means.items() if value > 0}

    return _jackknifed(pilot, metric, errors, random, groups)


def against_reference(
    pilot: Pilot,
    reference: Mapping[int, Sequence[float]],
    metric: Metric,
    *,
    random: np.random.Generator,
    pool: Pool | None = None,
    draws: int = 10,
    groups: int = 10,
    most: int = 12,
) -> ErrorCurve | None:
    """The error of the ``pool`` (the mean by default) of M people against ``reference``, K probabilities by image.

    M goes up to what the images have, at most ``most``; images without a reference are left out, and those with fewer
    people than M too, as long as half are left. None where nothing is left.
    """
    chosen = pool or MeanPool()
    known = pilot.only(np.isin(pilot.images, np.fromiter(reference, dtype=np.int64, count=len(reference))))

    def errors(some: Pilot) -> dict[int, float]:
        sums: dict[int, list[float]] = {}
        for _ in range(draws):
            rows, before = some.shuffled(random)
            sizes = np.bincount(np.cumsum(before == 0) - 1)
            size = np.repeat(sizes, sizes)
            for people in range(1, min(int(sizes.max(initial=0)), most) + 1):
                if 2 * (sizes >= people).sum() < len(sizes):
                    break
                taken = rows.only((before < people) & (size >= people))
                chosen.fit(taken.labels, taken.images, np.arange(len(taken.images)))
                truth = np.array([reference[image] for image in chosen.images_.tolist()])
                sums.setdefault(people, []).append(error_of(chosen.soft_labels_, truth, metric))
        means = {people: float(np.mean(values)) for people, values in sums.items()}
        return {people: value for people, value in means.items() if metric is not Metric.ENTROPY or value > 0}

    return _jackknifed(known, metric, errors, random, groups)


def error_of(labels: Floats, truth: Floats, metric: Metric) -> float:
    """Of ``labels`` (N, K) against ``truth`` (N, K), over all images; 0 for a correlation where one doesn't vary."""
    if metric is Metric.TV:
        return float(total_variation(truth, labels).mean())
    if metric is Metric.KL:
        return float(kl(truth, labels).mean())
    return _correlation(entropy(labels), entropy(truth))


def _between(running: Floats, starts: Integers, people: int) -> Floats:
    """(n, K): the mean of the rows from each start on, out of running sums."""
    before = np.where((starts > 0)[:, np.newaxis], running[np.maximum(starts - 1, 0)], 0.0)
    mean = np.maximum(running[starts + people - 1] - before, 0.0)
    return np.asarray(mean / mean.sum(axis=1, keepdims=True))


def _correlation(one: Floats, other: Floats) -> float:
    """Pearson's; 0 where one side doesn't vary."""
    if len(one) < 2 or one.std() < 1e-12 or other.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _jackknifed(
    pilot: Pilot, metric: Metric, errors: Any, random: np.random.Generator, groups: int
) -> ErrorCurve | None:
    """The curve of ``errors(pilot)``, with what leaving out a group of annotators changes."""
    found: dict[int, float] = errors(pilot) if len(pilot.images) else {}
    if not found:
        return None
    curve = ErrorCurve.measured(metric, found)
    people, who = np.unique(pilot.annotators, return_inverse=True)
    groups = min(groups, len(people))
    if groups < 3:
        return curve
    group = random.permutation(np.arange(len(people)) % groups)[who]
    without = [errors(pilot.only(group != each)) for each in range(groups)]
    # An M that a group's absence makes impossible has no interval.
    table = np.array([[each.get(label, np.nan) for label in curve.labels.tolist()] for each in without])
    half = _NORMAL_95 * np.sqrt((groups - 1) / groups * np.square(table - table.mean(axis=0)).sum(axis=0))
    ceiling = 1.0 if metric is not Metric.KL else np.inf
    return replace(curve, low=np.maximum(curve.errors - half, 0.0), high=np.minimum(curve.errors + half, ceiling))


class Published(StrEnum):
    """Answers whose error against CIFAR-10H was measured: soft labels by our recommended recipe or by the paper's, of
    the 500 images of CIFAR-10S with even batches (Collins, Bhatt & Weller 2022; most of them ambiguous), and
    CIFAR-10H's own votes on these (Peterson et al. 2019), against the votes left. ``python -m benchmarks.planning``
    prints them all anew.
    """

    RECOMMENDED = "recommended"
    PAPER = "paper"
    VOTES = "votes"


_PUBLISHED: Mapping[Published, Mapping[Metric, Mapping[int, float]]] = {
    Published.RECOMMENDED: {
        Metric.TV: {1: 0.2050, 2: 0.1693, 3: 0.1494, 4: 0.1369, 5: 0.1293, 6: 0.1241},
        Metric.KL: {1: 0.4173, 2: 0.2476, 3: 0.2026, 4: 0.1787, 5: 0.1646, 6: 0.1549},
        Metric.ENTROPY: {1: 0.3411, 2: 0.4874, 3: 0.5545, 4: 0.5944, 5: 0.6186, 6: 0.6380},
    },
    Published.PAPER: {
        Metric.TV: {1: 0.2272, 2: 0.1915, 3: 0.1751, 4: 0.1656, 5: 0.1594, 6: 0.1553},
        Metric.KL: {1: 0.5823, 2: 0.3299, 3: 0.2585, 4: 0.2228, 5: 0.2014, 6: 0.1870},
        Metric.ENTROPY: {1: 0.2979, 2: 0.4372, 3: 0.5057, 4: 0.5476, 5: 0.5763, 6: 0.5989},
    },
    Published.VOTES: {
        Metric.TV: {
            1: 0.2437,
            2: 0.2045,
            3: 0.1800,
            4: 0.1621,
            6: 0.1389,
            8: 0.1248,
            12: 0.1093,
            16: 0.1020,
            24: 0.0939,
        },
        Metric.KL: {
            1: 1.2272,
            2: 0.6527,
            3: 0.4823,
            4: 0.4064,
            6: 0.3201,
            8: 0.2704,
            12: 0.2190,
            16: 0.1928,
            24: 0.1621,
        },
        Metric.ENTROPY: {2: 0.3008, 3: 0.3826, 4: 0.4381, 6: 0.5154, 8: 0.5661, 12: 0.6168, 16: 0.6349, 24: 0.6733},
    },
}

PUBLISHED_SECONDS = 39.4
"""Per response in CIFAR-10S."""

PUBLISHED: Mapping[Published, Mapping[Metric, ErrorCurve]] = MappingProxyType(
    {
        name: {metric: ErrorCurve.measured(metric, errors) for metric, errors in metrics.items()}
        for name, metrics in _PUBLISHED.items()
    }
)
