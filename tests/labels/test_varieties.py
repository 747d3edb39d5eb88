from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicit.labels import Answers, Depth, Elicited, LabelVariety, Redistribution, Refusal
from elicit.labels.varieties import RECOMMENDED
from tests.labels.strategies import answer_lists, varieties

T1, T2, TALL = Depth.T1, Depth.T2, Depth.TALL
CLAMP, UNIFORM, NONE = Redistribution.CLAMP, Redistribution.UNIFORM, Redistribution.NONE


def said(*named: tuple[int, float], impossible: set[int] | None = None) -> Elicited:
    return Elicited(named, frozenset(impossible or ()))


def label(variety: LabelVariety, answer: Elicited, categories: int = 5) -> list[float]:
    answers = Answers.from_elicited([answer], categories=categories)
    result: list[float] = variety.soft_labels(answers)[0].tolist()
    return result


# Five classes, worked by hand. Answer A: class 0 at 60 %, 1 at 20 %, 2 at 10 %, class 4 impossible.
A = said((0, 60), (1, 20), (2, 10), impossible={4})


@pytest.mark.parametrize(
    ("depth", "redistribution", "expected"),
    [
        # T1: only class 0, mass .6, .4 left. Free: 1, 2, 3 (4 is impossible): .4 / 3 each.
        (T1, CLAMP, [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3, 0]),
        # Free for uniform: 1, 2, 3, 4: .1 each.
        (T1, UNIFORM, [0.6, 0.1, 0.1, 0.1, 0.1]),
        (T1, NONE, [1, 0, 0, 0, 0]),
        # T2: mass .8, .2 left. Clamp: 2 and 3. Uniform: 2, 3 and 4. None: .6 / .8, .2 / .8.
        (T2, CLAMP, [0.6, 0.2, 0.1, 0.1, 0]),
        (T2, UNIFORM, [0.6, 0.2, 0.2 / 3, 0.2 / 3, 0.2 / 3]),
        (T2, NONE, [0.75, 0.25, 0, 0, 0]),
        # TALL: mass .9, .1 left. Clamp: 3. Uniform: 3 and 4. None: 6/9, 2/9, 1/9.
        (TALL, CLAMP, [0.6, 0.2, 0.1, 0.1, 0]),
        (TALL, UNIFORM, [0.6, 0.2, 0.1, 0.05, 0.05]),
        (TALL, NONE, [6 / 9, 2 / 9, 1 / 9, 0, 0]),
    ],
)
def test_a_part_answer_leaves_the_rest_to_the_free_classes(
    depth: Depth, redistribution: Redistribution, expected: list[float]
) -> None:
    assert label(LabelVariety(depth, redistribution), A) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "redistribution", "gamma", "expected"),
    [
        # 75 + 25 = 100: gamma .1 moves .1 to the free classes 2 and 3, the named ones keep .9 of theirs.
        (said((0, 75), (1, 25), impossible={4}), CLAMP, 0.1, [0.675, 0.225, 0.05, 0.05, 0]),
        (said((0, 75), (1, 25), impossible={4}), CLAMP, 0.0, [0.75, 0.25, 0, 0, 0]),
        (said((0, 75), (1, 25), impossible={4}), UNIFORM, 0.1, [0.75, 0.25, 0, 0, 0]),
        (said((0, 75), (1, 25), impossible={4}), NONE, 0.1, [0.75, 0.25, 0, 0, 0]),
        # 100 + 60 = 160: 100/160 = .625, 60/160 = .375; times .8 is .5 and .3; gamma .2 over 2, 3, 4.
        (said((0, 100), (1, 60)), CLAMP, 0.2, [0.5, 0.3, 0.2 / 3, 0.2 / 3, 0.2 / 3]),
        (said((0, 100), (1, 60)), UNIFORM, 0.2, [0.625, 0.375, 0, 0, 0]),
        # All others impossible: gamma has nowhere to go.
        (said((0, 100), impossible={1, 2, 3, 4}), CLAMP, 0.1, [1, 0, 0, 0, 0]),
        # All others impossible and 40 % left over: the named classes share it, .45/.6 and .15/.6.
        (said((0, 45), (1, 15), impossible={2, 3, 4}), CLAMP, 0.1, [0.75, 0.25, 0, 0, 0]),
        # Uniform asks nobody what is impossible: .5 over four classes.
        (said((0, 50), impossible={1, 2, 3, 4}), UNIFORM, 0.1, [0.5, 0.125, 0.125, 0.125, 0.125]),
        # An alternative of 0 % is as good as unnamed: .4 goes to it and to the three others.
        (said((0, 60), (1, 0)), CLAMP, 0.1, [0.6, 0.1, 0.1, 0.1, 0.1]),
        (said((0, 100), (1, 0), impossible={2, 3, 4}), CLAMP, 0.1, [0.9, 0.1, 0, 0, 0]),
    ],
)
def test_full_answers_and_corners(
    answer: Elicited, redistribution: Redistribution, gamma: float, expected: list[float]
) -> None:
    assert label(LabelVariety(T2, redistribution, gamma), answer) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("depth", "redistribution", "spread", "expected"),
    [
        # Half of T1's leftover .4 is given: .2 over the free 1, 2, 3; class 0 keeps the rest.
        (T1, CLAMP, 0.5, [0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3, 0]),
        (T1, UNIFORM, 0.5, [0.8, 0.05, 0.05, 0.05, 0.05]),
        # T2: .2 left; a quarter of it, .05, is given. Named .6 : .2 share .95 as 3 : 1.
        (T2, CLAMP, 0.25, [0.7125, 0.2375, 0.025, 0.025, 0]),
        (T2, UNIFORM, 0.25, [0.7125, 0.2375, 0.05 / 3, 0.05 / 3, 0.05 / 3]),
        # TALL: .1 left, half given; 6 : 2 : 1 share .95.
        (TALL, CLAMP, 0.5, [0.95 * 6 / 9, 0.95 * 2 / 9, 0.95 / 9, 0.05, 0]),
        (TALL, UNIFORM, 0.5, [0.95 * 6 / 9, 0.95 * 2 / 9, 0.95 / 9, 0.025, 0.025]),
        # Nothing given is nothing spread.
        (T2, CLAMP, 0.0, [0.75, 0.25, 0, 0, 0]),
        (T2, UNIFORM, 0.0, [0.75, 0.25, 0, 0, 0]),
        (T2, NONE, 0.5, [0.75, 0.25, 0, 0, 0]),
    ],
)
def test_a_spread_below_one_gives_part_of_the_leftover_back(
    depth: Depth, redistribution: Redistribution, spread: float, expected: list[float]
) -> None:
    assert label(LabelVariety(depth, redistribution, 0.1, spread), A) == pytest.approx(expected, abs=1e-12)


