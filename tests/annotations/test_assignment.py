from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotations.assignment import draw_category_order, draw_ranks, make_batches, plan_session

IMAGES = st.lists(st.integers(0, 10**6), unique=True, max_size=120)
SEEDS = st.integers(0, 2**32 - 1)


@given(IMAGES, st.integers(1, 60), SEEDS)
def test_batches_hold_every_image_once_and_are_as_even_as_can_be(images: list[int], size: int, seed: int) -> None:
    batches = make_batches(images, size, np.random.default_rng(seed))

    assert sorted(image for batch in batches for image in batch) == sorted(images)
    sizes = [len(batch) for batch in batches]
    assert all(1 <= each <= size for each in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(batches) == -(-len(images) // size)


@given(IMAGES, st.integers(0, 60), SEEDS)
def test_a_session_shows_each_image_once_and_then_repeats_earlier_ones(
    images: list[int], repeats: int, seed: int
) -> None:
    plan = plan_session(images, repeats, np.random.default_rng(seed))

    main, again = plan[: len(images)], plan[len(images) :]
    assert sorted(trial.image for trial in main) == sorted(images)
    assert all(trial.repeat_of is None for trial in main)
    first_half = -(-len(images) // 2)
    assert len(again) == min(repeats, first_half)
    positions = [trial.repeat_of for trial in again]
    assert len(set(positions)) == len(positions)
    for trial in again:
        assert trial.repeat_of is not None
        assert trial.repeat_of < first_half
        assert trial.image == main[trial.repeat_of].image


@given(IMAGES.filter(bool), st.integers(1, 60), SEEDS)
def test_half_a_session_lies_between_an_answer_and_its_repeat(images: list[int], repeats: int, seed: int) -> None:
    plan = plan_session(images, repeats, np.random.default_rng(seed))

    for position, trial in enumerate(plan):
        if trial.repeat_of is not None:
            assert position - trial.repeat_of >= len(images) // 2


def test_two_sessions_on_one_batch_differ_in_order() -> None:
    orders = {
        tuple(trial.image for trial in plan_session(range(25), 2, np.random.default_rng(seed))) for seed in (1, 2)
    }

    assert len(orders) == 2


@given(st.integers(2, 60), SEEDS)
def test_the_order_of_categories_is_a_permutation(categories: int, seed: int) -> None:
    order = draw_category_order(categories, np.random.default_rng(seed), shuffle=True)

    assert sorted(order) == list(range(categories))


def test_categories_keep_their_order_where_the_study_says_so() -> None:
    assert draw_category_order(4, np.random.default_rng(1), shuffle=False) == [0, 1, 2, 3]


@given(st.integers(0, 60), SEEDS)
def test_ranks_are_a_permutation(count: int, seed: int) -> None:
    assert sorted(draw_ranks(count, np.random.default_rng(seed))) == list(range(count))


def test_the_same_seed_deals_the_same_batches() -> None:
    first, second = (make_batches(range(50), 7, np.random.default_rng(3)) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_images_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        make_batches([1, 2], size, np.random.default_rng(0))
