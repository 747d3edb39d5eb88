from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicit.labels import normalise, total_variation
from elicit.labels.intervals import Bootstrap
from elicit.labels.scoring import (
    LOWER_BOUNDS,
    Calibration,
    Score,
    calibration,
    expected_score,
    leave_one_out,
    score_annotators,
    score_outcome,
)
from tests.labels import published_study
from tests.labels.published_study import Said

Label = Sequence[float]
EVERY_SCORE = pytest.mark.parametrize("score", list(Score))

rows = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda values: sum(values) > 0.01).map(normalise)


def means(scores: Any) -> dict[Any, float | None]:
    return {each.annotator: each.score.value if each.score else None for each in scores}


# --- Scores


def test_scores_of_a_worked_forecast() -> None:
    forecast = [0.7, 0.2, 0.1]
    # (.7 - 1)^2 + .2^2 + .1^2 and .7^2 + (.2 - 1)^2 + .1^2
    assert score_outcome(forecast, 0, score=Score.BRIER) == pytest.approx(-0.14)
    assert score_outcome(forecast, 1, score=Score.BRIER) == pytest.approx(-1.14)
    assert score_outcome(forecast, 0, score=Score.SPHERICAL) == pytest.approx(0.7 / math.sqrt(0.54))
    # A floor of .3 is .1 for each class: .7 x + .1 of .7, .2, .1 is .59, .24, .17; the outcome is .8, .1, .1.
    expected = 0.8 * math.log(0.59) + 0.1 * math.log(0.24) + 0.1 * math.log(0.17)
    assert score_outcome(forecast, 0, score=Score.LOG, floor=0.3) == pytest.approx(expected)
    assert score_outcome(forecast, 0, score=Score.LOG, floor=1e-9) == pytest.approx(math.log(0.7), abs=1e-6)


def test_ends_of_the_scales() -> None:
    right, wrong = np.eye(10)[0], np.eye(10)[1]
    assert score_outcome(right, 0, score=Score.BRIER) == 0
    assert score_outcome(wrong, 0, score=Score.BRIER) == -2
    assert score_outcome(right, 0, score=Score.SPHERICAL) == 1
    assert score_outcome(wrong, 0, score=Score.SPHERICAL) == 0
    # .991 on the class and .001 on the nine others, against themselves and against .001 and .991.
    assert score_outcome(right, 0, score=Score.LOG) == pytest.approx(0.991 * math.log(0.991) + 0.009 * math.log(0.001))
    assert score_outcome(wrong, 0, score=Score.LOG) == pytest.approx(
        0.991 * math.log(0.001) + 0.001 * math.log(0.991) + 0.008 * math.log(0.001)
    )


@EVERY_SCORE
@given(belief=rows, said=rows)
def test_nothing_said_earns_more_than_the_honest_belief(score: Score, belief: Any, said: Any) -> None:
    honest = expected_score(belief, belief, score=score)
    assert honest >= expected_score(said, belief, score=score) - 1e-12
    if total_variation(said, belief) > 0.02:
        assert honest > expected_score(said, belief, score=score)


@EVERY_SCORE
def test_honesty_is_best_up_to_the_edge_of_the_scale(score: Score) -> None:
    # With a floor under the forecast alone, who believes 99 % would earn more by saying 100 %.
    percentages = np.arange(1001) / 1000
    forecasts = np.stack([percentages, 1 - percentages], axis=1)
    for belief in (1.0, 0.999, 0.99, 0.5, 0.0):
        earned = expected_score(forecasts, [belief, 1 - belief], score=score, floor=0.05)
        assert percentages[earned.argmax()] == belief


def test_the_same_mass_said_linearly_would_pay_exaggeration() -> None:
    # The control: a score of the mass itself is not proper, so the tests above could fail.
    belief, exaggerated = np.array([0.6, 0.4]), np.array([1.0, 0.0])
    assert (belief * exaggerated).sum() > (belief * belief).sum()


@EVERY_SCORE
@given(crowd=rows, said=rows)
def test_the_score_against_a_crowd_is_the_expectation_over_its_classes(score: Score, crowd: Any, said: Any) -> None:
    by_class = score_outcome(np.tile(said, (4, 1)), np.arange(4), score=score)
    assert expected_score(said, crowd, score=score) == pytest.approx(float(crowd @ by_class))


@EVERY_SCORE
@given(crowd=rows, said=rows, order=st.permutations(range(4)))
def test_scores_keep_their_range_and_know_no_order_of_classes(
    score: Score, crowd: Any, said: Any, order: list[int]
) -> None:
    low, high = {Score.LOG: (math.log(0.01 / 4), 0), Score.BRIER: (-2, 0), Score.SPHERICAL: (0, 1)}[score]
    found = float(expected_score(said, crowd, score=score))
    assert low - 1e-9 <= found <= high + 1e-9
    assert found == pytest.approx(float(expected_score(said[order], crowd[order], score=score)))


