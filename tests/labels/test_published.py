"""The published CIFAR-10S labels out of the published answers, bit for bit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from elicit.archives import CIFAR10_CATEGORIES
from elicit.labels import AnswerRules, Answers, CategorySet, Contradiction, Elicited, LabelVariety, check

CATEGORIES = CategorySet(CIFAR10_CATEGORIES)
RULES = AnswerRules(len(CATEGORIES), most_named=2)


def read(folder: Path, name: str) -> dict[str, list[Any]]:
    content: dict[str, list[Any]] = json.loads((folder / "cifar10s" / name).read_text(encoding="utf-8"))
    return content


def parse(entry: dict[str, Any]) -> Elicited | None:
    """The answer of a published entry, None where it contradicts itself."""
    named = [(CATEGORIES.index(entry["Most Probable Class"]), entry["Most Probable Class Prob"])]
    if entry["Second Most Probable Class"] != "No":
        second = CATEGORIES.index(entry["Second Most Probable Class"])
        named.append((second, entry["Second Most Probable Class Prob"]))
    try:
        return check(named, map(CATEGORIES.index, entry["Impossible Class(es)"]), RULES)
    except Contradiction:
        return None


@pytest.fixture(scope="module")
def answers(shared_data: Path) -> dict[str, list[Elicited | None]]:
    entries = read(shared_data, "human_soft_labels_even_batches.json")
    return {image: [parse(entry) for entry in those] for image, those in entries.items()}


@pytest.fixture(scope="module")
def published(shared_data: Path) -> dict[str, Counter[tuple[float, ...]]]:
    labels = read(shared_data, "t2clamp_redist10_even_batches.json")
    return {image: Counter(map(tuple, those)) for image, those in labels.items()}


def labels_of(answers: list[Elicited]) -> Counter[tuple[float, ...]]:
    labels = LabelVariety().soft_labels(Answers.from_elicited(answers, categories=len(CATEGORIES)))
    return Counter(map(tuple, labels.tolist()))


def test_the_answers_free_of_contradictions_are_nearly_all(
    answers: dict[str, list[Elicited | None]],
) -> None:
    everything = [answer for those in answers.values() for answer in those]
    assert len(everything) == 3294
    assert sum(answer is not None for answer in everything) == 3215


def test_every_answer_without_contradiction_gets_its_published_label_bit_for_bit(
    answers: dict[str, list[Elicited | None]], published: dict[str, Counter[tuple[float, ...]]]
) -> None:
    assert answers.keys() == published.keys()
    matched = 0
    for image, those in answers.items():
        ours = labels_of([answer for answer in those if answer is not None])
        assert ours <= published[image], image
        matched += ours.total()
    assert matched == 3215


def test_images_without_contradiction_have_the_published_labels_and_no_others(
    answers: dict[str, list[Elicited | None]], published: dict[str, Counter[tuple[float, ...]]]
) -> None:
    clean = {image: those for image, those in answers.items() if None not in those}
    assert len(clean) == 427
    for image, those in clean.items():
        assert labels_of([answer for answer in those if answer is not None]) == published[image], image
