from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicit.labels.aggregation import ConfusionPool, MeanPool
from elicit.labels.planning import (
    PUBLISHED,
    ErrorCurve,
    Metric,
    Pilot,
    Published,
    Terms,
    against_reference,
    against_the_crowd,
)
from elicit.labels.simplex import kl
from tests.labels.test_allocation import Floats, drawn, population

TERMS = Terms(
    images=60, images_per_session=25, seconds_per_response=30, pay_per_hour_minor=900, fee_share=0.333,
    extra_per_session=2, seconds_per_session=300,
)  # fmt: skip


def made(images: int = 400, each: int = 6, seed: int = 0) -> tuple[Pilot, Floats]:
    random = np.random.default_rng(seed)
    truth = population(random, images)
    labels, where = drawn(random, truth, each)
    return Pilot(labels, where, np.tile(np.arange(each), images)), truth


def test_a_cost_worked_by_hand() -> None:
    cost = TERMS.cost(6)
    assert cost.sessions == 3 * 6
    assert cost.responses == 60 * 6 + 18 * 2
    assert cost.hours == pytest.approx((396 * 30 + 18 * 300) / 3600)
    assert cost.pay_minor == 4320
    assert cost.fees_minor == 1439
    assert cost.total_minor == 5759
    assert cost.minutes_per_session == pytest.approx(16)


def test_asking_two_questions_of_each_image_doubles_the_answers_and_not_the_sessions() -> None:
    both = replace(TERMS, questions=2).cost(6)
    assert both.responses == 2 * TERMS.cost(6).responses
    assert both.sessions == TERMS.cost(6).sessions


@given(st.integers(0, 10_000_000))
def test_a_budget_buys_the_most_labels_that_it_can(budget: int) -> None:
    labels = TERMS.labels_for(budget)
    assert labels == 0 or TERMS.cost(labels).total_minor <= budget
    assert labels == 1000 or TERMS.cost(labels + 1).total_minor > budget


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 0}, {"images_per_session": 0}, {"questions": 0}, {"extra_per_session": -1}, {"fee_share": -0.1},
        {"seconds_per_response": math.nan}, {"seconds_per_session": math.inf}, {"pay_per_hour_minor": -1},
    ],
)  # fmt: skip
def test_terms_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        replace(TERMS, **changes)


@pytest.mark.parametrize(
    ("metric", "law"),
    [
        (Metric.TV, lambda m: np.sqrt(0.01 + 0.04 / m)),
        (Metric.KL, lambda m: 0.1 + 0.3 / m),
        (Metric.ENTROPY, lambda m: 0.8 * np.sqrt(m / (m + 2))),
    ],
)
def test_a_curve_that_follows_its_law_is_carried_on_exactly(metric: Metric, law: object) -> None:
    assert callable(law)
    curve = ErrorCurve.measured(metric, {m: float(law(m)) for m in (1, 2, 3, 5)})
    everywhere = np.arange(1, 200)
    np.testing.assert_allclose(curve.at(everywhere), law(everywhere), rtol=1e-9)
    assert curve.limit == pytest.approx(law(1e12), rel=1e-6)
    needed = curve.labels_for(float(law(40)))
    assert needed == 40
    assert curve.worth(float(law(7))) == pytest.approx(7)


