from __future__ import annotations

import math

import pytest

from training.statistics import holm, over_seeds, t_quantile, t_within


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042)]
)
def test_the_quantiles_of_t_are_those_of_the_tables(freedom: int, t: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(t, abs=5e-4)
    assert t_within(t, freedom) == pytest.approx(0.95, abs=1e-4)


def test_with_many_degrees_of_freedom_t_is_normal() -> None:
    assert t_within(1.5, 5000) == pytest.approx(math.erf(1.5 / math.sqrt(2)), abs=2e-4)
    assert t_within(0, 7) == 0


def test_a_paired_test_is_the_one_worked_by_hand() -> None:
    found = over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764 * math.sqrt(2.5 / 5)
    assert (found.mean, found.low, found.high) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-3)
    assert found.p == pytest.approx(0.0132, abs=1e-4)  # t = 4.2426 with 4 degrees


def test_one_seed_has_no_interval_and_equal_seeds_a_point() -> None:
    assert over_seeds([0.3]).low is None
    assert over_seeds([0.3]).p is None
    assert over_seeds([0.0, 0.0]).p == 1
    assert over_seeds([0.5, 0.5]).p == 0


def test_holm_raises_the_least_most_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
