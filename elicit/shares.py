"""Soft labels as people read them: the largest shares first, the rest in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHOWN = 4
# Of those on demand; with a hundred classes a page of images would be half a megabyte.
LISTED = 12
# A share that shows as more than 0.0 %.
VISIBLE = 0.0005


@dataclass(frozen=True)
class Share:
    """``percent``: 0 to 100."""

    name: str
    percent: float

    @property
    def width(self) -> str:
        """As an attribute of SVG: a point for decimals in every language."""
        return f"{self.percent:.2f}"

    @property
    def text(self) -> str:
        return f"{self.percent:.1f} %"


@dataclass(frozen=True)
class Shares:
    """A label: ``first`` always in sight, ``folded`` on demand; ``unnamed`` classes have next to nothing."""

    first: list[Share]
    folded: list[Share]
    unnamed: int

    @property
    def listed(self) -> list[Share]:
        """The largest of those on demand."""
        return self.folded[:LISTED]

    @property
    def unlisted(self) -> int:
        """How many classes on demand are not listed."""
        return len(self.folded) - len(self.listed)

    @property
    def folded_percent(self) -> float:
        return sum(share.percent for share in self.folded)


def of_label(label: NDArray[np.float64] | Sequence[float], names: Sequence[str], shown: int = SHOWN) -> Shares:
    """The label (K,) of the categories ``names``; ``shown`` at most are always in sight."""
    values = np.asarray(label, dtype=np.float64)
    order = np.argsort(-values, kind="stable").tolist()
    visible = [Share(names[place], float(values[place]) * 100) for place in order if values[place] >= VISIBLE]
    # One alone is no longer than the words that would stand for it.
    cut = shown if len(visible) > shown + 1 else len(visible)
    return Shares(visible[:cut], visible[cut:], len(names) - len(visible))
