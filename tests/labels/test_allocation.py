from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from elicit.labels.aggregation import MeanPool
from elicit.labels.allocation import settled, spread, unsettled
from elicit.labels.simplex import kl, total_variation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def drawn(random: np.random.Generator, truth: Floats, each: int, concentration: float = 3.0) -> tuple[Floats, Integers]:
    """``each`` soft answers on every image of ``truth`` (N, K), and their images."""
    images = np.repeat(np.arange(len(truth)), each)
    gammas = random.gamma(np.maximum(concentration * truth[images], 1e-3)) + 1e-300
    return gammas / gammas.sum(axis=1, keepdims=True), images


def population(random: np.random.Generator, images: int = 300, classes: int = 6, torn: int = 2) -> Floats:
    """Clear images, but each ``torn``-th lies between two neighbouring classes."""
    first = random.integers(classes, size=images)
    share = np.where(np.arange(images) % torn == torn - 1, 0.55, 0.98)
    truth = np.full((images, classes), 0.0)
    truth[np.arange(images), first] = share
    truth[np.arange(images), (first + 1) % classes] += 1 - share
    return truth


def test_disputed_images_come_before_settled_ones() -> None:
    same, torn = [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]
    labels = np.array([same, same, same, torn])
    first, second = unsettled(labels, [0, 0, 1, 1], images_in_all=2)
    assert second > first


def test_images_without_a_label_come_first_and_those_with_many_last() -> None:
    random = np.random.default_rng(0)
    labels, _ = drawn(random, np.tile([0.5, 0.5, 0.0], (22, 1)), 1)
    found = unsettled(labels, np.array([0] * 20 + [1, 1]), images_in_all=3)
    assert found[2] == found.max()
    assert found[2] > found[1] > found[0] > 0


def test_an_image_with_one_certain_answer_is_not_settled() -> None:
    labels = np.eye(3)[[0, 0, 1, 2, 1, 1, 0, 2]]
    images = np.array([0, 1, 1, 2, 2, 3, 3, 3])
    assert (spread(labels, images, images_in_all=4).variances.sum(axis=1) > 0.05).all()
    assert not settled(labels, images, images_in_all=4, within=0.2, least=1).any()


def test_before_any_answer_all_images_are_alike() -> None:
    nothing = np.zeros((0, 4))
    assert unsettled(nothing, np.zeros(0, dtype=int), images_in_all=3).tolist() == [1, 1, 1]
    assert not settled(nothing, np.zeros(0, dtype=int), images_in_all=3, within=1, least=1).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_the_order_of_answers_and_the_names_of_images_make_no_difference(seed: int, rows: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    labels, images = random.dirichlet(np.full(classes, 0.4), rows), random.integers(8, size=rows)
    order, names = random.permutation(rows), random.permutation(8)
    found = unsettled(labels, images, images_in_all=8)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    np.testing.assert_allclose(
        unsettled(labels[order], names[images[order]], images_in_all=8)[names], found, rtol=1e-6, atol=1e-12
    )
    stopped = settled(labels, images, images_in_all=8, within=0.2, least=2)
    assert not stopped[np.bincount(images, minlength=8) < 2].any()
    stricter = settled(labels, images, images_in_all=8, within=0.1, least=3)
    assert not (stricter & ~stopped).any()


def test_the_expected_error_is_the_true_one_on_average() -> None:
    random = np.random.default_rng(1)
    truth = population(random)
    expected, actual = [], []
    for each in (2, 3, 6):
        labels, images = drawn(random, truth, each)
        means = np.stack([np.bincount(images, column) for column in labels.T], axis=1) / each
        means /= means.sum(axis=1, keepdims=True)
        expected.append(spread(labels, images, images_in_all=len(truth)).total_variation().mean())
        actual.append(total_variation(truth, means).mean())
    ratio = np.array(expected) / actual
    # Rather too much than too little: what few answers agree on isn't believed whole.
    assert (ratio > 0.9).all()
    assert (ratio < 1.5).all()
    assert expected[0] > expected[1] > expected[2]


def test_settled_images_err_less_than_the_others() -> None:
    random = np.random.default_rng(2)
    truth = population(random)
    labels, images = drawn(random, truth, 4)
    means = np.stack([np.bincount(images, column) for column in labels.T], axis=1) / 4
    error = total_variation(truth, means / means.sum(axis=1, keepdims=True))
    stopped = settled(labels, images, images_in_all=len(truth), within=0.07, least=3)
    assert 0.3 < stopped.mean() < 0.7
    assert error[stopped].mean() < 0.5 * error[~stopped].mean()


def test_the_next_labels_go_where_they_help_in_a_population_of_known_truth() -> None:
    random = np.random.default_rng(3)
    truth = population(random, 600, torn=6)
    labels, images = drawn(random, truth, 12)
    turn = np.tile(np.arange(12), len(truth))

    def error(taken: NDArray[np.int64]) -> tuple[float, float]:
        rows = turn < taken[images]
        pooled = MeanPool().fit_predict(labels[rows], images[rows], np.arange(rows.sum()))
        return float(total_variation(truth, pooled).mean()), float(kl(truth, pooled).mean())

    taken = np.full(len(truth), 2)
    while taken.mean() < 4:
        rows = turn < taken[images]
        score = unsettled(labels[rows], images[rows], images_in_all=len(truth))
        taken[np.argsort(np.where(taken < 12, -score, np.inf))[:60]] += 1
    adaptive = error(taken)
    # Four labels on average are as good as six of each by TV, and better than four of each by KL.
    assert adaptive[0] < error(np.full(len(truth), 6))[0]
    assert adaptive[1] < 0.95 * error(np.full(len(truth), 4))[1]


@pytest.mark.parametrize(
    ("labels", "images", "images_in_all"),
    [
        ([[0.5, 0.5]], [1], 1),
        ([[0.5, 0.5]], [-1], 1),
        ([[0.5, 0.5]], [0, 0], 1),
        ([[0.5, 0.6]], [0], 1),
        ([[1.0]], [0], 1),
        ([[0.5, 0.5]], [0.0], 1),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), 0),
    ],
)
def test_wrong_shapes_labels_and_images_are_refused(
    labels: list[list[float]], images: list[int], images_in_all: int
) -> None:
    with pytest.raises(ValueError, match=r"labels|images|sum"):
        unsettled(labels, images, images_in_all=images_in_all)
    with pytest.raises(ValueError, match=r"labels|images|sum"):
        settled(labels, images, images_in_all=images_in_all, within=0.1, least=1)


@pytest.mark.parametrize(("within", "least"), [(-0.1, 1), (1.1, 1), (0.1, 0)])
def test_a_rule_that_no_image_could_follow_is_refused(within: float, least: int) -> None:
    with pytest.raises(ValueError, match=r"within|least"):
        settled([[0.5, 0.5]], [0], images_in_all=1, within=within, least=least)


def test_a_hundred_thousand_answers_take_moments() -> None:
    random = np.random.default_rng(4)
    labels, images = random.dirichlet(np.full(10, 0.3), 100_000), random.integers(20_000, size=100_000)
    began = time.process_time()
    unsettled(labels, images, images_in_all=20_000)
    settled(labels, images, images_in_all=20_000, within=0.1, least=2)
    assert time.process_time() - began < 2
