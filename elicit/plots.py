"""Plots as SVG: numbers in, bytes out. The one place that knows how ours look.

matplotlib draws by its object interface, never by pyplot, which keeps figures alive and is not thread-safe. Same
numbers, same bytes. The colours follow the reader's own setting, light or dark, also where the file is shown as an
image: each is drawn as a stand-in and replaced by a variable of the style sheet that the file carries. All are told
apart by lightness, so with any colour vision, and nothing is said by colour alone.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

Size = tuple[int, int]
"""Width and height in CSS pixels."""

# name: light, dark
COLOURS = {
    "ink": ("#17211f", "#e8eeec"),
    "soft": ("#52605d", "#a4b2ae"),
    "line": ("#dbe1df", "#2e3937"),
    "bar": ("#0d5c63", "#7fd1cb"),
    "mark": ("#a34a00", "#ffb86b"),
    # From little to much: away from the ground.
    "level1": ("#e3eef7", "#1d2f3d"),
    "level2": ("#bcd7ea", "#24506e"),
    "level3": ("#84b8da", "#2d6c97"),
    "level4": ("#2a6ea8", "#6db3dd"),
    "level5": ("#174a80", "#a6d3ee"),
    "level6": ("#08264f", "#e1f1fb"),
    "on-strong": ("#ffffff", "#06182a"),
}
STAND_INS = {name: f"#0{place:x}0b0c" for place, name in enumerate(COLOURS)}
LEVELS = (1, 2, 5, 10, 20, 50)
"""Percentages at which a heat map's levels begin; below the first nothing is drawn."""
STRONG = 4
"""From this level on, text stands in the colour made for it."""
NUMBERED = 12
"""A heat map of at most so many rows has its numbers in it."""

