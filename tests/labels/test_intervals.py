from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elicit.labels.intervals import Bootstrap, Estimate, estimate, ratio_of_sums


def mean_of(values: list[float], bootstrap: Bootstrap | None = None) -> Estimate | None:
    return estimate(ratio_of_sums(np.array(values), np.ones(len(values))), len(values), bootstrap)


def test_a_mean_needs_no_interval() -> None:
    assert mean_of([1.0, 2.0, 6.0]) == Estimate(3.0, None, 3)


def test_nothing_to_average_is_none() -> None:
    assert mean_of([]) is None
    assert estimate(ratio_of_sums(np.ones(2), np.zeros(2)), 2) is None


def test_one_unit_says_nothing_of_others() -> None:
    assert mean_of([4.0], Bootstrap(np.random.default_rng(1))) == Estimate(4.0, None, 1)


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    found = mean_of(values.tolist(), Bootstrap(np.random.default_rng(2), draws=4000))
    assert found is not None
    assert found.interval is not None
    low, high = found.interval
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_a_lower_level_is_narrower_and_the_generator_decides() -> None:
    def interval(**settings: Any) -> tuple[float, float]:
        found = mean_of([0.0, 1.0, 1.0, 3.0, 7.0], Bootstrap(np.random.default_rng(3), **settings))
        assert found is not None
        assert found.interval is not None
        return found.interval

    assert interval() == interval()
    assert interval(level=0.5)[0] > interval()[0]
    assert interval(level=0.5)[1] < interval()[1]


def test_draws_without_a_value_are_left_out() -> None:
    # Units 1 and 2 carry nothing: draws of them alone have no ratio.
    found = estimate(
        ratio_of_sums(np.array([3.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0])), 3, Bootstrap(np.random.default_rng(1))
    )
    assert found == Estimate(1.5, (1.5, 1.5), 3)


def test_every_draw_takes_as_many_units_as_there_are() -> None:
    blocks = list(Bootstrap(np.random.default_rng(1), draws=7).counts(400_000))
    assert [block.shape for block in blocks] == [(2, 400_000)] * 3 + [(1, 400_000)]
    assert all((block.sum(axis=1) == 400_000).all() for block in blocks)


@pytest.mark.parametrize("settings", [{"draws": 0}, {"level": 0.0}, {"level": 1.0}])
def test_settings_that_make_no_interval_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Bootstrap(np.random.default_rng(1), **settings)
