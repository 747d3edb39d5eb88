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
        repeat_of: 0-based position in the plan of the trial that this one repeats; None for a main trial.
    """

    image: int
    repeat_of: int | None = None


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


def draw_category_order(categories: int, rng: np.random.Generator, *, shuffle: bool) -> list[int]:
    """Category indices in the order in which one annotator sees them."""
    return [int(index) for index in rng.permutation(categories)] if shuffle else list(range(categories))


def draw_ranks(count: int, rng: np.random.Generator) -> list[int]:
    """A random order, 0..count-1, in which batches are handed out."""
    return [int(rank) for rank in rng.permutation(count)]
