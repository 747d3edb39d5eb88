"""The picture of a comparison: how the runs learned, how calibrated they ended, each metric side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.evaluate import Difference
from training.train import Comparison

# Okabe and Ito's colours, told apart with any colour vision; marker, line and hatch say the same again.
COLOURS = {"soft": "#0072B2", "hard": "#D55E00", "top": "#009E73"}
MARKERS = {"soft": "o", "hard": "s", "top": "^"}
LINES = {"soft": "-", "hard": "--", "top": ":"}
HATCHES = {"soft": "", "hard": "//", "top": ".."}
TARGETS = {
    "soft": "soft: what people said",
    "hard": "hard: the archive's class",
    "top": "top: people's likeliest class",
}
GREY = "#555555"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "elicit",
}

METRICS = (
    ("cross_entropy", "cross-entropy\nto people (nats)", "lower"),
    ("kl", "KL to people\n(nats, floored)", "lower"),
    ("total_variation", "total variation\nto people", "lower"),
    ("calibration_error", "calibration error\n(archive's class)", "lower"),
    ("accuracy", "accuracy\n(archive's class)", "higher"),
)


def save_plots(
    output: Path,
    comparison: Comparison,
    differences: Mapping[str, Difference],
    *,
    subtitle: str,
    note: str | None,
) -> list[Path]:
    """Write plot.png and plot.svg into an existing folder; ``differences`` are soft - hard."""
    with mpl.rc_context(STYLE):
        figure = _draw(comparison, differences, subtitle, note)
        png, svg = output / "plot.png", output / "plot.svg"
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Title": f"What soft labels buy: {subtitle}"})
    return [png, svg]


def _draw(comparison: Comparison, differences: Mapping[str, Difference], subtitle: str, note: str | None) -> Figure:
    # Without pyplot, which keeps figures alive and may look for a screen.
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    heading, top, bottom = figure.subfigures(3, 1, squeeze=False, height_ratios=(0.17 if note else 0.12, 1, 0.8))[:, 0]
    heading.text(0.01, 0.9, "What soft labels buy, on held-out images", fontsize=15, va="top", weight="bold")
    heading.text(0.01, 0.47 if note else 0.3, subtitle, va="top", color=GREY)
    if note:
        heading.text(0.01, 0.12, note, va="top", weight="bold")
    curve, reliability = top.subplots(1, 2, width_ratios=(1.5, 1))
    _learning_curve(curve, comparison)
    _reliability(reliability, comparison)
    top.legend(*curve.get_legend_handles_labels(), ncols=3, loc="outside lower left")  # off the lines
    for axes, (metric, title, better) in zip(bottom.subplots(1, len(METRICS)), METRICS, strict=True):
        _bars(axes, comparison, metric, f"{better} is better\n{_sentence(differences[metric])}")
        axes.set_title(title, fontsize=10)
    return figure


def _learning_curve(axes: Axes, comparison: Comparison) -> None:
    for name, run in comparison.runs.items():
        epochs = [epoch.number for epoch, _ in run.curve]
        values = np.array([found.metrics["cross_entropy"] for _, found in run.curve], dtype=np.float64)
        every = max(1, len(epochs) // 10)
        axes.plot(
            epochs,
            values,
            label=TARGETS[name],
            color=COLOURS[name],
            linestyle=LINES[name],
            marker=MARKERS[name],
            markersize=5,
            markevery=((len(epochs) - 1) % every, every),  # the last epoch has one
        )
    guess = comparison.baselines["mean_label"].metrics
    known = {
        "the training images' mean label, for every image": (guess["cross_entropy"], (0, (6, 3))),
        "people's own entropy: no prediction gets below": (guess["entropy_people"], "-"),
    }
    for label, (height, line) in known.items():
        if height is not None:
            axes.axhline(height, color=GREY, linewidth=1, linestyle=line, label=label)
    axes.set(title="Learning curve, held-out images", xlabel="epoch", ylabel="cross-entropy to people (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)


def _reliability(axes: Axes, comparison: Comparison) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for name, shift in (("soft", -0.006), ("hard", 0.006)):
        bins = comparison.runs[name].final.reliability
        where = np.array([b.confidence for b in bins])
        right = np.array([b.accuracy for b in bins])
        images = np.array([b.images for b in bins])
        low, high = _wilson(right, images)
        axes.errorbar(
            where + shift,  # so that two intervals side by side stay two
            right,
            yerr=np.stack([right - low, high - right]),
            color=COLOURS[name],
            linestyle=LINES[name],
            linewidth=0.8,
            elinewidth=1.4,
            marker=MARKERS[name],
            clip_on=False,
        )
    axes.set_title("Reliability, last epoch, with 95 % interval per bin")
    axes.set(xlabel="confidence (diagonal: calibrated)", ylabel="share right (archive's class)")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share of n: sensible at 0, at 1 and for a single image."""
    z = 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def _bars(axes: Axes, comparison: Comparison, metric: str, caption: str) -> None:
    values = {name: run.final.metrics[metric] or 0.0 for name, run in comparison.runs.items()}
    for place, (name, value) in enumerate(values.items()):
        axes.bar(place, value, color=COLOURS[name], hatch=HATCHES[name], edgecolor="white", linewidth=0, width=0.66)
        axes.annotate(f"{value:.3f}", (place, value), (0, 2), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xticks(range(len(values)), list(values))
    axes.set_ylim(0, max(values.values()) * 1.15 or 1)  # from 0, as the eye compares lengths
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(caption, fontsize=9, color=GREY)


def _sentence(found: Difference) -> str:
    """soft - hard in words, with its interval on a line of its own."""
    if found.difference is None:
        return "soft − hard: undefined"
    interval = "" if found.low is None else f"95 %: {found.low:+.3f} to {found.high:+.3f}"
    return f"soft − hard: {found.difference:+.3f}\n{interval}".replace("-", "−")
