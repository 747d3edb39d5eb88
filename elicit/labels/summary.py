"""What many answers of one study say together: times, repeats, agreement, accuracy, and which images are disputed.

Everything here is plain JSON in the end (:meth:`Summary.to_dict`). What can't be known is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elicit.labels.aggregation import POOLS, RECOMMENDED_POOL
from elicit.labels.agreement import Distance, krippendorff_alpha, mean_distance, within_and_between
from elicit.labels.consistency import COMPARED
from elicit.labels.intervals import Bootstrap, Estimate
from elicit.labels.scoring import calibration
from elicit.labels.simplex import entropy, total_variation
from elicit.labels.varieties import RECOMMENDED, Answers

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
JSON: TypeAlias = dict[str, Any]

DRAWS = 200
AGREEMENT_IMAGES = 2000
"""Agreement is worked out on at most so many images, drawn at random: all pairs of people on a million answers would
take minutes and say no more."""
DISPUTED = 12


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the painted image to the answer, while the tab was visible, of ``count`` answers.

    ``by_position``: (position, answers, lower quartile, median, upper quartile) for each place in a session.
    """

    count: int
    mean: float
    low: float
    median: float
    high: float
    by_position: list[tuple[int, int, float, float, float]]


def times(duration_ms: Integers, position: Integers) -> Times | None:
    """From (R,) milliseconds, 0 where not known, and (R,) positions from 1; None where no time is known."""
    known = duration_ms > 0
    if not known.any():
        return None
    seconds, places = duration_ms[known] / 1000.0, position[known]
    order = np.argsort(places, kind="stable")
    names, starts = np.unique(places[order], return_index=True)
    curve = [
        (int(name), len(those), *np.quantile(those, [0.25, 0.5, 0.75]).tolist())
        for name, those in zip(names.tolist(), np.split(seconds[order], starts[1:]), strict=True)
    ]
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Times(len(seconds), float(seconds.mean()), low, median, high, curve)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Second answers beside first ones, each pair once.

    ``flips``: another class was named most likely. Over the others, of which there are pairs - flips:
    ``mean_change`` of the top percentage in points, and ``unchanged``, how many kept it exactly; None without any.
    ``mean_distance``: total variation, 0..1, between the two answers' labels (`consistency.COMPARED`).
    """

    pairs: int
    flips: int
    mean_change: float | None
    unchanged: int
    mean_distance: float


def repeats(answers: Answers, labels: Floats, first: Integers) -> Repeats | None:
    """From R answers, their ``labels`` (R, K), and the row that each repeats, (R,), -1 for none."""
    again = np.flatnonzero(first >= 0)
    if not len(again):
        return None
    before = first[again]
    top, percentage = _tops(answers)
    same = top[again] == top[before]
    change = np.abs(percentage[again] - percentage[before])[same]
    return Repeats(
        pairs=len(again),
        flips=int((~same).sum()),
        mean_change=float(change.mean()) if len(change) else None,
        unchanged=int((change == 0).sum()),
        mean_distance=float(total_variation(labels[again], labels[before]).mean()),
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """People against each other and against themselves, on ``images`` of the ``images_in_all`` with two people or more;
    each with its 95 % bootstrap interval over images. See :mod:`elicit.labels.agreement`."""

    images: int
    images_in_all: int
    total_variation: Estimate | None
    jensen_shannon: Estimate | None
    alpha: Estimate | None
    within: Estimate | None
    ratio: Estimate | None


def agreement(labels: Floats, image: Integers, person: Integers, main: Booleans) -> Agreement:
    """From (R, K) labels; between people by the rows that are ``main``, within people by all."""
    generator = np.random.default_rng(0)
    cells = np.unique(np.stack([image[main], person[main]], axis=1), axis=0)
    people = np.bincount(cells[:, 0], minlength=int(image.max(initial=-1)) + 1)
    several = np.flatnonzero(people > 1)
    drawn = np.arange(len(people))
    if len(people) > AGREEMENT_IMAGES:
        drawn = np.sort(generator.choice(len(people), AGREEMENT_IMAGES, replace=False))
    chosen = np.isin(image, drawn)
    firsts = chosen & main
    between = (labels[firsts], image[firsts], person[firsts])
    themselves = within_and_between(
        labels[chosen], image[chosen], person[chosen], bootstrap=Bootstrap(generator, DRAWS)
    )
    return Agreement(
        images=int(np.isin(several, drawn).sum()),
        images_in_all=len(several),
        total_variation=mean_distance(*between, bootstrap=Bootstrap(generator, DRAWS)),
        jensen_shannon=mean_distance(*between, distance=Distance.JENSEN_SHANNON, bootstrap=Bootstrap(generator, DRAWS)),
        alpha=krippendorff_alpha(*between, bootstrap=Bootstrap(generator, DRAWS)),
        within=themselves.within,
        ratio=themselves.ratio,
    )


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Answers beside the dataset's own label: ``first`` of ``answers`` named it most likely, ``first_two`` first or
    second. ``error``: the expected calibration error of the top percentage. ``bins``: (from, to, answers, mean stated
    share, share that was right), of those that hold an answer."""

    answers: int
    first: int
    first_two: int
    stated: float
    error: float
    bins: list[tuple[float, float, int, float, float]]


