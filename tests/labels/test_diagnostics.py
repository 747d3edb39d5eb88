from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicit.labels import AnswerRules, Elicited
from elicit.labels.diagnostics import (
    Contradictions,
    Heaping,
    Speed,
    Thresholds,
    certainty,
    contradictions,
    diagnose,
    heaping,
    same_answers,
    speed,
    tiny_percentages,
)
from tests.labels import published_study
from tests.labels.published_study import Said

RULES = AnswerRules(5, most_named=2)

percentages = st.lists(st.integers(0, 100).map(float) | st.floats(0, 100), max_size=30)


# --- Round numbers


def test_round_numbers_are_counted() -> None:
    found = heaping([100, 95, 70, 33.3, 12, 0], most_round=0.6)
    # Inside 3..97: 95, 70 of 95, 70, 33.3, 12.
    assert found == Heaping(count=6, fives=4, tens=3, index=250.0, notable=True)
    assert (found.fives_share, found.tens_share) == pytest.approx((4 / 6, 0.5))
    assert found.says == (
        "4 of 6 percentages (67 %) are multiples of 5, 3 of 10; heaping index 250 "
        "(100: no preference, 500: nothing but multiples of 5)."
    )


def test_every_number_once_shows_no_preference() -> None:
    assert heaping(range(101), most_round=0.5).index == pytest.approx(100)


def test_the_ends_of_the_scale_alone_have_no_index() -> None:
    found = heaping([0, 100, 100], most_round=1)
    assert found.index is None
    assert not found.notable
    assert found.says == "3 of 3 percentages (100 %) are multiples of 5, 3 of 10."


@given(percentages, st.randoms(use_true_random=False))
def test_shares_are_shares_in_any_order(values: list[float], random: Any) -> None:
    found = heaping(values, most_round=0.5)
    assert 0 <= found.tens <= found.fives <= found.count == len(values)
    assert found.index is None or 0 <= found.index <= 500
    shuffled = list(values)
    random.shuffle(shuffled)
    assert heaping(shuffled, most_round=0.5) == found
    assert certainty(values, most_certain=0.5).certain + tiny_percentages(values, most_tiny=0.5).tiny <= len(values)


# --- Scale and certainty


def test_a_scale_from_0_to_1_is_noticed() -> None:
    found = tiny_percentages([0.9, 1, 0.5, 0, 80], most_tiny=0.5)
    assert (found.tiny, found.share, found.notable) == (3, 0.6, True)
    assert found.says == "3 of 5 percentages (60 %) are 1 or less, perhaps meant on a scale from 0 to 1."


def test_a_threshold_must_be_passed_not_met() -> None:
    assert not tiny_percentages([0.9, 80], most_tiny=0.5).notable
    assert not certainty([100, 80], most_certain=0.5).notable
    assert not heaping([100, 81], most_round=0.5).notable
    assert not speed([100, 5000], fastest_ms=1000, most_fast=0.5).notable
    assert not same_answers("aab", longest_run=2).notable


def test_who_is_always_certain_is_noticed() -> None:
    found = certainty([100, 100, 99.9], most_certain=0.6)
    assert (found.certain, found.notable) == (2, True)
    assert found.says == "2 of 3 first percentages (67 %) are 100."
    assert tiny_percentages([100, 50], most_tiny=0).says == "0 of 2 percentages (0 %) are 1 or less."


# --- The same answer in a row


def test_the_longest_run_of_one_answer_counts() -> None:
    one, two = Elicited(((0, 100.0),), frozenset({1})), Elicited(((0, 100.0),), frozenset())
    found = same_answers([one, two, two, two, one, one], longest_run=2)
    assert (found.count, found.longest, found.notable) == (6, 3, True)
    assert found.says == "The same answer came up to 3 times in a row."
    assert same_answers([one, two, one], longest_run=2).says == "No answer came twice in a row."


# --- Speed


def test_answers_faster_than_a_floor_are_counted() -> None:
    found = speed([500, None, 1500, 31_500], fastest_ms=1500, most_fast=0.3)
    assert found == Speed(count=3, fast=1, fastest_ms=1500, median_ms=1500, notable=True)
    assert found.says == "1 of 3 answers (33 %) took less than 1.5 s; the median is 1.5 s."


def test_unknown_durations_are_no_fast_ones() -> None:
    found = speed([None, None], fastest_ms=1500, most_fast=0.0)
    assert (found.count, found.median_ms, found.notable) == (0, None, False)
    assert found.says == "No answer has a duration."


