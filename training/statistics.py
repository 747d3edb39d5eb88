"""Means over a handful of seeds, with Student's t: the intervals and tests of a comparison.

The distribution of t is a finite sum for whole degrees of freedom (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4); a
library of statistics would be a dependency for these lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class OverSeeds:
    """The mean of one figure per seed, and its 95 % interval by t; None for a single seed.

    ``p``: two-sided, for a mean of 0; None for a single seed, 0 where all values are the same and not 0.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Of at least one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return OverSeeds(mean, None, None, None)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = t_quantile(LEVEL, n - 1) * error
    if error == 0:
        return OverSeeds(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    return OverSeeds(mean, mean - half, mean + half, 1 - t_within(abs(mean) / error, n - 1))


def t_within(t: float, freedom: int) -> float:
    """The probability that Student's t of ``freedom`` degrees lies within -t..t, for t >= 0."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for step in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= cosine**2 * (2 * step) / (2 * step + 1)
        return 2 / math.pi * (angle + sine * total)
    term, total = 1.0, 0.0
    for step in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * step - 1) / (2 * step)
    return sine * total


def t_quantile(level: float, freedom: int) -> float:
    """The t within which a share ``level``, 0..1, of Student's distribution lies, by halving."""
    low, high = 0.0, 1.0
    while t_within(high, freedom) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < level else (low, middle)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values raised so that, all tests together, one in twenty families has a false find (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    raised, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        raised[index] = worst
    return raised
