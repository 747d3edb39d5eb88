"""How people answered, measured and judged by rules."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotations.simulation.population import Design, simulate
from elicit.labels import Answers, Elicited
from elicit.labels.quality import (
    ABOUT,
    RECOMMENDED,
    Measure,
    Measured,
    Rule,
    Sittings,
    beside_others,
    broken_rules,
    judge_check,
    measure,
)

Said = tuple[tuple[int, float], ...]
CAT_100: Said = ((3, 100.0),)


def sittings(*sessions: list[tuple[int, Said]], **changes: Any) -> Sittings:
    """Sessions of (image, what was said) on ten classes; an image that comes again is a repeat."""
    rows = [(number, image, said) for number, mine in enumerate(sessions) for image, said in mine]
    first, seen = [], dict[tuple[int, int], int]()
    for row, (number, image, _) in enumerate(rows):
        first.append(seen.get((number, image), -1))
        seen.setdefault((number, image), row)
    count = len(rows)
    return replace(
        Sittings(
            session=np.array([number for number, _, _ in rows], dtype=np.int64),
            stimulus=np.array([2 * image for _, image, _ in rows], dtype=np.int64),
            main=np.array(first, dtype=np.int64) < 0,
            first=np.array(first, dtype=np.int64),
            attention=np.zeros(count, dtype=np.bool_),
            gold=np.zeros(count, dtype=np.bool_),
            passed=np.zeros(count, dtype=np.bool_),
            gold_distance=np.full(count, np.nan),
            duration_ms=np.full(count, 5000, dtype=np.int64),
            changes=np.zeros(count, dtype=np.int64),
            warnings_kept=np.zeros(count, dtype=np.int64),
            answers=Answers.from_elicited([Elicited(said, frozenset()) for _, _, said in rows], categories=10),
            comprehension=np.zeros(len(sessions), dtype=np.int64),
            voices=np.ones(len(sessions), dtype=np.bool_),
        ),
        **changes,
    )


def known(found: dict[Measure, Measured], name: Measure) -> list[float | None]:
    each = found[name]
    return [value if count else None for value, count in zip(each.values.tolist(), each.counts.tolist(), strict=True)]


# --- Measures


def test_constant_honest_answers_leave_nothing_undefined() -> None:
    found = measure(sittings([(0, CAT_100), (1, CAT_100), (0, CAT_100)], [(0, CAT_100), (1, CAT_100)]))

    assert set(found) == set(Measure)
    assert all(np.isfinite(each.values).all() for each in found.values())
    assert known(found, Measure.REPEAT_DISTANCE) == [0.0, None]
    assert known(found, Measure.CROWD_DISTANCE) == [0.0, 0.0]
    assert known(found, Measure.CALIBRATION_ERROR) == [0.0, 0.0]
    # Two people: nobody can be further from the others than these are from one another.
    assert known(found, Measure.CROWD_EXCESS) == [None, None]


def test_nobody_is_measured_by_nothing() -> None:
    found = measure(sittings())
    assert {len(each.values) for each in found.values()} == {0}
    alone = measure(sittings([(0, CAT_100)]))
    assert known(alone, Measure.SCORE) == [None]
    assert known(alone, Measure.CERTAIN_SHARE) == [1.0]


def test_repeats_are_measured_by_the_distance_of_distributions() -> None:
    found = measure(
        sittings(
            [(0, ((3, 80.0), (5, 20.0))), (1, CAT_100), (0, ((3, 60.0), (5, 40.0))), (1, ((5, 100.0),))],
            [(0, CAT_100)],
        )
    )

    assert known(found, Measure.REPEAT_DISTANCE) == [pytest.approx((0.2 + 1.0) / 2), None]
    assert known(found, Measure.REPEATS_CHANGED) == [0.5, None]
    assert found[Measure.REPEAT_DISTANCE].counts.tolist() == [2, 0]


def test_a_person_is_compared_with_the_others_and_with_how_far_these_lie_apart() -> None:
    cat, dog, half = CAT_100, ((5, 100.0),), ((3, 50.0), (5, 50.0))
    found = measure(sittings([(0, cat)], [(0, dog)], [(0, half)]))

    # Each against the mean of the other two; then less the mean of the others' own distances.
    assert known(found, Measure.CROWD_DISTANCE) == pytest.approx([0.75, 0.75, 0.0])
    assert known(found, Measure.CROWD_EXCESS) == pytest.approx([0.75 - 0.375, 0.75 - 0.375, -0.75])
    assert known(found, Measure.CROWD_PERCENTILE) == pytest.approx([0.75, 0.75, 0.0])


def test_an_ambiguous_image_costs_nobody_anything() -> None:
    clear = [[(0, CAT_100)] for _ in range(4)]
    split = [[(1, CAT_100 if person % 2 else ((5, 100.0),))] for person in range(4)]
    found = measure(sittings(*clear, *split))

    assert found[Measure.CROWD_DISTANCE].values[4:] == pytest.approx(2 / 3)
    assert found[Measure.CROWD_EXCESS].values == pytest.approx(0.0)


def test_who_is_excluded_is_measured_but_has_no_voice() -> None:
    dog = ((5, 100.0),)
    taken = sittings([(0, CAT_100)], [(0, CAT_100)], [(0, dog)], voices=np.array([True, True, False]))

    found = measure(taken)

    assert known(found, Measure.CROWD_DISTANCE) == pytest.approx([0.0, 0.0, 1.0])
    assert known(found, Measure.ALONE_SHARE) == [None, None, 1.0]
    assert beside_others(taken).others.tolist() == [1, 1, 2]


def test_a_category_that_nobody_else_names_is_counted() -> None:
    others: list[list[tuple[int, Said]]] = [[(0, ((3, 70.0), (5, 30.0)))], [(0, CAT_100)]]
    found = measure(sittings([(0, ((5, 90.0),))], [(0, ((9, 90.0),))], *others))
    assert known(found, Measure.ALONE_SHARE) == [0.0, 1.0, 0.0, 0.0]


def test_checks_are_counted_and_change_no_other_measure() -> None:
    mine: list[tuple[int, Said]] = [(0, ((3, 80.0),)), (1, CAT_100), (2, CAT_100), (3, CAT_100)]
    attention, gold = np.array([False, True, True, False]), np.array([False, False, False, True])
    found = measure(
        sittings(
            mine,
            main=np.array([True, False, False, False]),
            attention=attention,
            gold=gold,
            passed=np.array([False, True, False, False]),
            gold_distance=np.array([np.nan, np.nan, np.nan, 0.4]),
            comprehension=np.array([2]),
        )
    )

    assert (known(found, Measure.ATTENTION_FAILED), found[Measure.ATTENTION_FAILED].counts.tolist()) == ([1.0], [2])
    assert known(found, Measure.GOLD_FAILED) == [1.0]
    assert known(found, Measure.GOLD_DISTANCE) == [0.4]
    assert known(found, Measure.COMPREHENSION) == [2.0]
    # The two that were told what to say are no sign of certainty.
    assert (known(found, Measure.CERTAIN_SHARE), found[Measure.CERTAIN_SHARE].counts.tolist()) == ([0.5], [2])


def test_the_second_question_on_an_image_is_no_run_of_same_answers() -> None:
    twice = sittings([(0, CAT_100), (1, CAT_100)], stimulus=np.array([0, 1]))
    assert known(measure(twice), Measure.LONGEST_RUN) == [1.0]
    assert known(measure(sittings([(0, CAT_100), (1, CAT_100)])), Measure.LONGEST_RUN) == [2.0]


def test_how_it_was_made_is_measured() -> None:
    found = measure(
        sittings(
            [(0, ((3, 77.0),)), (1, ((3, 1.0),)), (2, ((4, 30.0),))],
            duration_ms=np.array([1000, 3000, 9000]),
            changes=np.array([0, 3, 0]),
            warnings_kept=np.array([0, 2, 1]),
        )
    )
    shown = {name: known(found, name)[0] for name in Measure}
    assert shown[Measure.MEDIAN_SECONDS] == 3.0
    assert shown[Measure.FAST_SHARE] == shown[Measure.TINY_SHARE] == pytest.approx(1 / 3)
    assert shown[Measure.FIVES_SHARE] == shown[Measure.TENS_SHARE] == pytest.approx(1 / 3)
    assert (shown[Measure.CHANGES], shown[Measure.WARNINGS_KEPT]) == (1.0, 3.0)


def test_a_hundred_thousand_answers_take_seconds() -> None:
    population = simulate(3448, 1)
    started = time.perf_counter()
    measure(population.sittings)
    assert len(population.sittings.session) > 100_000
    assert time.perf_counter() - started < 20


# --- Known images


def answers(*said: Said) -> Answers:
    return Answers.from_elicited([Elicited(each, frozenset()) for each in said], categories=10)


def test_an_answer_passes_by_its_most_likely_category() -> None:
    outcomes = judge_check(answers(((3, 60.0), (5, 40.0)), ((5, 60.0), (3, 40.0))), allowed=[3, 4])
    assert [outcome.passed for outcome in outcomes] == [True, False]
    assert {outcome.distance for outcome in outcomes} == {None}


def test_an_answer_passes_within_the_tolerance_of_a_target() -> None:
    target = np.zeros(10)
    target[3], target[5] = 0.7, 0.3
    outcomes = judge_check(answers(((3, 50.0), (5, 50.0)), CAT_100), target=target, tolerance=0.2)
    assert [(outcome.passed, round(outcome.distance or 0, 9)) for outcome in outcomes] == [(True, 0.2), (False, 0.3)]


@pytest.mark.parametrize("known_of_it", [{}, {"allowed": [1], "target": [1.0, 0.0]}])
def test_a_check_knows_one_thing(known_of_it: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either"):
        judge_check(answers(CAT_100), **known_of_it)


# --- Rules


@given(st.floats(0, 4), st.integers(0, 6), st.floats(0, 4), st.integers(1, 6), st.booleans())
def test_a_rule_is_broken_by_what_is_known_and_beyond(
    value: float, count: int, threshold: float, least: int, at_least: bool
) -> None:
    broken = Rule(Measure.ATTENTION_FAILED, threshold, at_least, least).broken(
        Measured(np.array([value]), np.array([count]))
    )
    beyond = value >= threshold - 1e-9 if at_least else value <= threshold + 1e-9
    assert broken.tolist() == [beyond and count >= least]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Rule(Measure.ATTENTION_FAILED, 2, least=2), "failed at least 2 attention checks"),
        (Rule(Measure.ATTENTION_FAILED, 2, least=4), "failed at least 2 of at least 4 attention checks"),
        (Rule(Measure.GOLD_FAILED, 1), "failed at least 1 gold image"),
        (Rule(Measure.MEDIAN_SECONDS, 4, at_least=False), "median time at most 4.0\N{NO-BREAK SPACE}s"),
        (
            Rule(Measure.REPEAT_DISTANCE, 0.45, least=2),
            "distance of repeats at least 0.45, over at least 2 repeats",
        ),
        (Rule(Measure.CERTAIN_SHARE, 0.9), "answers of 100 % at least 90\N{NO-BREAK SPACE}%"),
    ],
)
def test_a_rule_is_a_sentence(rule: Rule, says: str) -> None:
    assert rule.says == says


def test_every_measure_has_words() -> None:
    assert set(ABOUT) == set(Measure)


def test_the_recommended_rules_flag_who_does_not_try_and_spare_who_does() -> None:
    """This seed was not among those that the rules were chosen on."""
    population = simulate(200, 7)
    broken = np.asarray(broken_rules(measure(population.sittings), RECOMMENDED).any(axis=1))
    careful = population.of("careful")

    assert careful.sum() == 160
    assert broken[~careful].mean() >= 0.9
    assert broken[careful].mean() <= 0.05


@pytest.mark.parametrize("without", range(len(RECOMMENDED)))
def test_they_do_not_hang_on_a_check_that_a_study_may_lack(without: int) -> None:
    population = simulate(200, 7, design=Design(attention=0, gold=0, repeats=0))
    rules = [rule for place, rule in enumerate(RECOMMENDED) if place != without]
    broken = np.asarray(broken_rules(measure(population.sittings), rules).any(axis=1))
    assert broken[population.of("careful")].mean() <= 0.05
    assert broken[population.of("careless")].mean() >= 0.8
