"""Who sees what, and in which order. Pure: no database, all randomness passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlannedTrial:
    """One position of a session.

    Attributes:
        image: what to show (the caller's id).
        repeat_of: 0-based position in the plan of the trial that this one repeats; None for any other.
        check: which of the session's checks this is, by its number; None for any other.
    """

    image: int
    repeat_of: int | None = None
    check: int | None = None


def make_batches(images: Sequence[int], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Deal images at random into as few batches as `size` allows, as even as can be: sizes differ by one at most.

    Raises:
        ValueError: `size` below 1.
    """
    if size < 1:
        raise ValueError("A batch holds at least one image.")
    if not images:
        return []
    shuffled = rng.permutation(np.asarray(images))
    return [[int(image) for image in part] for part in np.array_split(shuffled, -(-len(images) // size))]


def plan_session(images: Sequence[int], repeats: int, rng: np.random.Generator) -> list[PlannedTrial]:
    """The trials of one session: the images in random order, then `repeats` of them again.

    The repeated ones are drawn from the first half, so that about half a session or more lies between an answer and
    its repeat. At most as many as the first half holds (rounded up).
    """
    order = [int(image) for image in rng.permutation(np.asarray(images, dtype=np.int64))]
    first_half = -(-len(order) // 2)
    again = rng.permutation(first_half)[: min(repeats, first_half)]
    return [PlannedTrial(image) for image in order] + [
        PlannedTrial(order[position], repeat_of=int(position)) for position in sorted(again)
    ]


def with_checks(plan: Sequence[PlannedTrial], checks: Sequence[int], rng: np.random.Generator) -> list[PlannedTrial]:
    """The plan with a trial for each check image at a random position: not first, not last and no two side by side, as
    far as there is room between the others."""
    order = [int(number) for number in rng.permutation(len(checks))]
    # Gap g lies before the plan's trial g.
    inner = rng.permutation(np.arange(1, len(plan)))[: len(checks)] if len(plan) > 1 else np.array([], dtype=np.int64)
    rest = rng.integers(1, max(2, len(plan)), len(checks) - len(inner))
    gaps = sorted(int(gap) for gap in (*inner, *rest))
    new_place = {old: old + sum(gap <= old for gap in gaps) for old in range(len(plan))}
    laid: dict[int, PlannedTrial] = {
        new_place[old]: PlannedTrial(
            trial.image, None if trial.repeat_of is None else new_place[trial.repeat_of], trial.check
        )
        for old, trial in enumerate(plan)
    }
    left = iter(order)
    return [
        laid[place] if place in laid else PlannedTrial(checks[number := next(left)], check=number)
        for place in range(len(plan) + len(checks))
    ]


# A turn in reach of `least + 1` but below: so that scored places go before those of which nothing is known.
_MOST_GAIN = 0.999


def turns(*, gain: float, labels: int, under_way: int, free: int, least: int) -> list[float]:
    """The turns of one image's free places in an adaptive study, smallest handed out first.

    Args:
        gain: by how much one more label is expected to lower the squared error of the pooled label, >= 0, with
            `labels` there.
        under_way: labels that somebody is about to give. They count: each makes the next one help less, so that a
            rush spreads over many images.
        free: how many free places there are.
        least: labels that every image gets first, the least filled before the others.
    """
    found = []
    for filled in range(labels + under_way, labels + under_way + free):
        if filled < least:
            found.append(float(filled + 1))
            continue
        # The expected squared error of a mean of M labels falls as 1 / M: by 1 / (M (M + 1)) with the next.
        now = gain * labels * (labels + 1) / (filled * (filled + 1))
        found.append(least + 1 - min(now, _MOST_GAIN))
    return found


def draw_category_order(categories: int, rng: np.random.Generator, *, shuffle: bool) -> list[int]:
    """Category indices in the order in which one annotator sees them."""
    return [int(index) for index in rng.permutation(categories)] if shuffle else list(range(categories))


def draw_ranks(count: int, rng: np.random.Generator) -> list[int]:
    """A random order, 0..count-1, in which batches are handed out."""
    return [int(rank) for rank in rng.permutation(count)]
