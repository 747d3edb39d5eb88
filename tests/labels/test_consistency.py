from __future__ import annotations

import pytest

from elicit.labels import RULE_VERSION, Elicited, RepeatComparison, Verdict, compare, judge


def said(*named: tuple[int, float], impossible: set[int] | None = None) -> Elicited:
    return Elicited(named, frozenset(impossible or ()))


def at(distance: float) -> RepeatComparison:
    return RepeatComparison(same_top=True, percentage_change=0.0, total_variation=distance)


def test_the_same_answer_again_is_no_distance_away() -> None:
    answer = said((0, 70), (1, 20), impossible={4})
    assert compare(answer, answer, 5) == RepeatComparison(True, 0.0, 0.0)


def test_a_shift_within_the_same_classes() -> None:
    # All others impossible. First .75 and .25, again .5 and .5: TV = .25; the first class moved 25 points.
    first = said((0, 75), (1, 25), impossible={2, 3, 4})
    again = said((0, 50), (1, 50), impossible={2, 3, 4})
    comparison = compare(first, again, 5)
    assert comparison.same_top
    assert comparison.percentage_change == 25
    assert comparison.total_variation == pytest.approx(0.25)


def test_another_class_has_no_change_in_percentage() -> None:
    # .9 and .1 against .1 and .9.
    comparison = compare(
        said((0, 90), (1, 10)),
        said((1, 90), (0, 10)),
        5,
    )
    assert not comparison.same_top
    assert comparison.percentage_change is None
    assert comparison.total_variation == pytest.approx(0.8)


def test_what_is_ruled_out_counts_through_where_the_leftover_goes() -> None:
    # 40 % left over: on 1, 2 (.2 each) at first, on 3, 4 again: TV = .4 with no percentage changed.
    comparison = compare(said((0, 60), impossible={3, 4}), said((0, 60), impossible={1, 2}), 5)
    assert comparison.percentage_change == 0
    assert comparison.total_variation == pytest.approx(0.4)


def test_later_alternatives_count_too() -> None:
    # .5 .3 .2 of three named classes against .5 .3 and 2 ruled out: the last .2 goes to 3 and 4.
    first = said((0, 50), (1, 30), (2, 20))
    again = said((0, 50), (1, 30), impossible={2})
    assert compare(first, again, 5).total_variation == pytest.approx(0.2)


def test_a_hundredth_short_of_a_full_answer_is_a_hundredth_away() -> None:
    # 60 + 40 against 60 + 39: one point goes to the free classes 2, 3, 4.
    assert compare(said((0, 60), (1, 40)), said((0, 60), (1, 39)), 5).total_variation == pytest.approx(0.01)


def test_the_verdict_is_on_the_mean_distance() -> None:
    # (.1 + .5) / 2 = .3
    assert judge([at(0.1), at(0.5)], most_distance=0.3) is Verdict.CONSISTENT
    assert judge([at(0.1), at(0.52)], most_distance=0.3) is Verdict.INCONSISTENT
    assert judge([at(0.0)], most_distance=0.0) is Verdict.CONSISTENT
    assert judge([at(1.0)], most_distance=1.0) is Verdict.CONSISTENT


def test_rounding_decides_no_verdict() -> None:
    # .1 + .2 is .30000000000000004
    assert judge([at(0.1 + 0.2)], most_distance=0.3) is Verdict.CONSISTENT


def test_without_repeats_nothing_is_known() -> None:
    assert judge([], most_distance=0.3) is Verdict.UNDETERMINED


@pytest.mark.parametrize("most", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_no_distance_can_have_is_refused(most: float) -> None:
    with pytest.raises(ValueError, match="most_distance"):
        judge([at(0.1)], most_distance=most)


def test_verdicts_and_the_rule_have_stable_names() -> None:
    assert [verdict.value for verdict in Verdict] == ["consistent", "inconsistent", "undetermined"]
    assert RULE_VERSION == 1
