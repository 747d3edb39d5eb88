"""Arms compared: what differs beyond chance, and what does not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from elicit.labels.arms import MEASURES, ArmAnswers, Floats, beyond_chance, compare

IMAGES, CLASSES = 12, 4


def arm(
    seed: int, *, people: int = 12, seconds: float = 10.0, sharp: float = 4.0, favoured: int = 0, repeat: float = 0.2
) -> ArmAnswers:
    """Each person answers every image once; `sharp` is how sure they are of class `favoured`."""
    random = np.random.default_rng(seed)
    rows = people * IMAGES
    weights = np.ones(CLASSES)
    weights[favoured] = sharp
    return ArmAnswers(
        labels=random.dirichlet(2 * weights, rows),
        image=np.tile(np.arange(IMAGES), people),
        annotator=np.repeat(np.arange(people), IMAGES),
        seconds=random.normal(seconds, 1.0, rows).clip(0.1),
        warnings=(random.random(rows) < 0.1).astype(np.int64),
        repeat_annotator=np.repeat(np.arange(people), 2),
        repeat_distance=random.normal(repeat, 0.05, 2 * people).clip(0, 1),
        annotators=people,
    )


def reference() -> Floats:
    label = np.full(CLASSES, 0.1)
    label[0] = 0.7
    return np.tile(label, (IMAGES, 1))


def test_what_differs_is_found_and_what_does_not_is_left_alone() -> None:
    found = compare({"quick": arm(1), "slow": arm(2, seconds=14.0)}, None, np.random.default_rng(0))
    [pair] = found["pairs"]
    differences = pair["differences"]
    assert differences["seconds"][0] == pytest.approx(4.0, abs=0.6)
    assert beyond_chance(differences["seconds"])
    assert not beyond_chance(differences["entropy"])
    assert not beyond_chance(differences["repeat_distance"])
    assert not pair["beyond_chance"]
    assert pair["images"] == IMAGES


def test_labels_that_differ_lie_further_apart_than_dealing_people_anew_gives() -> None:
    found = compare({"a": arm(1), "b": arm(2, favoured=1)}, None, np.random.default_rng(0))
    [pair] = found["pairs"]
    assert pair["beyond_chance"]
    assert pair["apart"] > 2 * pair["by_chance"]


def test_of_arms_that_ask_alike_one_in_twenty_seems_to_differ() -> None:
    seems = 0
    for seed in range(40):
        found = compare({"a": arm(2 * seed), "b": arm(2 * seed + 1)}, None, np.random.default_rng(seed))
        seems += beyond_chance(found["pairs"][0]["differences"]["seconds"])
    # Of 40 at 5 %, two expected; a percentile bootstrap of 12 people errs a little on the bold side.
    assert seems <= 7


def test_each_figure_lies_in_its_interval() -> None:
    found = compare({"a": arm(1), "b": arm(2)}, reference(), np.random.default_rng(0))
    for each in found["arms"].values():
        assert (each["annotators"], each["answers"]) == (12, 12 * IMAGES)
        for key in (*MEASURES, "pooled_tv", "pooled_kl"):
            value, low, high = each[key]
            assert low <= high
            # A pool of resampled people is less even than the whole: its distance lies above.
            assert key.startswith("pooled") or low <= value <= high
    assert found["arms"]["a"]["seconds"][0] == pytest.approx(10.0, abs=0.5)


def test_the_distance_from_the_others_is_worked_out_by_hand() -> None:
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    three = ArmAnswers(
        labels=labels,
        image=np.zeros(3, dtype=np.int64),
        annotator=np.arange(3),
        seconds=np.array([1.0, 2.0, 6.0]),
        warnings=np.array([0, 1, 0]),
        repeat_annotator=np.zeros(0, dtype=np.int64),
        repeat_distance=np.zeros(0),
        annotators=3,
    )
    found = compare({"a": three}, None, np.random.default_rng(0))["arms"]["a"]
    # 0.75 from (0.25, 0.75), 0.75 from (0.75, 0.25), and 0 from (0.5, 0.5).
    assert found["others"][0] == pytest.approx(0.5)
    assert found["seconds"][0] == pytest.approx(3.0)
    assert found["warnings"][0] == pytest.approx(100 / 3)
    assert found["repeat_distance"] is None


def nobody() -> ArmAnswers:
    none, ints = np.zeros(0), np.zeros(0, dtype=np.int64)
    return ArmAnswers(np.zeros((0, CLASSES)), ints, ints, none, ints, ints, none, 0)


def test_arms_with_nobody_or_one_person_in_them_are_told_without_intervals() -> None:
    found = compare({"none": nobody(), "one": arm(1, people=1), "many": arm(2)}, reference(), np.random.default_rng(0))
    assert found["arms"]["none"]["seconds"] is None
    assert found["arms"]["one"]["seconds"] is None
    assert found["arms"]["many"]["seconds"] is not None
    assert all(pair["apart"] is None for pair in found["pairs"])
    json.dumps(found, allow_nan=False)


def test_the_same_answers_and_draws_give_the_same_figures() -> None:
    once, again = (compare({"a": arm(1), "b": arm(2)}, reference(), np.random.default_rng(3)) for _ in range(2))
    assert once == again