def test_a_full_answer_has_no_leftover_to_spread() -> None:
    full = said((0, 75), (1, 25), impossible={4})
    assert label(LabelVariety(spread=0.0), full) == label(LabelVariety(), full)


def test_where_nobody_is_free_the_spread_makes_no_difference() -> None:
    answer = said((0, 45), (1, 15), impossible={2, 3, 4})
    assert label(LabelVariety(spread=0.5), answer) == pytest.approx([0.75, 0.25, 0, 0, 0], abs=1e-12)


def test_when_every_class_is_named_the_leftover_goes_back_in_proportion() -> None:
    # Two classes at 30 and 10: nobody is free, so 30/40 and 10/40 whatever the redistribution.
    for redistribution in Redistribution:
        found = label(LabelVariety(TALL, redistribution), said((1, 30), (0, 10)), categories=2)
        assert found == pytest.approx([0.25, 0.75], abs=1e-12)


def test_decimals_that_mean_a_hundred_count_as_a_hundred() -> None:
    # 58 + 29 + 13 falls short of 100 by rounding alone. Gamma still applies: .9 of each, .1 for class 3.
    assert 0.58 + 0.29 + 0.13 < 1
    found = label(LabelVariety(TALL), said((0, 58), (1, 29), (2, 13)), categories=4)
    assert found == pytest.approx([0.9 * 0.58, 0.9 * 0.29, 0.9 * 0.13, 0.1], abs=1e-12)


@given(answer_lists(), varieties())
@settings(max_examples=300, deadline=None)
def test_every_valid_answer_lands_on_the_simplex(drawn: tuple[list[Elicited], int], variety: LabelVariety) -> None:
    elicited, categories = drawn
    labels = variety.soft_labels(Answers.from_elicited(elicited, categories=categories))
    assert labels.shape == (len(elicited), categories)
    assert labels.dtype == np.float64
    assert (labels >= 0).all()
    assert np.abs(labels.sum(axis=1) - 1).max() <= 1e-12


@given(answer_lists(), varieties())
@settings(max_examples=100, deadline=None)
def test_impossible_classes_get_nothing_but_from_uniform(
    drawn: tuple[list[Elicited], int], variety: LabelVariety
) -> None:
    elicited, categories = drawn
    answers = Answers.from_elicited(elicited, categories=categories)
    labels = variety.soft_labels(answers)
    if variety.redistribution is not UNIFORM:
        assert not labels[answers.impossible].any()


