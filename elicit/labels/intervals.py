"""Bootstrap intervals around a mean or any other statistic of independent units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Statistic: TypeAlias = Callable[[Floats], Floats]
"""From how often each of N units counts, (B, N), to B values; NaN where that leaves it undefined."""

# Numbers worked on at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to resample: ``draws`` with replacement, out of the caller's generator; the interval's ``level``.

    Raises ValueError for fewer than one draw or a level outside (0, 1).
    """

    generator: np.random.Generator
    draws: int = 1000
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}.")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}.")

    def counts(self, units: int) -> Iterator[Floats]:
        """Blocks (B, units) of draws: how often each unit is in each sample of ``units``."""
        step = max(1, _BLOCK // units)
        for start in range(0, self.draws, step):
            samples = self.generator.integers(units, size=(min(step, self.draws - start), units))
            yield np.stack([np.bincount(sample, minlength=units) for sample in samples]).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its percentile interval (Efron 1979), and the units (images) it rests on.

    ``interval`` is None where nobody asked for one, and for a single unit, which says nothing of the others.
    """

    value: float
    interval: tuple[float, float] | None
    units: int


def estimate(statistic: Statistic, units: int, bootstrap: Bootstrap | None = None) -> Estimate | None:
    """The statistic of ``units`` units, with an interval if ``bootstrap`` is given.

    None where it is undefined, or there are no units. Draws that leave it undefined are left out.
    """
    if not units:
        return None
    value = float(statistic(np.ones((1, units)))[0])
    if np.isnan(value):
        return None
    if bootstrap is None or units == 1:
        return Estimate(value, None, units)
    drawn = np.concatenate([statistic(counts) for counts in bootstrap.counts(units)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Estimate(value, None, units)
    low, high = np.quantile(drawn, [(1 - bootstrap.level) / 2, (1 + bootstrap.level) / 2])
    return Estimate(value, (float(low), float(high)), units)


def ratio(numerators: Floats, denominators: Floats) -> Floats:
    """Their quotients (B,), NaN where a denominator is not positive."""
    undefined = np.full(len(denominators), np.nan)
    return np.asarray(np.divide(numerators, denominators, out=undefined, where=denominators > 0))


def ratio_of_sums(numerators: Floats, denominators: Floats) -> Statistic:
    """sum(numerators) / sum(denominators) over the units; both are (N,)."""

    def statistic(counts: Floats) -> Floats:
        return ratio(counts @ numerators, counts @ denominators)

    return statistic
