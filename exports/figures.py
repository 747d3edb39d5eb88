"""The plots of a release: what each shows, in words and as a table, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from elicit import figures
from elicit.figures import HISTOGRAM_SIZE, Figure, number, percent, plots
from elicit.labels.overview import Overview

# Categories that a heat map has room for.
MOST_CATEGORIES = 30
NAMES = ("entropy", "classes", "annotators")

HEAT_MAP_SIZE = (480, 530)


def of_release(overview: Overview, categories: Sequence[str]) -> list[Figure]:
    """The plots that tell something about this release."""
    shown = [entropy(overview, categories), classes(overview, categories)]
    if len(np.unique(overview.annotators)) > 1:
        shown.append(annotators(overview, categories))
    return shown


def entropy(overview: Overview, categories: Sequence[str]) -> Figure:
    """How settled the images are."""
    return figures.entropy(figures.Entropies.of(overview.entropy, len(categories)), len(categories))


def classes(overview: Overview, categories: Sequence[str]) -> Figure:
    """Which other classes people find plausible."""
    chosen = overview.most_mixed(MOST_CATEGORIES)
    shares = overview.mean_labels[np.ix_(chosen, chosen)]
    names = [categories[category] for category in chosen]
    pairs = [f"{categories[j]} for {categories[i]} ({percent(share)})" for i, j, share in overview.pairs(3)]
    left_out = len(categories) - len(chosen)
    only = f" Only the {len(chosen)} of {len(categories)} classes are shown that are mixed up most." if left_out else ""
    return Figure(
        name="classes",
        title="Mean label by most likely class",
        finding=f"Most plausible beside the most likely class: {', '.join(pairs)}."
        if pairs
        else "No label leaves anything to a second class.",
        note="A row: the images whose most likely class it is. A column: the mean share in per cent that their pooled "
        f"labels give to that class; below 1 % it is blank. A dotted row has no image.{only}",
        size=HEAT_MAP_SIZE,
        head=("Most likely class", "Images", *names),
        rows=[
            (
                categories[category],
                number(int(overview.top_images[category])),
                *("–" if math.isnan(share) else percent(share) for share in row),
            )
            for category, row in zip(chosen, shares.tolist(), strict=True)
        ],
        draw=lambda: plots().heat_map(
            shares,
            names,
            down="most likely class of the image",
            across="mean share of each class (%)",
            size=HEAT_MAP_SIZE,
        ),
    )


def annotators(overview: Overview, categories: Sequence[str]) -> Figure:
    """How many people each pooled label comes from."""
    values, heights = np.unique(overview.annotators, return_counts=True)
    images = len(overview.annotators)
    return Figure(
        name="annotators",
        title="Annotators per image",
        finding=f"From {values[0]} to {values[-1]}, {overview.annotators.mean():.1f} on average.",
        note="Only those whose answers are pooled.",
        size=HISTOGRAM_SIZE,
        head=("Annotators", "Images", "Share"),
        rows=[
            (number(value), number(height), percent(height / images))
            for value, height in zip(values.tolist(), heights.tolist(), strict=True)
        ],
        draw=lambda: plots().count_bars(
            values.tolist(), heights, what="annotators per image", of_what="images", size=HISTOGRAM_SIZE
        ),
    )


BY_NAME: Mapping[str, Callable[[Overview, Sequence[str]], Figure]] = dict(
    zip(NAMES, (entropy, classes, annotators), strict=True)
)


def moved(difference: Mapping[str, Any]) -> Figure:
    """How far the labels that changed between two releases moved; ``difference`` is of `differences.describe`."""
    found = difference["total_variation"]
    edges, heights = found["edges"], found["images"]
    in_both, changed = difference["counts"]["images"]["in_both"], difference["labels_changed"]
    return Figure(
        name="moved",
        title="How far the labels moved",
        finding=f"{number(changed)} of {number(in_both)} images have another label, up to {found['largest']:.3f} away; "
        f"the mean over all is {found['mean']:.3f}.",
        note="Total variation: 0 is the same label, 1 nothing in common. Labels that stayed are not drawn.",
        size=HISTOGRAM_SIZE,
        head=("Total variation", "Images", "Share"),
        rows=[
            ("unchanged", number(in_both - changed), percent((in_both - changed) / in_both)),
            *(
                (f"{edges[place]:.4g}–{edges[place + 1]:.4g}", number(height), percent(height / in_both))
                for place, height in enumerate(heights)
            ),
        ],
        draw=lambda: plots().histogram(
            edges,
            heights,
            what="total variation between the labels",
            of_what="images that changed",
            size=HISTOGRAM_SIZE,
        ),
    )
