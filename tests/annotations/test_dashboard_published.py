"""The dashboard of the published study beside a plain reading of its table: number by number, by other code."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from annotations.models import Image, Study
from tests import factories as make

CLASSES = ["Airplane", "Automobile", "Bird", "Cat", "Deer", "Dog", "Frog", "Horse", "Ship", "Truck"]
MAIN, REPEAT = "spec_conf", "rerun_spec_conf"


def mended(form: dict[str, str]) -> tuple[dict[str, float], set[str]]:
    """An answer as percentages by class, likeliest first, and what of it had to be mended."""
    codes = set()
    first = form["classSelect"].removeprefix("mostProb")
    second = form["classSelect2"].removeprefix("secondProb")
    if form["prob"] == "8p":
        codes.add("percentage_typed_wrong")
    percentage = float(form["prob"].replace("8p", "80"))
    if percentage == 0:
        codes.add("nothing_likely")
        percentage = 100
    named = {first: percentage}
    typed = form.get("prob2", "")
    if not second.startswith("No"):
        if second == first:
            codes.add("category_named_twice")
        elif typed == "":
            codes.add("percentage_missing")
        else:
            named[second] = float(typed)
            if named[second] > percentage:
                codes.add("alternative_likelier")
                named = {second: named[second], first: percentage}
    ruled_out = {name.removeprefix("improbClassSelect") for name in form if name.startswith("improb")}
    if ruled_out & set(named):
        codes.add("named_and_impossible")
    last = list(named)[-1]
    if len(named) == 2 and named[last] == 0 and last in ruled_out:
        del named[last]
    return named, codes


class Table:
    """The raw CSV, by the csv module alone: whoever is in it twice counts once."""

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["task"] in (MAIN, REPEAT)]
        self.rows = {(row["subject"], int(float(row["img_id"])), row["task"]): row for row in reversed(rows)}
        self.said = {key: mended(json.loads(row["response"])) for key, row in self.rows.items()}
        self.seconds = {key: round(float(row["rt"])) / 1000 for key, row in self.rows.items()}
        self.pages: dict[tuple[str, int, str], int] = {}
        for person in {key[0] for key in self.rows}:
            mine = sorted(
                (key for key in self.rows if key[0] == person), key=lambda key: float(self.rows[key]["trial_index"])
            )
            self.pages |= {key: place for place, key in enumerate(mine, 1)}

    def main(self) -> list[tuple[str, int, str]]:
        return [key for key in self.rows if key[2] == MAIN]

    def pairs(self) -> list[tuple[tuple[str, float], tuple[str, float]]]:
        """The likeliest class and its percentage, first and again."""

        def top(key: tuple[str, int, str]) -> tuple[str, float]:
            return next(iter(self.said[key][0].items()))

        return [(top((key[0], key[1], MAIN)), top(key)) for key in self.rows if key[2] == REPEAT]


class Tables(HTMLParser):
    """The figures of a page: title -> rows of the table under it, head first; and the tiles by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tiles: dict[str, str] = {}
        self._text: list[str] | None = None
        self._rows: list[list[str]] = []
        self._term = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td", "caption", "dt", "dd"):
            self._text = []
        if tag == "table":
            self._rows = []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = " ".join("".join(self._text or []).split())
        if tag == "caption":
            self.tables[text] = self._rows
        elif tag in ("th", "td") and self._rows:
            self._rows[-1].append(text)
        elif tag == "dt":
            self._term = text
        elif tag == "dd":
            self.tiles.setdefault(self._term, text)
        if tag in ("th", "td", "caption", "dt", "dd"):
            self._text = None


def value(text: str) -> float:
    """The number in a cell: 1,234 or 6.9 %."""
    found = re.search(r"-?[0-9][0-9,]*(\.[0-9]+)?", text)
    assert found, text
    return float(found[0].replace(",", ""))


class Seen:
    def __init__(self, page: str) -> None:
        read = Tables(page)
        self.tables, self.tiles = read.tables, read.tiles

    def row(self, title: str, first: str) -> list[str]:
        return next(row for row in self.tables[title] if row and row[0] == first)

    def number(self, title: str, first: str, column: str) -> float:
        head = self.tables[title][0]
        return value(self.row(title, first)[head.index(column)])


@pytest.fixture(scope="module")
def table(shared_data: Path) -> Table:
    return Table(shared_data / "cifar10s" / "raw_human_data_even_batches.csv")


