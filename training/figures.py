"""The figures of a comparison of label sets, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from training.plot import GREY, STYLE
from training.statistics import over_seeds

# Okabe and Ito's colours, told apart with any colour vision; markers and lines say the same again.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "^", "o", "D", "v", "P", "X")
LINES = ("--", ":", "-", "-.")
LEAST = 30
"""Images in a bin of reliability, where any bin has so many: the share of fewer says little."""
MOST = 7
"""Label sets in a figure: more could not be told apart."""

Result = Mapping[str, Any]
Sets = Mapping[str, Any]


def save_figures(output: Path, result: Result, bins: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Write <name>.png and <name>.svg into an existing folder; the alternative text of each by name.

    ``bins``: label set -> the bins of reliability of all seeds together.
    """
    styles = _styles(result)
    ends = _ends(result)
    made: dict[str, tuple[Figure, str]] = {
        "learning-curves": (
            _learning_curves({name: result["sets"][name] for name in ends}, styles, result),
            "Cross-entropy to people on held-out images by epoch, mean over seeds, one line per label set.",
        ),
        "reliability": (
            _reliability({name: bins[name] for name in ends if name in bins}, styles),
            "Share of images whose predicted class is the archive's, and people's share of it, by confidence.",
        ),
    }
    on_curves = [name for name, found in result["sets"].items() if _has_curve(name, found, result)]
    if on_curves:
        made["annotators"] = (
            _against(result, styles, on_curves, "annotators_per_image", "people asked per image"),
            "Held-out metrics against the number of annotators per relabelled image, with 95 % over seeds.",
        )
        if any(result["sets"][name]["seconds_per_image"] is not None for name in on_curves):
            made["cost"] = (
                _against(result, styles, on_curves, "seconds_per_image", "annotator seconds per image"),
                "Held-out metrics against annotator seconds per relabelled image, with 95 % over seeds.",
            )
    for name, (figure, title) in made.items():
        figure.savefig(output / f"{name}.png", dpi=110, metadata={"Software": None})
        with mpl.rc_context(STYLE):
            figure.savefig(output / f"{name}.svg", metadata={"Date": None, "Title": title})
    return {name: title for name, (_, title) in made.items()}


def _curve(name: str) -> str:
    """A set's name without its number of annotators."""
    what, _, options = name.partition(":")
    return what.partition("@")[0] + (f":{options}" if options else "")