def accuracy(answers: Answers, reference: Integers) -> Accuracy | None:
    """``reference`` (R,): each answer's right class, -1 where the dataset says none."""
    rows = np.flatnonzero(reference >= 0)
    if not len(rows):
        return None
    top, percentage = _tops(answers)
    right = answers.ranks[rows, reference[rows]]
    found = calibration(percentage[rows], top[rows], reference[rows])
    assert found is not None  # noqa: S101 (there are rows)
    return Accuracy(
        answers=len(rows),
        first=int((right == 1).sum()),
        first_two=int(((right == 1) | (right == 2)).sum()),
        stated=found.stated,
        error=found.error,
        bins=[
            (each.low, each.high, each.count, each.stated, each.observed)
            for each in found.bins
            if each.stated is not None and each.observed is not None
        ],
    )


@dataclass(frozen=True, slots=True)
class Disputed:
    """An image, by its row: its pooled label (K,), of how many answers, and the label's entropy in nats."""

    image: int
    labels: int
    entropy: float
    label: list[float]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The entropies (N,) of the images that have labels, in nats, and those that are highest, the highest first."""

    entropies: Floats
    disputed: list[Disputed]


def pooled(answers: Answers, image: Integers, person: Integers) -> Pooled | None:
    """By the recommended recipe; None where there is no answer."""
    if not len(answers):
        return None
    labels = POOLS[RECOMMENDED_POOL]().fit_predict(RECOMMENDED.soft_labels(answers), image, person)
    rows, counts = np.unique(image, return_counts=True)
    entropies = np.asarray(entropy(labels))
    worst = np.lexsort((rows, -entropies))[:DISPUTED]
    return Pooled(
        entropies,
        [
            Disputed(int(rows[place]), int(counts[place]), float(entropies[place]), labels[place].tolist())
            for place in worst.tolist()
        ],
    )


def compared(answers: Answers) -> Floats:
    """(R, K) labels in which answers are set beside each other."""
    return COMPARED.soft_labels(answers)


def select(answers: Answers, rows: NDArray[Any]) -> Answers:
    return Answers(answers.percentages[rows], answers.ranks[rows], answers.impossible[rows])


def as_json(found: Any) -> JSON | None:
    """A dataclass of this module as plain JSON."""
    return None if found is None else asdict(found)


def quartiles(values: Sequence[float] | Floats) -> tuple[float, float, float] | None:
    return tuple(np.quantile(values, [0.25, 0.5, 0.75]).tolist()) if len(values) else None


def _tops(answers: Answers) -> tuple[Integers, Floats]:
    """(R,) the class named most likely, and its percentage."""
    top = (answers.ranks == 1).argmax(axis=1)
    return top, answers.percentages[np.arange(len(top)), top]