# rcParams and the font cache belong to the whole process.
_LOCK = threading.Lock()
_STYLE: Any = {
    # Whatever a matplotlibrc on this machine says.
    **{name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"},
    "axes.edgecolor": STAND_INS["soft"],
    "axes.labelcolor": STAND_INS["ink"],
    "axes.linewidth": 1.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 13,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "elicit",
    "text.color": STAND_INS["ink"],
    "text.parse_math": False,
    "xtick.color": STAND_INS["soft"],
    "xtick.labelcolor": STAND_INS["ink"],
    "ytick.color": STAND_INS["soft"],
    "ytick.labelcolor": STAND_INS["ink"],
}
_SHEET = (
    ":root{{color-scheme:light dark;{light}}}"
    "@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    "text{{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',sans-serif}}"
)


def histogram(
    edges: ArrayLike,
    heights: ArrayLike,
    *,
    what: str,
    of_what: str,
    size: Size,
    mark: tuple[float, str] | None = None,
) -> bytes:
    """Bars between ``edges`` (n + 1,) of ``heights`` (n,); ``mark`` is a place on the x axis and its name."""
    bounds, counts = np.asarray(edges, dtype=np.float64), np.asarray(heights, dtype=np.float64)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.bar(
            bounds[:-1],
            counts,
            np.diff(bounds),
            align="edge",
            color=STAND_INS["bar"],
            edgecolor=STAND_INS["line"],
            linewidth=0.75,
        )
        axes.set_xlim(bounds[0], bounds[-1])
        _finish(axes, what, of_what)
        if mark is not None:
            _mark(axes, *mark)

    return _svg(draw, size)


def count_bars(values: Sequence[int], heights: ArrayLike, *, what: str, of_what: str, size: Size) -> bytes:
    """A bar for each whole number of ``values``, rising, with its height; the numbers between have none."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.bar(list(values), np.asarray(heights, dtype=np.float64), 0.8, color=STAND_INS["bar"])
        axes.set_xlim(min(values) - 0.75, max(values) + 0.75)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        _finish(axes, what, of_what)

    return _svg(draw, size)


def heat_map(shares: ArrayLike, names: Sequence[str], *, down: str, across: str, size: Size) -> bytes:
    """(n, n) shares from 0 to 1, by level; a row of nan is struck out. ``down`` and ``across`` name the axes."""
    values = np.asarray(shares, dtype=np.float64)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = len(values)
        levels = np.digitize(values * 100, LEVELS)
        levels[np.isnan(values)] = 0
        for level in range(1, len(LEVELS) + 1):
            _cells(axes, levels == level, STAND_INS[f"level{level}"])
        for empty in np.flatnonzero(np.isnan(values).all(axis=1)).tolist():
            axes.plot([-0.5, rows - 0.5], [empty, empty], color=STAND_INS["soft"], linewidth=1, linestyle=":")
        if rows <= NUMBERED:
            for row, column in zip(*np.nonzero(levels), strict=True):
                axes.text(
                    column,
                    row,
                    f"{values[row, column] * 100:.0f}",
                    ha="center",
                    va="center_baseline",
                    color=STAND_INS["on-strong" if levels[row, column] >= STRONG else "ink"],
                )
        axes.set(xlim=(-0.5, rows - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
        points = 13 if rows <= NUMBERED else 9
        short = [_shortened(name) for name in names]
        axes.set_xticks(range(rows), short, rotation=90 if max(map(len, short)) > 2 else 0, fontsize=points)
        axes.set_yticks(range(rows), short, fontsize=points)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set(visible=True, color=STAND_INS["line"])
        axes.set(xlabel=across, ylabel=down)
        bounds = [*LEVELS, 100]
        handles = [
            Patch(facecolor=STAND_INS[f"level{level + 1}"], label=f"{bounds[level]}–{bounds[level + 1]} %")
            for level in range(len(LEVELS))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=11, columnspacing=0.9,
                      handlelength=1.1, handletextpad=0.4, borderpad=0.2)  # fmt: skip

    return _svg(draw, size)


def _cells(axes: Axes, chosen: NDArray[np.bool_], colour: str) -> None:
    """All cells of one level as one shape: a thousand rectangles of their own would make a large file."""
    rows, columns = np.nonzero(chosen)
    if not len(rows):
        return
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
    points = np.stack([columns, rows], axis=1)[:, None, :] + corners
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(rows))
    axes.add_patch(PathPatch(Path(points.reshape(-1, 2), codes), facecolor=colour, edgecolor="none"))


def _shortened(name: str, most: int = 18) -> str:
    """Without its middle: long names often begin alike."""
    return name if len(name) <= most else f"{name[: most - 7]}…{name[-6:]}"


def _finish(axes: Axes, what: str, of_what: str) -> None:
    axes.set(xlabel=what, ylabel=of_what)
    axes.set_ylim(bottom=0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=STAND_INS["line"], linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(length=0, pad=6)
    axes.spines["left"].set_visible(False)


def _mark(axes: Axes, place: float, name: str) -> None:
    axes.axvline(place, color=STAND_INS["mark"], linewidth=2, linestyle="--")
    low, high = axes.get_xlim()
    left = place > (low + high) / 2
    axes.annotate(
        name,
        (place, 1.0),
        (4 if left else -4, 4),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        color=STAND_INS["ink"],
    )


def _svg(draw: Callable[[Figure], None], size: Size) -> bytes:
    """The figure that ``draw`` fills, of so many CSS pixels."""
    buffer = io.BytesIO()
    with _LOCK, mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The names of categories may be in any script: the browser has the letters that our font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _coloured(buffer.getvalue().decode()).encode()


def _coloured(svg: str) -> str:
    variables = {stand_in: f"var(--{name})" for name, stand_in in STAND_INS.items()}
    svg = re.sub("|".join(variables), lambda found: variables[found[0]], svg)
    light, dark = (";".join(f"--{name}:{pair[scheme]}" for name, pair in COLOURS.items()) for scheme in (0, 1))
    return svg.replace("<defs>", f'<defs><style type="text/css">{_SHEET.format(light=light, dark=dark)}</style>', 1)


def bars(names: Sequence[str], values: Sequence[float], *, what: str, size: Size, of: float | None = None) -> bytes:
    """A bar to the right for each name, the first on top, its value at its end; ``of`` is the axis' end, if any."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = list(range(len(names)))
        axes.barh(places, list(values), 0.66, color=STAND_INS["bar"])
        most = max([*values, of or 0, 1])
        for place, value in zip(places, values, strict=True):
            said = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
            axes.text(value + most * 0.012, place, said, va="center_baseline", ha="left")
        axes.set_yticks(places, [_shortened(name, 26) for name in names])
        axes.set(xlim=(0, most * 1.14), ylim=(len(names) - 0.5, -0.5), xlabel=what)
        _across(axes)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    return _svg(draw, size)


def columns(names: Sequence[str], heights: ArrayLike, *, what: str, of_what: str, size: Size, ticks: int = 6) -> bytes:
    """A column for each name, side by side; about ``ticks`` of the names stand under them."""
    counts = np.asarray(heights, dtype=np.float64)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.bar(range(len(counts)), counts, 0.86, color=STAND_INS["bar"])
        step = max(1, -(-len(names) // ticks))
        axes.set_xticks(range(0, len(names), step), list(names)[::step])
        axes.set_xlim(-0.75, len(counts) - 0.25)
        _finish(axes, what, of_what)
        axes.set_ylim(0, max(1.0, counts.max(initial=0.0) * 1.05))

    return _svg(draw, size)


def curve(
    places: ArrayLike,
    middle: ArrayLike,
    *,
    what: str,
    of_what: str,
    size: Size,
    band: tuple[ArrayLike, ArrayLike] | None = None,
    beside: tuple[str, ArrayLike, ArrayLike] | None = None,
    name: str = "",
    top: float | None = None,
) -> bytes:
    """A line through (n,) points, each marked; ``band``: low and high (n,) around it; ``beside``: a second line, dashed
    and without marks, by its name, places and heights. ``name`` is the first one's. ``top``: the end of both axes."""
    x = np.asarray(places, dtype=np.float64)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if band is not None:
            low, high = (np.asarray(each, dtype=np.float64) for each in band)
            axes.fill_between(x, low, high, color=STAND_INS["level2"], linewidth=0)
        if beside is not None:
            label, other_x, other_y = beside
            axes.plot(
                np.asarray(other_x, dtype=np.float64),
                np.asarray(other_y, dtype=np.float64),
                color=STAND_INS["mark"],
                linewidth=2,
                linestyle="--",
                label=label,
            )
        axes.plot(
            x,
            np.asarray(middle, dtype=np.float64),
            color=STAND_INS["bar"],
            linewidth=2,
            marker="o",
            markersize=6 if len(x) <= 40 else 3,
            label=name,
        )
        axes.set(xlabel=what, ylabel=of_what)
        if top is None:
            axes.set_ylim(bottom=0)
        else:
            axes.set(xlim=(0, top), ylim=(0, top))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=top is None, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(axis="y", color=STAND_INS["line"], linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.spines["left"].set_visible(False)
        if name and beside is not None:
            figure.legend(loc="outside upper left", ncols=2, fontsize=12, handlelength=2.4, borderpad=0.2)

    return _svg(draw, size)


def intervals(
    names: Sequence[str], values: Sequence[float], ends: Sequence[tuple[float, float] | None], *, what: str, size: Size
) -> bytes:
    """A point for each name, the first on top, on a line between its ends where it has some; the axis holds
    0..1 and whatever lies beyond."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (value, pair) in enumerate(zip(values, ends, strict=True)):
            if pair is not None:
                axes.plot(list(pair), [place, place], color=STAND_INS["bar"], linewidth=3, solid_capstyle="butt")
            axes.plot([value], [place], color=STAND_INS["bar"], marker="o", markersize=9)
            axes.annotate(f"{value:.3f}", (value, place), (0, 9), textcoords="offset points", ha="center", va="bottom")
        axes.set_yticks(range(len(names)), list(names))
        everything = [0.0, 1.0, *values, *(end for pair in ends if pair for end in pair)]
        axes.set(xlim=(min(everything) - 0.03, max(everything) + 0.03), ylim=(len(names) - 0.5, -0.7), xlabel=what)
        _across(axes)

    return _svg(draw, size)


def _across(axes: Axes) -> None:
    """For what lies along the x axis."""
    axes.grid(axis="x", color=STAND_INS["line"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)


def two_scales(
    places: ArrayLike,
    falling: ArrayLike,
    rising: ArrayLike,
    *,
    what: str,
    of_falling: str,
    of_rising: str,
    size: Size,
    band: tuple[ArrayLike, ArrayLike] | None = None,
    mark: tuple[float, str] | None = None,
) -> bytes:
    """Two lines over (n,) whole places, each with a scale of its own: ``falling`` at the left, with a ``band`` of low
    and high (n,) where known; ``rising`` at the right, dashed. ``mark`` is a place and its name."""
    x = np.asarray(places, dtype=np.float64)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        other = axes.twinx()
        if band is not None:
            low, high = (np.asarray(each, dtype=np.float64) for each in band)
            axes.fill_between(x, low, high, color=STAND_INS["level2"], linewidth=0)
        (one,) = axes.plot(
            x, np.asarray(falling, dtype=np.float64), color=STAND_INS["bar"], linewidth=2, marker="o", markersize=5
        )
        (two,) = other.plot(
            x, np.asarray(rising, dtype=np.float64), color=STAND_INS["mark"], linewidth=2, linestyle="--"
        )
        axes.set(xlabel=what, ylabel=of_falling)
        other.set_ylabel(of_rising)
        for each in (axes, other):
            each.set_ylim(bottom=0)
            each.tick_params(length=0, pad=6)
            for side in ("left", "right", "top"):
                each.spines[side].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        other.yaxis.set_major_locator(MaxNLocator(nbins=6))
        other.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.grid(axis="y", color=STAND_INS["line"], linewidth=1)
        axes.set_axisbelow(True)
        if mark is not None:
            _mark(axes, *mark)
        figure.legend([one, two], [of_falling, of_rising], loc="outside upper left", ncols=2, fontsize=12,
                      handlelength=2.4, borderpad=0.2)  # fmt: skip

    return _svg(draw, size)


def bands(
    panels: Sequence[Sequence[tuple[str, ArrayLike, ArrayLike, ArrayLike, ArrayLike]]],
    *,
    what: str,
    of_what: Sequence[str],
    size: Size,
) -> bytes:
    """Panels side by side, of up to three lines each: name, places, middle, low and high (n,), between which it is
    shaded."""
    colours, styles = ("soft", "bar", "mark"), ("--", "-", ":")

    def draw(figure: Figure) -> None:
        for panel, (lines, title) in enumerate(zip(panels, of_what, strict=True)):
            axes = figure.add_subplot(1, len(panels), panel + 1)
            for (name, places, *numbers), colour, style in zip(lines, colours, styles, strict=False):
                middle, low, high = (np.asarray(each, dtype=np.float64) for each in numbers)
                x = np.asarray(places, dtype=np.float64)
                axes.fill_between(x, low, high, color=STAND_INS[colour], alpha=0.18, linewidth=0)
                axes.plot(x, middle, color=STAND_INS[colour], linewidth=2.2, linestyle=style, label=name)
            axes.set(xlabel=what, ylabel=title)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
            axes.grid(axis="y", color=STAND_INS["line"], linewidth=1)
            axes.set_axisbelow(True)
            axes.tick_params(length=0, pad=6)
            axes.spines["left"].set_visible(False)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=3, fontsize=12, handlelength=2.6, borderpad=0.2)

    return _svg(draw, size)


def lines(curves: Sequence[tuple[str, ArrayLike, ArrayLike]], *, what: str, of_what: str, size: Size) -> bytes:
    """Steps from (0, 0) to (1, 1), each by its name, places and heights; told apart by colour and by dashes."""
    colours = ("bar", "mark", "level4", "soft", "level6", "ink")
    looks: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (1, 1)), (0, (6, 2)))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (name, x, y) in enumerate(curves):
            colour, dashes = colours[place % len(colours)], looks[place % len(looks)]
            across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
            axes.step(across, up, where="post", color=STAND_INS[colour], linestyle=dashes, linewidth=2.5, label=name)
        axes.plot([0, 1], [0, 1], color=STAND_INS["line"], linewidth=1)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=what, ylabel=of_what)
        axes.grid(color=STAND_INS["line"], linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.legend(loc="lower right", fontsize=12, handlelength=3)

    return _svg(draw, size)