def one_by_one(variety: LabelVariety, answer: Elicited, categories: int) -> list[float]:
    """The rule of the module's docstring again, in words close to it and for one answer."""
    depth = {T1: 1, T2: 2, TALL: categories}[variety.depth]
    mass = [0.0] * categories
    for category, percentage in answer.named[:depth]:
        mass[category] = percentage / 100
    total = math.fsum(mass)
    free = [category for category in range(categories) if mass[category] == 0]
    if variety.redistribution is CLAMP:
        free = [category for category in free if category not in answer.impossible]
    if variety.redistribution is NONE:
        free = []
    if total < 1 - 1e-9:
        share = variety.spread * (1 - total) if free else 0.0
        mass = [value / total * (1 - share) for value in mass]
    else:
        share = variety.gamma if variety.redistribution is CLAMP else 0.0
        keep = 1 - share if free else 1.0
        mass = [value / total * keep for value in mass]
    for category in free:
        mass[category] = share / len(free)
    return [value / math.fsum(mass) for value in mass]


@given(answer_lists(), varieties())
@settings(max_examples=200, deadline=None)
def test_many_at_once_equal_one_at_a_time(drawn: tuple[list[Elicited], int], variety: LabelVariety) -> None:
    elicited, categories = drawn
    labels = variety.soft_labels(Answers.from_elicited(elicited, categories=categories))
    slow = [one_by_one(variety, answer, categories) for answer in elicited]
    np.testing.assert_allclose(labels, slow, rtol=0, atol=1e-12)


