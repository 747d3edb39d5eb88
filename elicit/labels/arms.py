"""Ways of asking compared: the same images, other annotators.

Annotators are drawn into arms, so annotators are what chance is about: every interval resamples them, whole, within
their arm (percentile bootstrap, Efron 1979). Two arms differ in a figure beyond chance when the interval of the
difference leaves out 0. How far their pooled labels lie apart is never below 0: there, annotators are dealt anew
between the two arms, and what is found counts when it is larger than in all but ``1 - LEVEL`` of these deals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicit.labels.intervals import Bootstrap, ratio
from elicit.labels.simplex import entropy, kl, total_variation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVEL = 0.95
DRAWS = 1000
# Of the pooled labels' distances, each of which pools all answers anew.
POOLED_DRAWS = 300
FEWEST_ANNOTATORS = 2


@dataclass(frozen=True, slots=True, eq=False)
class ArmAnswers:
    """The R first answers of an arm's A annotators on images 0..N-1, and P repeats.

    ``labels`` (R, K) on the simplex. ``image``, ``annotator`` (R,): 0..N-1 and 0..A-1. ``seconds`` (R,).
    ``warnings`` (R,): warnings that were shown and answered all the same. ``repeat_annotator`` (P,) and
    ``repeat_distance`` (P,): total variation of each repeat from its first answer.
    """

    labels: Floats
    image: Integers
    annotator: Integers
    seconds: Floats
    warnings: Integers
    repeat_annotator: Integers
    repeat_distance: Floats
    annotators: int


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of an arm. ``unit`` follows the number; ``digits`` after the point; ``more`` and ``less`` say in words
    what a difference is."""

    title: str
    unit: str
    digits: int
    more: str
    less: str


MEASURES = {
    "seconds": Measure("Seconds an answer (each annotator's median)", "s", 1, "takes longer", "is quicker"),
    "repeat_distance": Measure(
        "Repeats against first answers (total variation)", "", 3, "repeats itself less well", "repeats itself better"
    ),
    "warnings": Measure(
        "Warnings answered all the same, of 100 answers", "", 1, "keeps more warnings", "keeps fewer warnings"
    ),
    "entropy": Measure("Entropy of an answer (nats)", "", 3, "spreads its answers more", "spreads its answers less"),
    "others": Measure(
        "Distance from the others on the same image (total variation)", "", 3, "agrees less", "agrees more"
    ),
    "reference": Measure(
        "Distance from the reference (total variation)",
        "",
        3,
        "is further from the reference",
        "is nearer the reference",
    ),
}


def compare(arms: Mapping[str, ArmAnswers], reference: Floats | None, generator: np.random.Generator) -> dict[str, Any]:
    """What the arms' answers are like, and how they differ, as plain JSON.

    Args:
        reference: (N, K) on the simplex, rows of nan where an image has none; None where no image has one.

    Returns:
        ``arms``: per arm its ``annotators``, ``answers`` and per key of `MEASURES` ``[value, low, high]`` or None, and
        ``pooled_tv``, ``pooled_kl`` to the reference alike. ``pairs``: for each two arms ``differences``, per measure
        ``[difference, low, high]`` (second minus first), and ``apart``: the mean total variation of their pooled
        labels on ``images`` that both have, ``by_chance``, and whether it is ``beyond_chance``.
    """
    figures = {name: _figures(arm, reference) for name, arm in arms.items()}
    draws = {name: _draws(arm.annotators, generator) for name, arm in arms.items()}
    found: dict[str, Any] = {"arms": {}, "pairs": []}
    resampled: dict[str, dict[str, Floats]] = {}
    for name, arm in arms.items():
        resampled[name] = {
            key: ratio(draws[name] @ top, draws[name] @ bottom) for key, (top, bottom) in figures[name].items()
        }
        found["arms"][name] = {
            "annotators": arm.annotators,
            "answers": len(arm.labels),
            **{key: _interval(_value(*figures[name][key]), resampled[name][key]) for key in figures[name]},
            **_pooled_to_reference(arm, reference, generator),
        }
    names = list(arms)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            differences = {
                key: _interval(
                    _value(*figures[second][key]) - _value(*figures[first][key]),
                    resampled[second][key] - resampled[first][key],
                )
                for key in MEASURES
                if key in figures[first] and key in figures[second]
            }
            found["pairs"].append(
                {
                    "first": first,
                    "second": second,
                    "differences": differences,
                    **_apart(arms[first], arms[second], generator),
                }
            )
    return found


def beyond_chance(interval: list[float] | None) -> bool:
    """Whether a difference's interval leaves out 0."""
    return interval is not None and (interval[1] > 0 or interval[2] < 0)


def _draws(annotators: int, generator: np.random.Generator) -> Floats:
    if annotators < FEWEST_ANNOTATORS:
        # Too few to resample: no draw says anything.
        return np.full((DRAWS, annotators), np.nan)
    return np.concatenate(list(Bootstrap(generator, DRAWS, LEVEL).counts(annotators)))


def _value(top: Floats, bottom: Floats) -> float:
    return float(top.sum() / bottom.sum()) if bottom.sum() > 0 else float("nan")


def _interval(value: float, resampled: Floats) -> list[float] | None:
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(value), float(low), float(high)]