def test_many_forecasts_are_one_operation() -> None:
    forecasts = normalise(np.arange(1, 25, dtype=float).reshape(2, 4, 3))
    crowd = normalise([1.0, 2.0, 3.0])
    found = expected_score(forecasts, crowd, score=Score.BRIER)
    assert found.shape == (2, 4)
    assert found[1, 2] == expected_score(forecasts[1, 2], crowd, score=Score.BRIER)
    outcomes = np.arange(8).reshape(2, 4) % 3
    assert score_outcome(forecasts, outcomes, score=Score.LOG)[1, 0] == pytest.approx(
        float(score_outcome(forecasts[1, 0], 1, score=Score.LOG))
    )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: expected_score([0.5, 0.6], [0.5, 0.5], score=Score.LOG), "forecast does not sum to 1"),
        (lambda: expected_score([0.5, 0.5], [0.5, 0.6], score=Score.LOG), "crowd does not sum to 1"),
        (lambda: expected_score([0.5, 0.5], [[0.5, 0.5]], score=Score.LOG), "crowd must be"),
        (lambda: expected_score([0.5, 0.5], [0.5, 0.5], score=Score.LOG, floor=0.0), "floor"),
        (lambda: expected_score([0.5, 0.5], [0.5, 0.5], score=Score.LOG, floor=1.0), "floor"),
        (lambda: score_outcome([0.5, 0.5], 2, score=Score.LOG), "outside 0..1"),
        (lambda: score_outcome([0.5, 0.5], 0.5, score=Score.LOG), "whole numbers"),
        (lambda: score_outcome([0.5, 0.5], [0, 1], score=Score.LOG), "whole numbers"),
    ],
)
def test_what_can_not_be_scored_is_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


# --- The others


def test_the_crowd_of_a_response_is_everybody_else_each_once() -> None:
    labels = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.7, 0.3], [0.2, 0.8]]
    # a answered image 1 twice; d is alone on image 2.
    crowd, others = leave_one_out(labels, [1, 1, 1, 2, 1], ["b", "a", "a", "d", "c"])
    # a: (b + c) / 2; b: (a's .25 .75 + c) / 2; c: (a's + b) / 2.
    expected = [[0.225, 0.775], [0.6, 0.4], [0.6, 0.4], [0.0, 0.0], [0.625, 0.375]]
    assert crowd.tolist() == pytest.approx(np.array(expected))
    assert others.tolist() == [2, 2, 2, 0, 2]


@given(
    study=st.lists(st.tuples(rows, st.integers(0, 2), st.sampled_from("abc")), min_size=1, max_size=9),
    data=st.data(),
)
def test_the_crowd_is_that_of_the_definition_in_any_order(study: list[Any], data: st.DataObject) -> None:
    study = data.draw(st.permutations(study))
    labels, images, annotators = zip(*study, strict=True)
    crowd, others = leave_one_out(np.array(labels), images, annotators)
    for row, (_, image, annotator) in enumerate(study):
        persons: dict[str, list[Any]] = defaultdict(list)
        for label, where, who in study:
            if where == image and who != annotator:
                persons[who].append(label)
        assert others[row] == len(persons)
        expected = np.mean([np.mean(own, axis=0) for own in persons.values()], axis=0) if persons else np.zeros(4)
        assert crowd[row] == pytest.approx(expected, abs=1e-9)


# --- Annotators


def test_annotators_are_scored_against_the_others() -> None:
    labels = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]
    images, annotators = [1, 1, 2, 2, 3], ["b", "a", "a", "b", "c"]
    found = score_annotators(labels, images, annotators)
    # Image 1: -2 for both. Image 2: 2 (.5) - .5 - 1 = -.5. c saw an image alone.
    assert means(found) == {"a": -1.25, "b": -1.25, "c": None}
    assert [each.score.units for each in found if each.score] == [2, 2]


def test_annotators_are_scored_against_a_reference_class_or_distribution() -> None:
    labels, images, annotators = [[0.7, 0.3], [0.4, 0.6]], [5, 6], [1, 2]
    by_class = score_annotators(labels, images, annotators, reference=[0, 0])
    # -(.09 + .09) and -(.36 + .36)
    assert means(by_class) == {1: pytest.approx(-0.18), 2: pytest.approx(-0.72)}
    # 2 p.q - q.q - 1 with p = .5 .5: 1 - .58 - 1 and 1 - .52 - 1
    by_distribution = score_annotators(labels, images, annotators, reference=[[0.5, 0.5]] * 2)
    assert means(by_distribution) == {1: pytest.approx(-0.58), 2: pytest.approx(-0.52)}


