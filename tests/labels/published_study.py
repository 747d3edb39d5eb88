"""The published study's raw answers, read in plain Python: nothing of the product but its rule of valid answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elicit.archives import CIFAR10_CATEGORIES
from elicit.labels import AnswerRules, Contradiction, Elicited, check

RULES = AnswerRules(len(CIFAR10_CATEGORIES), most_named=2)


@dataclass(frozen=True)
class Said:
    """One page of the study; ``percentage`` is the first one as typed, None where it is no number."""

    annotator: str
    image: int
    repeat: bool
    reference: int
    duration_ms: float
    percentage: float | None
    named: tuple[tuple[int, float | None], ...]
    impossible: tuple[int, ...]

    @property
    def elicited(self) -> Elicited | None:
        """None where it contradicts itself."""
        try:
            return check(self.named, self.impossible, RULES)
        except Contradiction:
            return None


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read(shared_data: Path) -> list[Said]:
    """In the order of each sitting, one person after the other."""
    with (shared_data / "cifar10s" / "raw_human_data_even_batches.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["trial_type"] == "survey-html-form"]
    return [said(row) for row in rows]


def said(row: dict[str, str]) -> Said:
    form = json.loads(row["response"])
    percentage = number(form["prob"])
    named = [(CIFAR10_CATEGORIES.index(form["classSelect"].removeprefix("mostProb")), percentage)]
    second = form["classSelect2"].removeprefix("secondProb")
    if not second.startswith("No"):
        named.append((CIFAR10_CATEGORIES.index(second), number(form["prob2"])))
    ruled_out = [key.removeprefix("improbClassSelect") for key in form if key.startswith("improbClassSelect")]
    return Said(
        annotator=row["subject"],
        image=int(float(row["img_id"])),
        repeat=row["task"].startswith("rerun"),
        reference=CIFAR10_CATEGORIES.index(row["label"]),
        duration_ms=float(row["rt"]),
        percentage=percentage,
        named=tuple(named),
        impossible=tuple(CIFAR10_CATEGORIES.index(name) for name in ruled_out),
    )


def label(answer: Elicited) -> list[float]:
    """Its t2-clamp label with gamma .1, step by step."""
    masses = [0.0] * len(CIFAR10_CATEGORIES)
    for category, percentage in answer.named:
        masses[category] = percentage / 100
    total = sum(masses)
    if total >= 1:
        masses = [mass / total for mass in masses]
    free = [c for c, mass in enumerate(masses) if mass == 0 and c not in answer.impossible]
    if free and total >= 1:
        masses = [mass * 0.9 for mass in masses]
    for category in free:
        masses[category] = (0.1 if total >= 1 else 1 - total) / len(free)
    return [mass / sum(masses) for mass in masses]


def valid(answers: Iterable[Said]) -> list[tuple[Said, Elicited]]:
    return [(answer, elicited) for answer in answers if (elicited := answer.elicited) is not None]
