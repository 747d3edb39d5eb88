from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from elicit.labels import AnswerRules, Contradiction, Elicited, Refusal, check

RULES = AnswerRules(categories=10)


def refused(named: list[tuple[Any, Any]], impossible: list[Any], rules: AnswerRules = RULES) -> Contradiction:
    with pytest.raises(Contradiction) as caught:
        check(named, impossible, rules)
    return caught.value


def test_it_keeps_a_valid_answer_in_the_order_given() -> None:
    assert check([(3, 70), (5, 20)], [0, 1, 1], RULES) == Elicited(((3, 70.0), (5, 20.0)), frozenset({0, 1}))


def test_it_takes_every_kind_of_number() -> None:
    said = check([(np.int64(3), np.float32(50.5)), (5, Decimal("33.3")), (6, 20)], [np.int16(0)], RULES)
    assert said == Elicited(((3, 50.5), (5, 33.3), (6, 20.0)), frozenset({0}))
    assert [type(category) for category, _ in said.named] == [int, int, int]
    assert [type(percentage) for _, percentage in said.named] == [float, float, float]


def test_an_alternative_may_have_nothing_or_as_much_as_the_first() -> None:
    assert check([(3, 60), (5, 60), (6, 0), (7, 0)], [], RULES).named[2:] == ((6, 0.0), (7, 0.0))


def test_a_percentage_too_small_to_mean_anything_is_nothing() -> None:
    assert check([(3, 60), (5, 1e-300)], [], RULES).named == ((3, 60.0), (5, 0.0))
    assert check([(3, 60), (5, 1e-301), (6, 1e-300)], [], RULES).named[1:] == ((5, 0.0), (6, 0.0))
    assert math.copysign(1, check([(3, 60), (5, -0.0)], [], RULES).named[1][1]) == 1


def test_percentages_may_add_up_to_anything_unless_the_study_says_otherwise() -> None:
    assert check([(3, 100), (5, 100)], [], RULES).named == ((3, 100.0), (5, 100.0))
    assert check([(3, 1)], [], RULES).named == ((3, 1.0),)


def test_a_limit_on_the_sum_allows_for_binary_fractions() -> None:
    # 14.7 + 12.3 + 73.0 is 100.00000000000001 in binary when added in this order.
    rules = AnswerRules(10, sum_limit=100)
    assert len(check([(0, 73.0), (1, 14.7), (2, 12.3)], [], rules).named) == 3


@pytest.mark.parametrize(
    ("named", "impossible", "field", "code"),
    [
        ([], [], "named", "nothing_answered"),
        ([], [1, 2], "named", "nothing_answered"),
        ([(10, 50)], [], "named.0.category", "unknown_category"),
        ([(-1, 50)], [], "named.0.category", "unknown_category"),
        ([("3", 50)], [], "named.0.category", "unknown_category"),
        ([(True, 50)], [], "named.0.category", "unknown_category"),
        ([(None, 50)], [], "named.0.category", "unknown_category"),
        ([(3.0, 50)], [], "named.0.category", "unknown_category"),
        ([(3, 50)], [10], "impossible", "unknown_category"),
        ([(3, 50)], ["4"], "impossible", "unknown_category"),
        ([(3, 50)], [True], "impossible", "unknown_category"),
        ([(3, 50), (3, 50)], [], "named.1.category", "category_named_twice"),
        ([(3, 50), (5, 20)], [5], "impossible.5", "named_and_impossible"),
        ([(3, 50), (5, 0)], [5], "impossible.5", "named_and_impossible"),
        ([(3, None)], [], "named.0.percentage", "percentage_missing"),
        ([(3, 50), (5, None)], [], "named.1.percentage", "percentage_missing"),
        ([(3, "50")], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, "8p")], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, True)], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, math.nan)], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, math.inf)], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, Decimal("sNaN"))], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, [50])], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, 50 + 0j)], [], "named.0.percentage", "percentage_not_a_number"),
        ([(3, 100.5)], [], "named.0.percentage", "percentage_out_of_range"),
        ([(3, -1)], [], "named.0.percentage", "percentage_out_of_range"),
        ([(3, 10**400)], [], "named.0.percentage", "percentage_out_of_range"),
        ([(3, 20), (5, 60)], [], "named.1.percentage", "alternative_likelier"),
        ([(3, 50), (5, 10), (6, 20)], [], "named.2.percentage", "alternative_likelier"),
        ([(3, 0)], [], "named.0.percentage", "nothing_likely"),
        ([(3, 0), (5, 0.0)], [], "named.0.percentage", "nothing_likely"),
    ],
)
def test_it_points_at_a_contradiction(
    named: list[tuple[Any, Any]], impossible: list[Any], field: str, code: str
) -> None:
    contradiction = refused(named, impossible)
    assert contradiction.codes == {field: code}
    assert contradiction.code == code
    assert contradiction.fields.keys() == {field}
    assert contradiction.message == contradiction.fields[field]
    assert contradiction.message.endswith(".")
    assert isinstance(contradiction, Refusal)


def test_it_refuses_what_the_study_does_not_ask() -> None:
    rules = AnswerRules(10, most_named=2, sum_limit=100, ask_impossible=False)
    assert refused([(1, 50), (2, 20), (3, 10)], [], rules).codes == {"named": "too_many_named"}
    assert refused([(1, 70), (2, 40)], [], rules).codes == {"sum": "sum_over_limit"}
    assert refused([(1, 70)], [4, 5], rules).codes == {"impossible": "impossible_not_asked"}


def test_it_lists_every_problem_and_leads_with_the_first() -> None:
    contradiction = refused(
        [(3, 20), (3, 60), (99, None), (5, "x")], [3, 42], AnswerRules(10, most_named=3, sum_limit=50)
    )
    assert contradiction.codes == {
        "named": "too_many_named",
        "named.1.category": "category_named_twice",
        "named.2.category": "unknown_category",
        "named.1.percentage": "alternative_likelier",
        "named.2.percentage": "percentage_missing",
        "named.3.percentage": "percentage_not_a_number",
        "sum": "sum_over_limit",
        "impossible.3": "named_and_impossible",
        "impossible": "unknown_category",
    }
    assert contradiction.code == "too_many_named"
    assert contradiction.fields.keys() == contradiction.codes.keys()


def test_a_flood_of_names_is_refused_without_a_flood_of_problems() -> None:
    contradiction = refused([(index, 1) for index in range(100_000)], [])
    assert contradiction.codes == {"named": "too_many_named"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"categories": 1},
        {"categories": 10, "most_named": 0},
        {"categories": 10, "sum_limit": 0},
        {"categories": 10, "sum_limit": math.nan},
    ],
)
def test_rules_that_no_answer_could_meet_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AnswerRules(**arguments)