@pytest.fixture
def seen(db: None, table: Table, shared_data: Path) -> Seen:
    """The page as a curator reads it, once a worker has summed the study up."""
    dataset = make.make_dataset(images=10_000, slug="cifar10-test")
    labels = {int(float(row["img_id"])): CLASSES.index(row["label"]) for row in table.rows.values()}
    images = list(Image.objects.filter(dataset=dataset, index__in=labels))
    for image in images:
        image.reference = labels[image.index]
    Image.objects.bulk_update(images, ["reference"], batch_size=500)
    call_command("import_responses", shared_data / "cifar10s" / "raw_human_data_even_batches.csv", verbosity=0)
    study = Study.objects.get()
    client = Client()
    client.force_login(make.make_curator())
    address = reverse("admin:annotations_study_dashboard", args=[study.pk])
    client.get(address)
    make.run_jobs()
    return Seen(client.get(address).content.decode())


def test_the_dashboard_of_the_published_study_equals_its_own_table(seen: Seen, table: Table) -> None:
    people = {key[0] for key in table.rows}
    main = table.main()

    # People and labels
    assert seen.number("People by step", "completed", "Came so far") == len(people)
    labels = Counter(Counter(image for _, image, _ in main).values())
    assert {value(row[0]): value(row[1]) for row in seen.tables["Coverage of K"][1:] if value(row[1])} == labels
    assert value(seen.tiles["Labels"]) == len(main)

    # Times
    title = "Active seconds per answer"
    assert seen.number(title, "all", "Answers") == len(table.rows)
    for column, share in (("Lower quartile (s)", 0.25), ("Median (s)", 0.5), ("Upper quartile (s)", 0.75)):
        wanted = np.quantile(list(table.seconds.values()), share)
        assert seen.number(title, "all", column) == pytest.approx(wanted, abs=5.1e-4)
    positions = {page: [] for page in table.pages.values()}  # type: dict[int, list[float]]
    for key, page in table.pages.items():
        positions[page].append(table.seconds[key])
    assert len(positions) == 27
    for page, times in positions.items():
        assert seen.number(title, str(page), "Answers") == len(times)
        assert seen.number(title, str(page), "Median (s)") == pytest.approx(np.median(times), abs=5.1e-4)
    minutes = [sum(table.seconds[key] for key in table.rows if key[0] == person) / 60 for person in people]
    title = "Time and pay of a session"
    assert seen.number(title, "active time on answers", "Median minutes") == pytest.approx(np.median(minutes), abs=5e-3)
    assert seen.number(title, "active time on answers", "Mean minutes") == pytest.approx(np.mean(minutes), abs=5e-3)

    # Repeats
    pairs = table.pairs()
    same = [(before, after) for before, after in pairs if before[0] == after[0]]
    changes = [abs(before[1] - after[1]) for before, after in same]
    title = "Second answers beside first ones"
    assert seen.number(title, "repeats", "Value") == len(pairs)
    assert seen.number(title, "flips", "Value") == len(pairs) - len(same)
    name = "mean change of the percentage (points)"
    assert seen.number(title, name, "Value") == pytest.approx(np.mean(changes), abs=5.1e-4)
    assert seen.number(title, "percentage unchanged", "Value") == changes.count(0)

    # Accuracy
    right = [CLASSES.index(table.rows[key]["label"]) for key in main]
    ranked = [[CLASSES.index(name) for name in table.said[key][0]] for key in main]
    title = "Stated percentages beside the dataset's own label"
    first = np.mean([names[0] == label for names, label in zip(ranked, right, strict=True)])
    first_two = np.mean([label in names for names, label in zip(ranked, right, strict=True)])
    assert seen.number(title, "first", "Right") == pytest.approx(100 * first, abs=0.05)
    assert seen.number(title, "first or second", "Right") == pytest.approx(100 * first_two, abs=0.05)
    stated = np.array([next(iter(table.said[key][0].values())) for key in main])
    hits = np.array([names[0] == label for names, label in zip(ranked, right, strict=True)])
    bounds = [0, 30, 50, 60, 70, 80, 90, 95, 100, np.inf]
    error = 0.0
    for low, high in pairwise(bounds):
        chosen = (stated >= low) & (stated < high)
        if chosen.any():
            error += abs(stated[chosen].mean() / 100 - hits[chosen].mean()) * chosen.mean()
    assert seen.number(title, "calibration error", "Right") == pytest.approx(error, abs=5e-5)

    # Contradictions
    codes = Counter(code for _, found in table.said.values() for code in found)
    shown = {
        row[0].partition(": ")[2].replace(" ", "_"): value(row[1])
        for row in seen.tables["Contradictions and questions asked back"][1:-1]
    }
    assert shown == codes
    title = "Contradictions and questions asked back"
    assert seen.number(title, "answers mended", "How often") == sum(bool(found) for _, found in table.said.values())
