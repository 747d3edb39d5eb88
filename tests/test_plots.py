"""Drawings: valid, the same each time, and readable in both schemes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from elicit import plots

SVG = "{http://www.w3.org/2000/svg}"


def heat_map(categories: int, name: str = "class {}") -> bytes:
    random = np.random.default_rng(categories)
    shares = 0.6 * np.eye(categories) + 0.4 * random.dirichlet(np.full(categories, 0.2), categories)
    shares[-1] = np.nan
    names = [name.format(place) for place in range(categories)]
    return plots.heat_map(shares, names, down="down", across="across", size=(480, 530))


def histogram() -> bytes:
    edges = np.linspace(0, 2, 11)
    return plots.histogram(
        edges, np.arange(10), what="nats", of_what="images", size=(460, 300), mark=(0.5, "median 0.50")
    )


def parsed(svg: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - drawn by ourselves


def texts(svg: bytes) -> list[str]:
    return ["".join(each.itertext()) for each in parsed(svg).iter(f"{SVG}text")]


def luminance(colour: str) -> float:
    """As WCAG 2 has it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_a_histogram_says_what_it_shows() -> None:
    svg = histogram()

    assert {"nats", "images", "median 0.50"} <= set(texts(svg))
    assert parsed(svg).get("viewBox") == "0 0 460 300"


def test_the_same_numbers_give_the_same_bytes_whatever_the_machine_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    first = histogram()
    with monkeypatch.context() as changed:
        changed.setitem(mpl.rcParams, "font.size", 30)
        changed.setitem(mpl.rcParams, "axes.facecolor", "red")
        again = histogram()
    assert again == first
    assert b"<dc:date>" not in first


def test_drawing_leaves_the_settings_of_the_process_as_they_were() -> None:
    before = dict(mpl.rcParams)
    heat_map(3)
    assert dict(mpl.rcParams) == before


def test_threads_draw_the_same_as_one_alone() -> None:
    alone = {size: heat_map(size) for size in (2, 5, 13, 30)}
    together: dict[int, bytes] = {}

    def draw(size: int) -> None:
        together[size] = heat_map(size)

    threads = [threading.Thread(target=draw, args=(size,)) for size in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize("categories", [2, plots.NUMBERED, plots.NUMBERED + 1, 30])
def test_a_heat_map_names_each_class_twice_and_is_numbered_while_there_is_room(categories: int) -> None:
    found = texts(heat_map(categories))

    assert found.count("class 0") == 2
    assert any(text.isdigit() and int(text) >= 60 for text in found) == (categories <= plots.NUMBERED)


def test_names_in_any_script_and_of_any_length_are_drawn() -> None:
    found = texts(heat_map(3, "猫 <&> $x$ {} and so on and on"))

    # Down and across.
    assert found.count("猫 <&> $x$ 0…and on") == 2


def test_every_colour_follows_the_readers_setting() -> None:
    svg = heat_map(12).decode()

    assert "prefers-color-scheme:dark" in svg
    assert "var(--level6)" in svg
    assert not [stand_in for stand_in in plots.STAND_INS.values() if stand_in in svg]


@pytest.mark.parametrize(("scheme", "ground"), [(0, "#ffffff"), (1, "#181f1e")])
def test_text_and_bars_stand_out_in_both_schemes(scheme: int, ground: str) -> None:
    colours = {name: pair[scheme] for name, pair in plots.COLOURS.items()}

    assert min(contrast(colours[name], ground) for name in ("ink", "soft")) >= 4.5
    assert min(contrast(colours[name], ground) for name in ("bar", "mark")) >= 3
    levels = [colours[f"level{number}"] for number in range(1, len(plots.LEVELS) + 1)]
    for number, level in enumerate(levels, 1):
        assert contrast(colours["on-strong" if number >= plots.STRONG else "ink"], level) >= 4.5
    # By lightness alone, each farther from the ground than the one before.
    away = [contrast(level, ground) for level in levels]
    assert all(more > 1.15 * less for less, more in pairwise([1.0, *away]))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.bars(["came", "stayed"], [1200, 0], what="sessions", size=(460, 300)),
        lambda: plots.columns([f"{hour:02}:00" for hour in range(24)], range(24), what="time", of_what="answers",
                              size=(460, 300)),
        lambda: plots.columns(["none"], [0], what="time", of_what="answers", size=(460, 300)),
        lambda: plots.curve([1, 2], [9.0, 5.0], band=([8, 4], [12, 7]), what="position", of_what="s", size=(460, 300)),
        lambda: plots.curve([0.5], [0.4], beside=("as stated", [0, 1], [0, 1]), name="right", what="stated",
                            of_what="right", size=(460, 300), top=1.0),
        lambda: plots.intervals(["one", "two"], [0.2, -0.4], [(0.1, 1.3), None], what="value", size=(460, 300)),
    ],
)  # fmt: skip
def test_what_a_dashboard_draws_is_named_and_in_our_colours_alone(draw: Callable[[], bytes]) -> None:
    svg = draw()
    assert texts(svg)
    assert draw() == svg
    assert not [stand_in for stand_in in plots.STAND_INS.values() if stand_in in svg.decode()]
    assert not set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg.decode()))


def test_a_bar_has_its_value_at_its_end_and_an_interval_its_value_above() -> None:
    bars = plots.bars(["minutes", "people"], [20.55, 1200], what="how many", size=(460, 300))
    assert {"20.6", "1,200", "minutes", "people"} <= set(texts(bars))
    assert "-0.400" in texts(plots.intervals(["one"], [-0.4], [None], what="value", size=(460, 300)))


def test_a_second_line_is_told_apart_by_its_dashes_and_named() -> None:
    svg = plots.curve([0, 1], [0, 1], beside=("planned", [0, 1], [1, 2]), name="so far", what="x", of_what="y",
                      size=(460, 300))  # fmt: skip
    assert {"planned", "so far"} <= set(texts(svg))
    assert b"stroke-dasharray" in svg
