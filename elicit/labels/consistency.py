"""A repeat against its first answer, and a verdict over a session's repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from elicit.labels.elicited import Elicited
from elicit.labels.simplex import total_variation
from elicit.labels.varieties import Answers, Depth, LabelVariety, Redistribution

RULE_VERSION = 1
"""Stored beside each verdict; raised whenever ``compare`` or ``judge`` would answer differently."""

# Every named class counts, and nothing is added to what was said. With gamma > 0 the label jumps where the
# percentages reach 100, so that 60 + 39 and 60 + 40 would look like a change of mind.
COMPARED = LabelVariety(Depth.TALL, Redistribution.CLAMP, gamma=0.0)
"""What answers are made into before they are compared."""

_TOLERANCE = 1e-9


class Verdict(StrEnum):
    """What a session's repeats say; ``undetermined`` where there are none."""

    CONSISTENT = "consistent"
    INCONSISTENT = "inconsistent"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class RepeatComparison:
    """How far one person's second answer on an image lies from the first.

    ``same_top``: the same class was named most likely. ``percentage_change``: by how many points its
    percentage moved (0..100), None when the class changed. ``total_variation``: 0..1, between the two
    answers' soft labels of the variety ``tall-clamp`` with gamma 0.
    """

    same_top: bool
    percentage_change: float | None
    total_variation: float


def compare(first: Elicited, again: Elicited, categories: int) -> RepeatComparison:
    """The repeat ``again`` against the answer ``first``, both on ``categories`` classes."""
    (top, percentage), (top_again, percentage_again) = first.named[0], again.named[0]
    before, after = COMPARED.soft_labels(Answers.from_elicited([first, again], categories=categories))
    same_top = top == top_again
    return RepeatComparison(
        same_top=same_top,
        percentage_change=abs(percentage_again - percentage) if same_top else None,
        total_variation=float(total_variation(before, after)),
    )


def judge(comparisons: Sequence[RepeatComparison], *, most_distance: float) -> Verdict:
    """Consistent when the mean total variation over the repeats is at most ``most_distance`` (0..1)."""
    if not 0 <= most_distance <= 1:
        raise ValueError(f"most_distance must lie in 0..1, got {most_distance}.")
    if not comparisons:
        return Verdict.UNDETERMINED
    mean = math.fsum(comparison.total_variation for comparison in comparisons) / len(comparisons)
    return Verdict.CONSISTENT if mean <= most_distance + _TOLERANCE else Verdict.INCONSISTENT
