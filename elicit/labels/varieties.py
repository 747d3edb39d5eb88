"""From answers to soft labels: depth, redistribution and gamma (Collins, Bhatt & Weller 2022).

An answer names c1, c2, ... with percentages p1, p2, ... and rules out a set I of classes. With v = p / 100 on
the classes that the depth keeps, m = sum(v), and *free* the classes of zero mass (so an alternative of 0 %
is as good as unnamed):

- m < 1: of the leftover 1 - m the share *spread* goes in equal parts to the free classes not in I (``clamp``)
  or to all free classes (``uniform``), the rest back to the named ones in proportion; ``none`` spreads nothing.
  The published labels have spread 1.
- m >= 1: v is divided by m. Then only ``clamp``, and only if a free class is left outside I, takes the share
  gamma from the named classes and spreads it there in equal parts.
- last, the label is divided by its sum: what could not be spread goes back in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from elicit.labels.elicited import LEAST_PERCENTAGE, Elicited
from elicit.labels.errors import Refusal

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# 33.3 % + 66.7 % is 0.9999999999999999 in binary: closer than this to 1, a sum is a full answer.
_FULL = 1.0 - 1e-9
# Numbers worked on at a time: enough to hide numpy's overhead, few enough to stay in the cache.
_CHUNK_SIZE = 1 << 17


def _chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows, columns = shape
    step = max(1, _CHUNK_SIZE // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _count(flags: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
    """(R,) how many of each row are True."""
    if flags.shape[1] > np.iinfo(np.int8).max:
        return np.asarray(np.count_nonzero(flags, axis=1))
    # Five times as fast, as long as a byte can hold the count.
    return np.asarray(np.einsum("ij->i", flags.view(np.int8)))


class Depth(StrEnum):
    """Which named classes count: the first, the first two, or all."""

    T1 = "t1"
    T2 = "t2"
    TALL = "tall"


class Redistribution(StrEnum):
    """Who gets the mass that the named classes leave."""

    CLAMP = "clamp"
    UNIFORM = "uniform"
    NONE = "none"


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """R answers on K classes as arrays.

    ``percentages``: (R, K) float64 in 0..100, 0 where not named. ``ranks``: (R, K) int16, 0 where not named,
    1 for the most likely class, 2 for the next. ``impossible``: (R, K) bool.
    Raises ValueError for shapes, types or values that no valid answer has.
    """

    percentages: Floats
    ranks: NDArray[np.int16]
    impossible: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = self.percentages.shape
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(f"percentages must have shape (R, K) with K >= 2, got {shape}.")
        if self.ranks.shape != shape or self.impossible.shape != shape:
            raise ValueError(
                f"percentages {shape}, ranks {self.ranks.shape} and impossible {self.impossible.shape} "
                "must have one shape."
            )
        types = [str(array.dtype) for array in (self.percentages, self.ranks, self.impossible)]
        if types != ["float64", "int16", "bool"]:
            raise ValueError(f"percentages, ranks and impossible must be float64, int16, bool, got {types}.")
        for rows in _chunks(shape):
            self._check_rows(rows)

    def _check_rows(self, rows: slice) -> None:
        percentages, ranks = self.percentages[rows], self.ranks[rows]
        # A comparison with nan is False, so this refuses nan too.
        if not ((percentages >= 0) & (percentages <= 100)).all():
            raise ValueError("percentages must be finite and lie in 0..100.")
        named = ranks != 0
        if (percentages.astype(np.bool_) & ~named).any():
            raise ValueError("a class that is not named (rank 0) must have percentage 0.")
        if (self.impossible[rows] & named).any():
            raise ValueError("a class can't be both named and impossible.")
        firsts = ranks == 1
        if not (firsts.sum(axis=1) == 1).all():
            raise ValueError("every answer needs exactly one class of rank 1.")
        if (percentages[firsts] < LEAST_PERCENTAGE).any():
            raise ValueError(f"the class of rank 1 needs a percentage of at least {LEAST_PERCENTAGE:g}.")

    def __len__(self) -> int:
        return len(self.percentages)

    @property
    def categories(self) -> int:
        """K, the number of classes."""
        return int(self.percentages.shape[1])

    @classmethod
    def from_elicited(cls, elicited: Sequence[Elicited], *, categories: int) -> Self:
        """The answers as arrays; ValueError for a category outside 0..categories-1 or named twice."""
        rows = len(elicited)
        lengths = np.fromiter((len(answer.named) for answer in elicited), np.int64, rows)
        total = int(lengths.sum())
        ruled_out = np.fromiter((len(answer.impossible) for answer in elicited), np.int64, rows)
        return cls.from_flat(
            lengths,
            np.fromiter((c for answer in elicited for c, _ in answer.named), np.int64, total),
            np.fromiter((p for answer in elicited for _, p in answer.named), np.float64, total),
            ruled_out,
            np.fromiter((c for answer in elicited for c in answer.impossible), np.int64, int(ruled_out.sum())),
            categories=categories,
        )

    @classmethod
    def from_flat(
        cls,
        named_lengths: Integers,
        named_categories: Integers,
        named_percentages: Floats,
        impossible_lengths: Integers,
        impossible_categories: Integers,
        *,
        categories: int,
    ) -> Self:
        """Answers that lie end to end, side by side; ValueError for a category outside 0..categories-1 or named twice.

        ``named_lengths`` and ``impossible_lengths`` (R,) say how many entries each answer has in the flat rest.
        """
        for found in (named_categories, impossible_categories):
            if found.size and not 0 <= int(found.min()) <= int(found.max()) < categories:
                raise ValueError(f"a category index lies outside 0..{categories - 1}.")
        rows = len(named_lengths)
        row = np.repeat(np.arange(rows), named_lengths)
        percentages = np.zeros((rows, categories))
        ranks = np.zeros((rows, categories), dtype=np.int16)
        impossible = np.zeros((rows, categories), dtype=np.bool_)
        percentages[row, named_categories] = named_percentages
        ranks[row, named_categories] = places_within(named_lengths) + 1
        impossible[np.repeat(np.arange(rows), impossible_lengths), impossible_categories] = True
        if np.count_nonzero(ranks) != len(named_categories):
            raise ValueError("an answer names a category twice.")
        return cls(percentages, ranks, impossible)


def places_within(lengths: Integers) -> Integers:
    """0, 1, ... within each run of these lengths."""
    ends = np.cumsum(lengths)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class LabelVariety:
    """A rule from an answer to a soft label.

    ``gamma`` in [0, 1) matters to ``clamp`` alone, ``spread`` in [0, 1] to ``clamp`` and ``uniform``.
    Raises Refusal ``gamma_out_of_range`` or ``spread_out_of_range``.
    """

    depth: Depth = Depth.T2
    redistribution: Redistribution = Redistribution.CLAMP
    gamma: float = 0.1
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise Refusal("gamma_out_of_range", f"gamma must be at least 0 and below 1, got {self.gamma}.")
        if not 0 <= self.spread <= 1:
            raise Refusal("spread_out_of_range", f"spread must lie in 0..1, got {self.spread}.")

    @property
    def slug(self) -> str:
        """Depth, redistribution and any spread below 1: ``t2-clamp``, ``t2-clamp-s0.5``; gamma is told beside it."""
        spread = "" if self.spread == 1 else f"-s{float(self.spread)!r}"
        return f"{self.depth.value}-{self.redistribution.value}{spread}"

    @classmethod
    def from_slug(cls, slug: str, gamma: float = 0.1) -> Self:
        """The variety of a slug; Refusal ``unknown_variety``, ``gamma_out_of_range`` or ``spread_out_of_range``."""
        depth, _, rest = slug.partition("-")
        redistribution, *spread = rest.split("-s", maxsplit=1)
        try:
            return cls(Depth(depth), Redistribution(redistribution), gamma, *map(float, spread))
        except ValueError:
            known = ", ".join(f"{d.value}-{r.value}" for d in Depth for r in Redistribution)
            raise Refusal(
                "unknown_variety",
                f"There is no label variety {slug!r}; choose one of {known}, or with a spread, as t2-clamp-s0.5.",
            ) from None

    def soft_labels(self, answers: Answers) -> Floats:
        """(R, K) float64: one point on the simplex per answer."""
        labels = np.empty_like(answers.percentages, order="C")
        for rows in _chunks(labels.shape):
            self._fill(labels[rows], answers.percentages[rows], answers.ranks[rows], answers.impossible[rows])
        return labels

    def _fill(
        self,
        label: Floats,
        percentages: Floats,
        ranks: NDArray[np.int16],
        impossible: NDArray[np.bool_],
    ) -> None:
        # The order of the operations is part of the rule: the published labels come out bit for bit.
        np.divide(percentages, 100.0, out=label)
        if self.depth is not Depth.TALL:
            label[ranks > (1 if self.depth is Depth.T1 else 2)] = 0.0
        mass = label.sum(axis=1)
        full = mass >= _FULL
        label /= np.where(full, mass, 1.0)[:, np.newaxis]

        if self.redistribution is not Redistribution.NONE:
            free = label == 0.0
            given = 1.0 - mass if self.spread == 1 else self.spread * (1.0 - mass)
            if self.redistribution is Redistribution.CLAMP:
                free &= ~impossible
                given = np.where(full, self.gamma, given)
            else:
                given = np.where(full, 0.0, given)
            receivers = _count(free)
            if self.redistribution is Redistribution.CLAMP:
                label *= np.where(full & (receivers > 0), 1.0 - self.gamma, 1.0)[:, np.newaxis]
            if self.spread != 1:
                label *= np.where(full, 1.0, (1.0 - given) / mass)[:, np.newaxis]
            share = given / np.maximum(receivers, 1)
            filled = np.where(free, share[:, np.newaxis], label)
        else:
            filled = label

        np.divide(filled, filled.sum(axis=1)[:, np.newaxis], out=label)


RECOMMENDED = LabelVariety(Depth.T2, Redistribution.CLAMP, gamma=0.05, spread=0.75)
"""The variety to pool with ``ConfusionPool``: chosen by cross-validation, docs/decisions/0008."""
