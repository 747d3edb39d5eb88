"""The plots of the quality pages: what each shows, in words and as a table, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elicit.figures import HISTOGRAM_SIZE, Figure, percent, plots
from elicit.labels.quality import ABOUT, Measure, Measured, in_words
from elicit.labels.scoring import Calibration

BINS = 24


def spread(name: Measure, measured: Measured, mark: float | None, what: str = "threshold") -> Figure | None:
    """Where everybody lies on a measure; None where nobody's is known."""
    values = measured.values[measured.known]
    if not len(values):
        return None
    about = ABOUT[name]
    low, high = float(values.min()), float(values.max())
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    whole = about.unit == "count" and high - low < BINS
    edges = np.arange(round(low), round(high) + 2) - 0.5 if whole else np.linspace(low, max(high, low + 1e-3), BINS + 1)
    heights, _ = np.histogram(values, edges)
    middle = float(np.median(values))
    marked = "" if mark is None else f" The {what} is {in_words(name, mark)}."
    return Figure(
        name=name.value,
        title=about.title,
        finding=f"The median of {len(values)} sessions is {in_words(name, middle)}.{marked}",
        note=about.what,
        size=HISTOGRAM_SIZE,
        head=(about.title, "Sessions", "Share"),
        rows=[
            (
                in_words(name, float(round(edges[place] + 0.5)))
                if whole
                else f"{in_words(name, float(edges[place]))} to {in_words(name, float(edges[place + 1]))}",
                str(height),
                percent(height / len(values)),
            )
            for place, height in enumerate(heights.tolist())
            if height
        ],
        draw=lambda: plots().histogram(
            edges,
            heights,
            what=about.title,
            of_what="sessions",
            size=HISTOGRAM_SIZE,
            mark=None if mark is None else (mark, f"{what} {in_words(name, mark)}"),
        ),
    )


def reliability(found: Calibration) -> Figure:
    """Stated percentages beside the share of the others who agree."""
    bins = [each for each in found.bins if each.count and each.stated is not None and each.observed is not None]
    stated = [each.stated for each in bins]
    observed = [each.observed for each in bins]
    side = "over" if found.stated > found.observed else "under"
    return Figure(
        name="reliability",
        title="Stated percentage and what the others say",
        finding=f"Says {percent(found.stated)} on average where {percent(found.observed)} of the others agree: "
        f"{100 * abs(found.stated - found.observed):.0f} points {side}confident.",
        note="A point for each band of percentages; on the dashed line they would be what the others say.",
        size=HISTOGRAM_SIZE,
        head=("Stated", "Answers", "Mean stated", "Others who agree"),
        rows=[
            (
                f"{each.low:g} %" if each.low == each.high else f"{each.low:g} to {each.high:g} %",
                str(each.count),
                percent(each.stated or 0.0),
                percent(each.observed or 0.0),
            )
            for each in bins
        ],
        draw=lambda: plots().curve(
            stated,
            observed,
            what="stated share",
            of_what="share of the others",
            size=HISTOGRAM_SIZE,
            beside=("as the others", [0.0, 1.0], [0.0, 1.0]),
            name="this annotator",
            top=1.0,
        ),
    )


def pace(seconds: Sequence[tuple[int, float, str]], everybody: float | None) -> Figure:
    """Seconds for each trial, in the order shown."""
    places, times = [place for place, _, _ in seconds], [time for _, time, _ in seconds]
    middle = float(np.median(times))
    usual = "" if everybody is None else f" Everybody’s is {everybody:.1f} s."
    return Figure(
        name="pace",
        title="Time for each image",
        finding=f"The median is {middle:.1f} s, the fastest {min(times):.1f} s, the slowest {max(times):.1f} s.{usual}",
        note="From the painted image to the answer, while the tab was in sight.",
        size=HISTOGRAM_SIZE,
        head=("Position", "Seconds", "Kind"),
        rows=[(str(place), f"{time:.1f}", kind) for place, time, kind in seconds],
        draw=lambda: plots().curve(
            places,
            times,
            what="position in the session",
            of_what="seconds",
            size=HISTOGRAM_SIZE,
            beside=None
            if everybody is None
            else ("everybody’s median", [places[0], places[-1]], [everybody, everybody]),
            name="this annotator",
        ),
    )