def _styles(result: Result) -> dict[str, dict[str, Any]]:
    curves = list(dict.fromkeys(map(_curve, result["sets"])))
    return {
        curve: {
            "color": COLOURS[at % len(COLOURS)],
            "marker": MARKERS[at % len(MARKERS)],
            "linestyle": LINES[(at // len(COLOURS) + at) % len(LINES)],
        }
        for at, curve in enumerate(curves)
    }


def _ends(result: Result) -> list[str]:
    """The set of each curve that asks most people."""
    found: dict[str, str] = {}
    for name, told in result["sets"].items():
        asked = told["annotators_per_image"] or 0
        best = found.get(_curve(name))
        if best is None or asked >= (result["sets"][best]["annotators_per_image"] or 0):
            found[_curve(name)] = name
    return list(found.values())[:MOST]


def _has_curve(name: str, found: Mapping[str, Any], result: Result) -> bool:
    """Whether people are asked, and other numbers of them are there to compare with."""
    same = [other for other in result["sets"] if _curve(other) == _curve(name)]
    return bool(found["annotators_per_image"]) and len(same) > 1


def _figure(size: tuple[float, float]) -> Figure:
    # Without pyplot, which keeps figures alive and may look for a screen.
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    def drawn(*given: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*given)

    return drawn


@_styled
def _learning_curves(sets: Sets, styles: Mapping[str, dict[str, Any]], result: Result) -> Figure:
    figure = _figure((8.5, 4.6))
    axes = figure.subplots()
    for name, found in sets.items():
        points: dict[int, list[float]] = {}
        for curve in found["learning_curve"]:
            for point in curve:
                if "held_out" in point:
                    points.setdefault(point["epoch"], []).append(point["held_out"]["cross_entropy"])
        epochs = sorted(points)
        means = [float(np.mean(points[epoch])) for epoch in epochs]
        axes.plot(epochs, means, label=name, markersize=5, **styles[_curve(name)])
    axes.axhline(result["people"]["entropy"], color=GREY, linewidth=1, label="people's own entropy")
    axes.set(
        xlabel="epoch",
        ylabel="cross-entropy to people (nats)",
        title="Learning curves, held-out images, mean over seeds",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper")
    return figure


@_styled
def _reliability(bins: Mapping[str, Sequence[Any]], styles: Mapping[str, dict[str, Any]]) -> Figure:
    figure = _figure((10, 4.3))
    for axes, of_what, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("accuracy", "people"),
        ("share right (archive's class)", "people's share of the predicted class"),
        strict=True,
    ):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
        for name, every in bins.items():
            # Of a small set all bins are small; better those than none.
            found = [each for each in every if each.images >= LEAST] or list(every)
            where, height = [b.confidence for b in found], [getattr(b, of_what) for b in found]
            axes.plot(where, height, label=name, markersize=5, clip_on=False, **styles[_curve(name)])
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence (diagonal: calibrated)", ylabel=label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
    figure.suptitle(f"Reliability, all seeds together; bins of {LEAST} images or more", x=0.01, ha="left")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


AGAINST = (
    ("cross_entropy", "cross-entropy to people (nats)"),
    ("total_variation", "total variation to people"),
    ("accuracy", "accuracy (archive's class)"),
    ("entropy_correlation", "entropy correlation"),
)


@_styled
def _against(
    result: Result, styles: Mapping[str, dict[str, Any]], names: Sequence[str], what: str, label: str
) -> Figure:
    figure = _figure((10, 7))
    for axes, (metric, title) in zip(figure.subplots(2, 2).flat, AGAINST, strict=True):
        _curves_against(axes, result, styles, names, what, metric)
        axes.set(title=title, xlabel=label, xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.set_xticks([x for x in (1, 2, 3, 6, 10, 20, 50, 100, 200, 500) if _inside(x, axes.get_xlim())])
        if what == "seconds_per_image":
            _add_money(axes, result)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    return figure


def _inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _curves_against(
    axes: Axes,
    result: Result,
    styles: Mapping[str, dict[str, Any]],
    names: Sequence[str],
    what: str,
    metric: str,
) -> None:
    curves: dict[str, list[tuple[float, Any]]] = {}
    for name in names:
        found = result["sets"][name]
        if found[what] is not None and found["metrics"][metric] is not None:
            curves.setdefault(_curve(name), []).append((found[what], over_seeds(found["metrics"][metric]["values"])))
    for curve, points in curves.items():
        points.sort(key=lambda point: point[0])
        where = np.array([x for x, _ in points])
        means = np.array([y.mean for _, y in points])
        axes.plot(where, means, label=curve, markersize=5, **styles[curve])
        if all(y.low is not None for _, y in points):
            axes.fill_between(
                where,
                [y.low for _, y in points],
                [y.high for _, y in points],
                color=styles[curve]["color"],
                alpha=0.15,
                linewidth=0,
            )
    for name, found in result["sets"].items():
        if (
            not found["annotators_per_image"]
            and found["metrics"][metric] is not None
            and _curve(name) in ("hard", "smooth")
        ):
            style = styles[_curve(name)]
            axes.axhline(
                found["metrics"][metric]["mean"],
                label=name,
                color=style["color"],
                linestyle=style["linestyle"],
                linewidth=1,
            )


def _add_money(axes: Axes, result: Result) -> None:
    """A second axis: what the same seconds cost for all relabelled images."""
    cost, images = result["cost"], result["images"]["relabelled"]
    if cost["hourly_pay"] is None or not images:
        return
    factor = images / 3600 * cost["hourly_pay"]
    money = axes.secondary_xaxis("top", functions=(lambda x: x * factor, lambda x: x / factor))
    money.set_xlabel(f"{cost['currency']} for {images} images", fontsize=8, color=GREY)
    money.tick_params(labelsize=8)
    money.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    money.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