@given(answer_lists(), varieties(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_classes_in_another_order_give_the_same_label_in_that_order(
    drawn: tuple[list[Elicited], int], variety: LabelVariety, random: Random
) -> None:
    elicited, categories = drawn
    order = list(range(categories))
    random.shuffle(order)
    renamed = [
        Elicited(tuple((order[c], p) for c, p in answer.named), frozenset(order[c] for c in answer.impossible))
        for answer in elicited
    ]
    labels = variety.soft_labels(Answers.from_elicited(elicited, categories=categories))
    again = variety.soft_labels(Answers.from_elicited(renamed, categories=categories))
    np.testing.assert_allclose(again[:, order], labels, rtol=0, atol=1e-12)


@given(answer_lists(), varieties(), st.floats(0, 0.99))
@settings(max_examples=200, deadline=None)
def test_more_gamma_never_lowers_what_a_free_class_gets(
    drawn: tuple[list[Elicited], int], variety: LabelVariety, gamma: float
) -> None:
    elicited, categories = drawn
    answers = Answers.from_elicited(elicited, categories=categories)
    less, more = sorted([variety.gamma, gamma])
    low = replace(variety, gamma=less).soft_labels(answers)
    high = replace(variety, gamma=more).soft_labels(answers)
    depth = {T1: 1, T2: 2, TALL: categories}[variety.depth]
    carries = (answers.percentages > 0) & (answers.ranks <= depth)
    free = ~carries & ~answers.impossible
    assert (high[free] >= low[free] - 1e-12).all()


@given(answer_lists(), varieties(), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_more_spread_never_lowers_what_a_free_class_gets(
    drawn: tuple[list[Elicited], int], variety: LabelVariety, spread: float
) -> None:
    elicited, categories = drawn
    answers = Answers.from_elicited(elicited, categories=categories)
    less, more = sorted([variety.spread, spread])
    low = replace(variety, spread=less).soft_labels(answers)
    high = replace(variety, spread=more).soft_labels(answers)
    assert (high[answers.ranks == 0] >= low[answers.ranks == 0] - 1e-12).all()


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    few = [A, said((3, 100)), said((2, 50), (1, 50), impossible={0})]
    many = LabelVariety().soft_labels(Answers.from_elicited(few * 20_000, categories=5))
    alone = LabelVariety().soft_labels(Answers.from_elicited(few, categories=5))
    assert (many.reshape(20_000, 3, 5) == alone).all()


def test_no_answers_give_no_labels() -> None:
    assert LabelVariety().soft_labels(Answers.from_elicited([], categories=7)).shape == (0, 7)


def test_answers_become_arrays() -> None:
    answers = Answers.from_elicited([A, said((4, 100))], categories=5)
    assert len(answers) == 2
    assert answers.categories == 5
    assert answers.percentages.tolist() == [[60, 20, 10, 0, 0], [0, 0, 0, 0, 100]]
    assert answers.ranks.tolist() == [[1, 2, 3, 0, 0], [0, 0, 0, 0, 1]]
    assert answers.impossible.tolist() == [[False, False, False, False, True], [False] * 5]


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (said((5, 100)), "outside 0..4"),
        (said((-1, 100)), "outside 0..4"),
        (said((0, 100), impossible={5}), "outside 0..4"),
        (said((0, 60), (0, 40)), "twice"),
        (said((0, 60), impossible={0}), "both named and impossible"),
        (said((0, 0), (1, 0)), "rank 1 needs a percentage"),
        (said(), "exactly one class of rank 1"),
        (said((0, math.nan)), "finite"),
        (said((0, 101)), "0..100"),
        (said((0, -1)), "0..100"),
    ],
)
def test_arrays_of_answers_that_check_would_refuse_are_refused_too(answer: Elicited, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Answers.from_elicited([A, answer], categories=5)


def test_arrays_of_wrong_shape_or_type_are_refused() -> None:
    good = Answers.from_elicited([A], categories=5)
    with pytest.raises(ValueError, match="one shape"):
        Answers(good.percentages, good.ranks[:, :4], good.impossible)
    with pytest.raises(ValueError, match="shape"):
        Answers(good.percentages[0], good.ranks[0], good.impossible[0])
    with pytest.raises(ValueError, match="int16"):
        Answers(good.percentages, good.ranks.astype(np.int64), good.impossible)
    with pytest.raises(ValueError, match="not named"):
        Answers(good.percentages + 1, good.ranks, good.impossible)


def test_a_variety_has_a_slug_and_comes_back_from_it() -> None:
    assert LabelVariety().slug == "t2-clamp"
    for depth in Depth:
        for redistribution in Redistribution:
            variety = LabelVariety(depth, redistribution, 0.25)
            assert LabelVariety.from_slug(variety.slug, gamma=0.25) == variety
    assert LabelVariety.from_slug("tall-none").gamma == 0.1


@given(varieties())
def test_a_slug_carries_the_spread(variety: LabelVariety) -> None:
    assert LabelVariety.from_slug(variety.slug, gamma=variety.gamma) == variety
    assert ("-s" in variety.slug) == (variety.spread != 1)


def test_the_recommended_variety_has_a_slug_of_its_own() -> None:
    assert RECOMMENDED.slug == "t2-clamp-s0.75"
    assert LabelVariety.from_slug("t2-clamp-s0.75", gamma=0.05) == RECOMMENDED


@pytest.mark.parametrize("spread", [-0.1, 1.1, math.nan, math.inf])
def test_a_spread_outside_its_range_is_refused(spread: float) -> None:
    with pytest.raises(Refusal) as caught:
        LabelVariety(spread=spread)
    assert caught.value.code == "spread_out_of_range"
    with pytest.raises(Refusal) as caught:
        LabelVariety.from_slug(f"t2-clamp-s{spread}")
    assert caught.value.code == "spread_out_of_range"


def test_more_classes_than_a_byte_counts_share_the_leftover() -> None:
    # 300 classes, 40 % left over for 299, or for the 199 that are not impossible.
    assert label(LabelVariety(), said((0, 60)), 300)[1] == pytest.approx(0.4 / 299, rel=1e-12)
    ruled_out = said((0, 60), impossible=set(range(200, 300)))
    assert label(LabelVariety(), ruled_out, 300)[1] == pytest.approx(0.4 / 199, rel=1e-12)


@pytest.mark.parametrize(
    "slug", ["", "t2", "t2-", "t3-clamp", "t2-Clamp", "ourst2clamp", "t2-clamp-x", "t2-clamp-s", "t2-clamp-s0.5-s1"]
)
def test_an_unknown_variety_is_refused(slug: str) -> None:
    with pytest.raises(Refusal) as caught:
        LabelVariety.from_slug(slug)
    assert caught.value.code == "unknown_variety"


@pytest.mark.parametrize("gamma", [-0.1, 1.0, math.nan, math.inf])
def test_a_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(Refusal) as caught:
        LabelVariety.from_slug("t2-clamp", gamma=gamma)
    assert caught.value.code == "gamma_out_of_range"


def test_the_answers_are_left_as_they_were() -> None:
    answers = Answers.from_elicited([A], categories=5)
    labels = LabelVariety().soft_labels(answers)
    labels[:] = 7
    assert answers.percentages.tolist() == [[60, 20, 10, 0, 0]]