@pytest.mark.parametrize("duration", [-1.0, math.nan, math.inf])
def test_a_duration_that_no_clock_shows_is_refused(duration: float) -> None:
    with pytest.raises(ValueError, match="durations"):
        speed([duration], fastest_ms=1500, most_fast=0.1)


# --- Contradictions


def test_contradictions_are_counted_by_their_reasons() -> None:
    said: Any = [
        ([(0, 80), (1, 20)], [2]),
        ([(0, 80), (0, 20)], []),
        ([(0, 50), (1, 60)], [1]),
        ([(0, None)], [0]),
    ]
    found = contradictions(said, RULES, most_refused=0.5)
    assert found == Contradictions(
        count=4,
        refused=3,
        codes={
            "named_and_impossible": 2,
            "alternative_likelier": 1,
            "category_named_twice": 1,
            "percentage_missing": 1,
        },
        notable=True,
    )
    assert found.says == (
        "3 of 4 answers (75 %) would be refused: named and impossible (2), alternative likelier (1), "
        "category named twice (1), percentage missing (1)."
    )
    assert contradictions(said[:1], RULES, most_refused=0.0).says == "0 of 1 answers (0 %) would be refused."


# --- All together


def test_nothing_said_is_nothing_notable() -> None:
    nothing = [
        *diagnose([]),
        contradictions([], RULES, most_refused=0.0),
    ]
    assert [finding.notable for finding in nothing] == [False] * 6
    assert {finding.says for finding in nothing} == {"There is no answer yet.", "No answer has a duration."}


def test_an_annotator_is_looked_at_from_every_side() -> None:
    answers = [Elicited(((0, 100.0), (1, 0.5)), frozenset())] * 4
    found = diagnose(answers, [300, 300, 300, 9000])
    # The alternative's .5 % is no mix-up of scales.
    assert [finding.notable for finding in found] == [False, False, True, True, True]
    assert found[0].says.startswith("4 of 8 percentages (50 %)")
    lenient = Thresholds(most_certain=1.0, longest_run=4, fastest_ms=300)
    assert not any(finding.notable for finding in diagnose(answers, [300, 300, 300, 9000], lenient))


@pytest.mark.parametrize("values", [[101.0], [-1.0], [math.nan], [[50.0]]])
def test_what_is_no_percentage_is_refused(values: Any) -> None:
    for look in (
        lambda: heaping(values, most_round=1),
        lambda: tiny_percentages(values, most_tiny=1),
        lambda: certainty(values, most_certain=1),
    ):
        with pytest.raises(ValueError, match="percentages"):
            look()


# --- The published study


@pytest.fixture(scope="module")
def published(shared_data: Path) -> list[Said]:
    return published_study.read(shared_data)


def test_nine_of_ten_published_percentages_are_multiples_of_5_and_four_are_100(published: list[Said]) -> None:
    typed = [said.percentage for said in published if said.percentage is not None]
    fives = [p for p in typed if p in {float(n) for n in range(0, 101, 5)}]
    inside = [p for p in typed if 3 <= p <= 97]
    found = heaping(typed, most_round=1)
    assert (found.count, found.fives) == (len(typed), len(fives))
    assert found.index == pytest.approx(500 * sum(p in fives for p in inside) / len(inside))
    assert found.fives_share == pytest.approx(0.9025, abs=5e-5)
    certain = certainty(typed, most_certain=1)
    assert certain.certain == sum(p == 100 for p in typed)
    assert certain.share == pytest.approx(0.3841, abs=5e-5)
    # Over all 248 people: .896 and .398.


def test_published_contradictions_are_those_of_the_rules_in_plain_words(published: list[Said]) -> None:
    codes: Counter[str] = Counter()
    refused = 0
    for said in published:
        (first, p1), *alternative = said.named
        problems = set()
        if p1 is None:
            problems.add("percentage_missing")
        elif p1 == 0 and not (alternative and alternative[0][1]):
            problems.add("nothing_likely")
        if first in said.impossible:
            problems.add("named_and_impossible")
        for second, p2 in alternative:
            if second == first:
                problems.add("category_named_twice")
            if second in said.impossible:
                problems.add("named_and_impossible")
            if p2 is None:
                problems.add("percentage_missing")
            elif p1 is not None and p2 > p1:
                problems.add("alternative_likelier")
        codes.update(problems)
        refused += bool(problems)
    found = contradictions(
        [(said.named, said.impossible) for said in published], published_study.RULES, most_refused=0.02
    )
    assert (found.count, found.refused, dict(found.codes)) == (3294, refused, dict(codes))
    assert refused == 83
    assert found.notable
