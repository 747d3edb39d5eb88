"""A plot with all that stands around it: what it shows in words, its table, and how it is drawn."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

HISTOGRAM_SIZE = (460, 300)
# A drawing may be opened by itself, where the pages' policy would take its style sheet away.
DRAWING_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
BINS = 20


@dataclass(frozen=True)
class Figure:
    """A plot with all that stands around it.

    ``finding``: what it shows, in a sentence, for those who don't see it and those who do. ``head`` and ``rows``: the
    same numbers as a table. ``draw``: makes the SVG, which takes matplotlib and a tenth of a second.
    """

    name: str
    title: str
    finding: str
    note: str
    size: tuple[int, int]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    draw: Callable[[], bytes] = field(repr=False)

    def svg(self) -> bytes:
        # matplotlib's font cache; the home of a service's user need not exist.
        os.environ.setdefault("MPLCONFIGDIR", str(settings.VAR / "matplotlib"))
        return self.draw()


@dataclass(frozen=True)
class Entropies:
    """Of N images, at least one: ``heights`` of `BINS` equal bins from 0 to log K nats; a tenth of the images lie below
    ``low``, a tenth above ``high``."""

    heights: Sequence[int]
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, entropies: NDArray[np.float64], categories: int) -> Self:
        """From (N,) in nats."""
        most = math.log(categories)
        # Rounding may leave a label that is all alike a hair above log K.
        heights, _ = np.histogram(np.minimum(entropies, most), BINS, (0.0, most))
        return cls(heights.tolist(), *np.quantile(entropies, [0.1, 0.5, 0.9]).tolist())


def entropy(found: Entropies, categories: int) -> Figure:
    """How settled images are."""
    most, images = math.log(categories), sum(found.heights)
    edges = np.linspace(0.0, most, BINS + 1)
    return Figure(
        name="entropy",
        title="Entropy of the pooled labels",
        finding=f"The median is {found.median:.2f} nats; eight in ten images lie between {found.low:.2f} and "
        f"{found.high:.2f}.",
        note=f"In nats: 0 is one certain class, {most:.2f} (log {categories}) all classes alike.",
        size=HISTOGRAM_SIZE,
        head=("Nats", "Images", "Share"),
        rows=[
            (f"{edges[place]:.2f}–{edges[place + 1]:.2f}", number(height), percent(height / images))
            for place, height in enumerate(found.heights)
        ],
        draw=lambda: plots().histogram(
            edges,
            found.heights,
            what="entropy of the pooled label (nats)",
            of_what="images",
            size=HISTOGRAM_SIZE,
            mark=(found.median, f"median {found.median:.2f}"),
        ),
    )


def number(value: int) -> str:
    """With thousands apart."""
    return f"{value:,}"


def percent(share: float) -> str:
    """A share from 0 to 1 in words."""
    return f"{share * 100:.1f}\N{NO-BREAK SPACE}%"


def plots() -> Any:
    """`elicit.plots`: half a second that only those wait for who are the first to see a plot."""
    from elicit import plots

    return plots