def _figures(arm: ArmAnswers, reference: Floats | None) -> dict[str, tuple[Floats, Floats]]:
    """Per measure what each annotator adds to the numerator and to the denominator, both (A,)."""
    who, people = arm.annotator, arm.annotators

    def summed(values: Floats, by: Integers = who) -> Floats:
        return np.bincount(by, weights=values, minlength=people).astype(np.float64)

    answers = summed(np.ones(len(who)))
    medians = np.zeros(people)
    for person in np.flatnonzero(answers):
        medians[person] = np.median(arm.seconds[who == person])
    entropies: Floats = np.asarray(entropy(arm.labels), dtype=np.float64) if len(who) else np.zeros(0)
    others, company = _others(arm)
    figures = {
        "seconds": (medians, np.minimum(answers, 1.0)),
        "repeat_distance": (
            summed(arm.repeat_distance, arm.repeat_annotator),
            summed(np.ones(len(arm.repeat_annotator)), arm.repeat_annotator),
        ),
        "warnings": (100.0 * summed(arm.warnings.astype(np.float64)), answers),
        "entropy": (summed(entropies), answers),
        "others": (summed(others), summed(company)),
    }
    if reference is not None:
        known = np.isfinite(reference[arm.image]).all(axis=1)
        apart: Floats = np.zeros(len(who), dtype=np.float64)
        if known.any():
            apart[known] = np.asarray(total_variation(arm.labels[known], reference[arm.image[known]]))
        figures["reference"] = (summed(apart), summed(np.asarray(known, dtype=np.float64)))
    return figures


def _others(arm: ArmAnswers) -> tuple[Floats, Floats]:
    """(R,) the distance of each answer from the mean of the others on its image, 0 without others; and who has any."""
    images = int(arm.image.max(initial=-1)) + 1
    sums, people = _sums(arm, np.ones(arm.annotators), images)
    company = people[arm.image] > 1
    apart = np.zeros(len(arm.labels))
    if company.any():
        mine, image = arm.labels[company], arm.image[company]
        rest = np.clip(sums[image] - mine, 0.0, None)
        apart[company] = total_variation(mine, rest / rest.sum(axis=1, keepdims=True))
    return apart, company.astype(np.float64)


def _sums(arm: ArmAnswers, weights: Floats, images: int) -> tuple[Floats, Floats]:
    """(N, K) labels summed by image under a weight for each annotator, and (N,) the sums of the weights."""
    weight = weights[arm.annotator]
    sums = np.stack([np.bincount(arm.image, weights=weight * column, minlength=images) for column in arm.labels.T], 1)
    people = np.bincount(arm.image, weights=weight, minlength=images)
    return sums.astype(np.float64), people.astype(np.float64)


def _pooled(arm: ArmAnswers, weights: Floats, images: int) -> Floats:
    """(N, K) mean labels, rows of nan where nobody answered."""
    sums, people = _sums(arm, weights, images)
    labels = np.full(sums.shape, np.nan)
    labels[people > 0] = sums[people > 0] / sums[people > 0].sum(axis=1, keepdims=True)
    return labels


def _pooled_to_reference(arm: ArmAnswers, reference: Floats | None, generator: np.random.Generator) -> dict[str, Any]:
    if reference is None or not len(arm.labels):
        return {"pooled_tv": None, "pooled_kl": None}

    def distances(weights: Floats) -> tuple[float, float]:
        pooled = _pooled(arm, weights, len(reference))
        both = np.isfinite(pooled).all(axis=1) & np.isfinite(reference).all(axis=1)
        if not both.any():
            return float("nan"), float("nan")
        return (
            float(np.mean(total_variation(pooled[both], reference[both]))),
            float(np.mean(kl(reference[both], pooled[both]))),
        )

    tv, divergence = distances(np.ones(arm.annotators))
    draws = [distances(counts) for counts in _draws(arm.annotators, generator)[:POOLED_DRAWS]]
    sampled = np.array(draws, dtype=np.float64).reshape(-1, 2)
    return {"pooled_tv": _interval(tv, sampled[:, 0]), "pooled_kl": _interval(divergence, sampled[:, 1])}


def _apart(first: ArmAnswers, second: ArmAnswers, generator: np.random.Generator) -> dict[str, Any]:
    """How far the pooled labels of two arms lie apart on the images that both have, beside dealing annotators anew."""
    images = int(max(first.image.max(initial=-1), second.image.max(initial=-1))) + 1
    both = ArmAnswers(
        labels=np.concatenate([first.labels, second.labels]),
        image=np.concatenate([first.image, second.image]),
        annotator=np.concatenate([first.annotator, second.annotator + first.annotators]),
        seconds=np.zeros(0),
        warnings=np.zeros(0, dtype=np.int64),
        repeat_annotator=np.zeros(0, dtype=np.int64),
        repeat_distance=np.zeros(0),
        annotators=first.annotators + second.annotators,
    )
    mine = np.arange(both.annotators) < first.annotators

    def distance(of_first: NDArray[np.bool_]) -> tuple[float, int]:
        one = _pooled(both, of_first.astype(np.float64), images)
        other = _pooled(both, (~of_first).astype(np.float64), images)
        shared = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
        if not shared.any():
            return float("nan"), 0
        return float(np.mean(total_variation(one[shared], other[shared]))), int(shared.sum())

    found, shared = distance(mine)
    if not shared or min(first.annotators, second.annotators) < FEWEST_ANNOTATORS:
        return {"apart": None, "by_chance": None, "beyond_chance": False, "images": shared}
    dealt = np.array([distance(generator.permutation(mine))[0] for _ in range(POOLED_DRAWS)])
    dealt = dealt[np.isfinite(dealt)]
    return {
        "apart": found,
        "by_chance": float(dealt.mean()) if len(dealt) else None,
        "beyond_chance": bool(len(dealt) and found > np.quantile(dealt, LEVEL)),
        "images": shared,
    }