def test_answers_of_one_person_on_one_image_count_as_one() -> None:
    labels = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    # Image 1: (0 - 2) / 2; image 2: 0.
    found = score_annotators(labels, [1, 1, 2], ["a"] * 3, reference=[0, 0, 0])
    assert means(found) == {"a": -0.5}


@EVERY_SCORE
def test_who_says_what_the_crowd_says_outscores_who_exaggerates_and_who_guesses(score: Score) -> None:
    generator = np.random.default_rng(1)
    truth = generator.dirichlet([0.5] * 5, 300)
    certain = np.eye(5)[truth.argmax(axis=1)]
    votes = [np.eye(5)[(truth.cumsum(axis=1) > draws).argmax(axis=1)] for draws in generator.random((20, 300, 1))]
    people = [truth, certain, np.full((300, 5), 0.2), *votes]
    names = ["honest", "certain", "uniform", *(f"voter {n:02}" for n in range(20))]
    found = score_annotators(
        np.concatenate(people),
        np.tile(np.arange(300), 23),
        np.repeat(names, 300),
        score=score,
        bootstrap=Bootstrap(generator, draws=100),
    )
    best = next(each.score for each in found if each.annotator == "honest")
    assert best is not None
    assert best.interval is not None
    assert best.interval[0] < best.value < best.interval[1]
    assert max(value for name, value in means(found).items() if name != "honest" and value is not None) < best.value


def test_the_order_of_rows_changes_no_score_and_no_interval() -> None:
    generator = np.random.default_rng(1)
    labels, images, annotators = generator.dirichlet([0.5] * 3, 40), np.arange(40) // 4, np.arange(40) % 4
    order = generator.permutation(40)

    def scores(rows: Any) -> Any:
        return score_annotators(
            labels[rows], images[rows], annotators[rows], bootstrap=Bootstrap(np.random.default_rng(2), draws=50)
        )

    for one, two in zip(scores(slice(None)), scores(order), strict=True):
        assert one.annotator == two.annotator
        assert one.score.value == pytest.approx(two.score.value)
        assert one.score.interval == pytest.approx(two.score.interval)


def test_nobody_has_no_score() -> None:
    assert score_annotators(np.zeros((0, 3)), [], []) == ()
    assert leave_one_out(np.zeros((0, 3)), [], [])[0].shape == (0, 3)


@pytest.mark.parametrize("reference", [[0], [0, 2], [0.0, 1.0], [[0.5, 0.5]], [[0.5, 0.6], [0.5, 0.5]]])
def test_a_reference_that_does_not_fit_is_refused(reference: Any) -> None:
    with pytest.raises(ValueError, match="reference"):
        score_annotators([[1.0, 0.0], [0.0, 1.0]], [1, 2], ["a", "a"], reference=reference)


# --- Calibration


def calibrated(*arguments: Any, **settings: Any) -> Calibration:
    found = calibration(*arguments, **settings)
    assert found is not None
    return found


def test_calibration_worked_by_hand() -> None:
    # Twice 100 (once right), 60 and 80 (right), 20 (wrong).
    found = calibrated([100, 60, 100, 20, 80], [0, 1, 2, 3, 4], [0, 1, 3, 4, 4], lower_bounds=[0, 50, 100])
    assert [(each.low, each.high, each.count) for each in found.bins] == [(0, 50, 1), (50, 100, 2), (100, 100, 2)]
    assert [each.stated for each in found.bins] == pytest.approx([0.2, 0.7, 1.0])
    assert [each.observed for each in found.bins] == pytest.approx([0.0, 1.0, 0.5])
    assert found.error == pytest.approx((1 * 0.2 + 2 * 0.3 + 2 * 0.5) / 5)
    assert found.count == 5
    assert (found.stated, found.observed) == pytest.approx((0.72, 0.6))


def test_calibration_against_the_shares_of_a_crowd() -> None:
    found = calibrated([90, 90], [0, 1], [[0.8, 0.2], [0.4, 0.6]])
    assert found.observed == pytest.approx(0.7)
    assert found.error == pytest.approx(0.2)


def test_an_empty_bin_has_a_count_and_no_shares() -> None:
    found = calibrated([100], [0], [0])
    assert [each.count for each in found.bins] == [0] * 8 + [1]
    assert found.bins[0].stated is None
    assert found.bins[0].observed is None
    assert found.error == 0


