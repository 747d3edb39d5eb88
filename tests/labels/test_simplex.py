from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicit.labels import check_simplex, entropy, hellinger, js, kl, normalise, total_variation

HALF = [0.5, 0.5]
SURE = [1.0, 0.0]
OTHER = [0.0, 1.0]
DISTANCES: list[Callable[..., Any]] = [total_variation, kl, js, hellinger]

rows = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda values: sum(values) > 0.01).map(normalise)


def test_entropy_is_in_nats() -> None:
    assert entropy(HALF) == pytest.approx(math.log(2))
    assert entropy([0.1] * 10) == pytest.approx(math.log(10))
    assert entropy(SURE) == 0
    assert math.copysign(1, float(entropy(SURE))) == 1
    # .9 and .1: -.9 ln .9 - .1 ln .1 = .0948 + .2303
    assert entropy([0.9, 0.1]) == pytest.approx(0.3251, abs=1e-4)


def test_distances_of_a_worked_pair() -> None:
    p, q = [0.7, 0.2, 0.1], [0.5, 0.5, 0.0]
    # (.2 + .3 + .1) / 2
    assert total_variation(p, q) == pytest.approx(0.3)
    # q becomes .99 q + .01/3 = .498333, .498333, .003333
    expected = 0.7 * math.log(0.7 / (0.495 + 0.01 / 3))
    expected += 0.2 * math.log(0.2 / (0.495 + 0.01 / 3)) + 0.1 * math.log(0.1 / (0.01 / 3))
    assert kl(p, q) == pytest.approx(expected)
    # m = .6, .35, .05; the last term of q is 0
    to_m = 0.7 * math.log(0.7 / 0.6) + 0.2 * math.log(0.2 / 0.35) + 0.1 * math.log(0.1 / 0.05)
    from_m = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.35)
    assert js(p, q) == pytest.approx((to_m + from_m) / 2)
    squares = (math.sqrt(0.7) - math.sqrt(0.5)) ** 2 + (math.sqrt(0.2) - math.sqrt(0.5)) ** 2 + 0.1
    assert hellinger(p, q) == pytest.approx(math.sqrt(squares / 2))


def test_disjoint_distributions_are_as_far_apart_as_can_be() -> None:
    assert total_variation(SURE, OTHER) == 1
    assert hellinger(SURE, OTHER) == 1
    assert js(SURE, OTHER) == pytest.approx(math.log(2))
    # .99 x 0 + .01 / 2
    assert kl(SURE, OTHER) == pytest.approx(math.log(200))


def test_the_floor_of_ten_classes_is_a_thousandth() -> None:
    p, q = np.eye(10)[0], np.eye(10)[1]
    assert kl(p, q) == pytest.approx(math.log(1000))


def test_without_a_floor_kl_is_infinite_only_where_q_rules_out_what_p_holds() -> None:
    assert kl(SURE, OTHER, floor=0) == math.inf
    assert kl(SURE, HALF, floor=0) == pytest.approx(math.log(2))
    assert kl(SURE, SURE, floor=0) == 0


def test_a_share_too_small_for_a_ratio_is_as_good_as_none() -> None:
    assert kl(SURE, np.array([2.2e-313, 1.0]), floor=0) == math.inf


@given(rows, rows)
def test_distances_keep_their_bounds(p: Any, q: Any) -> None:
    assert 0 <= total_variation(p, q) <= 1 + 1e-12
    assert 0 <= hellinger(p, q) <= 1 + 1e-12
    assert 0 <= js(p, q) <= math.log(2) + 1e-12
    assert total_variation(p, p) == hellinger(p, p) == 0
    assert js(p, p) == pytest.approx(0, abs=1e-12)
    for distance in (total_variation, js, hellinger):
        assert distance(p, q) == pytest.approx(distance(q, p))
    # Pinsker: TV <= sqrt(KL / 2), here without a floor
    assert total_variation(p, q) <= math.sqrt(max(float(kl(p, q, floor=0)), 0) / 2) + 1e-9


@pytest.mark.parametrize("distance", DISTANCES)
def test_many_pairs_are_one_operation(distance: Callable[..., Any]) -> None:
    p = normalise(np.arange(1, 25, dtype=float).reshape(2, 4, 3))
    q = normalise(np.arange(24, 0, -1, dtype=float).reshape(2, 4, 3))
    assert distance(p, q).shape == (2, 4)
    assert distance(p, q[0, 0]).shape == (2, 4)
    assert distance(p, q)[1, 2] == distance(p[1, 2], q[1, 2])
    assert distance(p, q[0, 0])[1, 2] == distance(p[1, 2], q[0, 0])


@pytest.mark.parametrize("distance", DISTANCES)
def test_shapes_that_do_not_fit_are_refused(distance: Callable[..., Any]) -> None:
    for p, q in [
        (HALF, [1 / 3] * 3),
        ([HALF] * 2, [HALF] * 3),
        ([HALF], [HALF, HALF]),
        ([[HALF]], [HALF]),
        (1.0, 1.0),
        ([1.0], [1.0]),
    ]:
        with pytest.raises(ValueError, match="shape"):
            distance(p, q)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([0.5, 0.6], "sum to 1"),
        ([[0.5, 0.5], [0.5, 0.4]], "sum to 1"),
        ([1.5, -0.5], "negative"),
        ([math.nan, 1.0], "nan"),
        ([math.inf, 0.0], "infinity"),
    ],
)
def test_what_is_no_distribution_is_refused(values: list[Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_simplex(values)
    with pytest.raises(ValueError, match=match):
        entropy(values)


def test_a_distribution_passes_unchanged_and_rounding_is_forgiven() -> None:
    values = np.array([0.7, 0.1, 0.1, 0.1])
    assert values.sum() != 1
    assert (check_simplex(values) == values).all()
    with pytest.raises(ValueError, match="sum to 1"):
        check_simplex([0.5, 0.5 + 1e-6])
    assert check_simplex([0.5, 0.5 + 1e-6], tolerance=1e-5).shape == (2,)


def test_weights_are_normalised_row_by_row() -> None:
    assert normalise([[1, 3], [2, 2]]).tolist() == [[0.25, 0.75], [0.5, 0.5]]


@pytest.mark.parametrize("weights", [[0, 0], [[1, 1], [0, 0]], [-1, 2], [math.nan, 1], [1e308, 1e308]])
def test_weights_that_have_no_proportions_are_refused(weights: list[Any]) -> None:
    with pytest.raises(ValueError, match="the weights"):
        normalise(weights)


def test_a_floor_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="floor"):
        kl(HALF, HALF, floor=1.5)