@given(
    st.sampled_from(list(Metric)),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_more_labels_are_never_expected_to_be_worse(metric: Metric, errors: list[float], step: int) -> None:
    curve = ErrorCurve.measured(metric, {1 + step * place: error for place, error in enumerate(errors)})
    found = curve.at(np.arange(1, 60))
    assert np.isfinite(found).all()
    assert (np.diff(found) * (1 if metric.higher_is_better else -1) >= -1e-9).all()
    if metric is Metric.ENTROPY:
        assert curve.limit <= 1 + 1e-9
    else:
        assert curve.limit >= 0


@given(st.floats(0.001, 0.999))
def test_the_labels_for_an_error_are_the_least_that_reach_it(error: float) -> None:
    for metric in Metric:
        curve = PUBLISHED[Published.RECOMMENDED][metric]
        needed = curve.labels_for(error)
        if needed is None:
            assert not curve.reaches(1000, error)
        else:
            assert curve.reaches(needed, error)
            assert needed == 1 or not curve.reaches(needed - 1, error)


def test_errors_that_no_label_count_reaches_have_none() -> None:
    curve = PUBLISHED[Published.RECOMMENDED][Metric.TV]
    assert curve.labels_for(0.01) is None
    assert curve.worth(0.9) is None


def test_six_soft_labels_are_worth_many_more_votes_by_kl_than_by_tv() -> None:
    worth = {
        metric: PUBLISHED[Published.VOTES][metric].worth(float(PUBLISHED[Published.RECOMMENDED][metric].at(6)))
        for metric in Metric
    }
    tv, divergence = worth[Metric.TV], worth[Metric.KL]
    assert tv is not None
    assert divergence is not None
    assert 7 < tv < 9
    assert divergence > 24


@pytest.mark.parametrize(
    ("labels", "errors"),
    [([], []), ([0], [0.1]), ([2, 1], [0.1, 0.1]), ([1], [math.nan]), ([1], [-0.1]), ([1, 2], [0.1])],
)
def test_what_is_no_curve_is_refused(labels: list[int], errors: list[float]) -> None:
    nothing = np.full(len(labels), np.nan)
    with pytest.raises(ValueError, match=r"labels|errors"):
        ErrorCurve(Metric.TV, np.array(labels, dtype=np.int64), np.array(errors), nothing, nothing)


def test_against_the_crowd_the_error_is_that_of_the_known_limit() -> None:
    """A curve of halves tells, without the truth, what the truth says of twice as many people."""
    pilot, truth = made(each=8)
    blind = against_the_crowd(pilot, Metric.TV, random=np.random.default_rng(0))
    known = against_reference(
        pilot, dict(enumerate(truth.tolist())), Metric.TV, random=np.random.default_rng(0), draws=10
    )
    assert blind is not None
    assert known is not None
    assert blind.labels.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(blind.at(np.arange(1, 9)), known.at(np.arange(1, 9)), rtol=0.2)
    assert blind.limit < 0.03


def test_the_correlation_with_the_crowds_entropies_is_found_without_the_truth() -> None:
    pilot, _ = made(images=1500, each=8)
    blind = against_the_crowd(pilot, Metric.ENTROPY, random=np.random.default_rng(0))
    many, _ = made(images=1500, each=200)
    assert blind is not None
    limit = many.labels.reshape(1500, 200, -1).mean(axis=1)
    known = against_reference(
        pilot, dict(enumerate(limit.tolist())), Metric.ENTROPY, random=np.random.default_rng(0), groups=0
    )
    assert known is not None
    np.testing.assert_allclose(blind.at([1, 2, 4]), known.at([1, 2, 4]), rtol=0.1)


def test_intervals_hold_the_curve_and_narrow_with_more_people() -> None:
    few, _ = made(images=40, each=6)
    many, _ = made(images=400, each=6)
    # Other people on each ten images, as in a study.
    few, many = (replace(each, annotators=each.annotators + 100 * (each.images // 10)) for each in (few, many))
    widths = []
    for pilot in (few, many):
        curve = against_the_crowd(pilot, Metric.TV, random=np.random.default_rng(0))
        assert curve is not None
        known = ~np.isnan(curve.low)
        assert known[:2].all()
        assert (curve.low <= curve.errors)[known].all()
        assert (curve.errors <= curve.high)[known].all()
        widths.append(float((curve.high - curve.low)[0]))
    assert widths[1] < widths[0]


def test_a_pilot_without_shared_images_or_reference_has_no_curve() -> None:
    pilot, _ = made(each=1)
    assert against_the_crowd(pilot, Metric.TV, random=np.random.default_rng(0)) is None
    assert against_reference(pilot, {}, Metric.KL, random=np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="reference"):
        against_the_crowd(pilot, Metric.KL, random=np.random.default_rng(0))


def test_the_pool_that_is_asked_for_is_the_one_that_is_measured() -> None:
    pilot, truth = made()
    reference = dict(enumerate(truth.tolist()))
    for pool in (MeanPool(), ConfusionPool()):
        curve = against_reference(
            pilot, reference, Metric.KL, random=np.random.default_rng(0), pool=pool, draws=1, groups=0
        )
        assert curve is not None
        labels = pool.fit_predict(pilot.labels, pilot.images, pilot.annotators)
        assert curve.errors[-1] == pytest.approx(kl(truth, labels).mean())


@pytest.mark.slow
def test_the_published_figures_are_those_of_the_published_answers(shared_data: Path) -> None:
    from benchmarks.planning import measured

    for name, figures in measured(shared_data, 20).items():
        for metric, errors in figures.items():
            curve = PUBLISHED[name][metric]
            assert sorted(errors) == curve.labels.tolist()
            np.testing.assert_allclose(curve.errors, [errors[m] for m in curve.labels.tolist()], rtol=0.06, atol=0.03)