def test_bins_hold_their_lower_bound_and_not_their_upper() -> None:
    found = calibrated([0, 29.9, 30, 94.9, 95, 99.9, 100], [0] * 7, [0] * 7)
    assert [each.count for each in found.bins] == [2, 1, 0, 0, 0, 0, 1, 2, 1]


def test_without_percentages_there_is_no_calibration() -> None:
    assert calibration([], [], []) is None


@given(
    said=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20),
    data=st.data(),
)
def test_the_error_of_calibration_is_a_share_and_knows_no_order(
    said: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    found = calibrated(*map(list, zip(*said, strict=True)))
    assert abs(found.stated - found.observed) - 1e-12 <= found.error <= 1
    assert sum(each.count for each in found.bins) == found.count == len(said)
    other = calibrated(*map(list, zip(*data.draw(st.permutations(said)), strict=True)))
    assert other.error == pytest.approx(found.error)


@pytest.mark.parametrize(
    ("arguments", "settings", "match"),
    [
        (([101], [0], [0]), {}, "0..100"),
        (([math.nan], [0], [0]), {}, "0..100"),
        (([50], [0, 1], [0]), {}, "percentages and named"),
        (([50], [0.5], [0]), {}, "named must be whole numbers"),
        (([50], [0], [0, 1]), {}, "reference"),
        (([50], [0], [0.5]), {}, "reference"),
        (([50], [2], [[0.5, 0.5]]), {}, "reference"),
        (([50], [0], [[0.5, 0.6]]), {}, "reference"),
        (([50], [0], [0]), {"lower_bounds": [10, 50]}, "lower_bounds"),
        (([50], [0], [0]), {"lower_bounds": [0, 50, 50]}, "lower_bounds"),
        (([50], [0], [0]), {"lower_bounds": [0, 101]}, "lower_bounds"),
        (([50], [0], [0]), {"lower_bounds": []}, "lower_bounds"),
    ],
)
def test_what_can_not_be_calibrated_is_refused(arguments: Any, settings: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        calibration(*arguments, **settings)


# --- The published study


@pytest.fixture(scope="module")
def firsts(shared_data: Path) -> list[Said]:
    """First answers whose first percentage is a valid one."""
    return [said for said in published_study.read(shared_data) if not said.repeat and said.percentage]


def in_bins(firsts: list[Said], observed: list[float]) -> tuple[list[tuple[int, float, float]], float]:
    """(count, mean stated, mean observed) of each bin and the calibration error, in plain Python."""
    found, error = [], 0.0
    for low, high in zip(LOWER_BOUNDS, (*LOWER_BOUNDS[1:], 101.0), strict=True):
        inside = [i for i, said in enumerate(firsts) if low <= (said.percentage or 0) < high]
        stated = statistics.fmean((firsts[i].percentage or 0) / 100 for i in inside)
        true = statistics.fmean(observed[i] for i in inside)
        found.append((len(inside), stated, true))
        error += len(inside) / len(firsts) * abs(stated - true)
    return found, error


@pytest.mark.parametrize(
    ("reference", "published", "error"),
    [
        ("class", [0.398, 0.475, 0.562, 0.628, 0.758, 0.827, 0.876, 0.931, 0.953], 0.043),
        ("votes", [0.370, 0.445, 0.508, 0.578, 0.662, 0.734, 0.778, 0.838, 0.864], 0.109),
    ],
)
def test_published_percentages_are_calibrated_to_the_class_and_above_the_votes(
    shared_data: Path, firsts: list[Said], reference: str, published: list[float], error: float
) -> None:
    named = [said.named[0][0] for said in firsts]
    votes = np.load(shared_data / "cifar10h" / "cifar10h-probs.npy")[[said.image for said in firsts]]
    classes = [said.reference for said in firsts]
    found = calibrated([said.percentage for said in firsts], named, classes if reference == "class" else votes)
    if reference == "class":
        observed = [float(name == right) for name, right in zip(named, classes, strict=True)]
    else:
        observed = [float(row[name]) for row, name in zip(votes.tolist(), named, strict=True)]
    bins, expected = in_bins(firsts, observed)
    assert [each.count for each in found.bins] == [count for count, _, _ in bins]
    assert [each.stated for each in found.bins] == pytest.approx([stated for _, stated, _ in bins])
    assert [each.observed for each in found.bins] == pytest.approx([true for _, _, true in bins])
    assert found.error == pytest.approx(expected)
    # Those of all 248 people; the half at hand lies within three standard errors.
    for each, share in zip(found.bins, published, strict=True):
        assert each.observed == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / each.count))
    assert found.error == pytest.approx(error, abs=0.015)
