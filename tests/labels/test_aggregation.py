from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicit.labels import (
    POOLS,
    RECOMMENDED,
    ConfusionPool,
    LogPool,
    MeanPool,
    MedianPool,
    Pool,
    Recipe,
    ReliabilityPool,
    bootstrap,
    check_simplex,
)

# Image 7: careful .8/.2, careless .4/.6 -> .6/.4. Image 3: careful 0/1 alone.
LABELS = np.array([[0.8, 0.2], [0.0, 1.0], [0.4, 0.6]])
IMAGES = np.array([7, 3, 7])
PEOPLE = np.array(["careful", "careful", "careless"])


def test_it_averages_the_annotators_of_each_image() -> None:
    pool = MeanPool().fit(LABELS, IMAGES, PEOPLE)
    assert pool.images_.tolist() == [3, 7]
    assert pool.soft_labels_.tolist() == [[0.0, 1.0], [pytest.approx(0.6), pytest.approx(0.4)]]
    assert pool.counts_.tolist() == [1, 2]


def test_fit_predict_gives_the_pooled_labels() -> None:
    pool = MeanPool()
    assert pool.fit_predict(LABELS, IMAGES, PEOPLE) is pool.soft_labels_


def test_a_person_who_answers_twice_counts_once() -> None:
    # careful: (1 + .5) / 2 = .75 on class 0; careless: .25; mean .5, of two annotators
    labels = [[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]]
    pool = MeanPool().fit(labels, [4, 4, 4], ["careful", "careless", "careful"])
    assert pool.soft_labels_.tolist() == [[0.5, 0.5]]
    assert pool.counts_.tolist() == [2]


def test_neighbouring_images_by_one_person_stay_apart() -> None:
    pool = MeanPool().fit([[1.0, 0.0], [0.0, 1.0]], [4, 5], [1, 1])
    assert pool.soft_labels_.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_order_of_the_rows_makes_no_difference_in_any_bit() -> None:
    random = np.random.default_rng(7)
    labels = random.dirichlet(np.ones(10), size=600)
    images, people = np.divmod(np.arange(600), 6)
    once = MeanPool().fit_predict(labels, images, people)
    shuffle = random.permutation(600)
    again = MeanPool().fit_predict(labels[shuffle], images[shuffle], people[shuffle])
    assert (once == again).all()
    np.testing.assert_allclose(once, labels.reshape(100, 6, 10).mean(axis=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "images", "people", "match"),
    [
        (LABELS[0], IMAGES, PEOPLE, "must be"),
        (LABELS, IMAGES[:2], PEOPLE, "must be"),
        (LABELS, IMAGES, PEOPLE[:2], "must be"),
        (LABELS, IMAGES.astype(float), PEOPLE, "integers"),
        (LABELS * 2, IMAGES, PEOPLE, "sum to 1"),
        (np.empty((0, 2)), np.empty(0, dtype=int), np.empty(0, dtype=str), "no soft label"),
    ],
)
def test_input_that_can_not_be_pooled_is_refused(labels: Any, images: Any, people: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        MeanPool().fit(labels, images, people)


# The other pools


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Soft labels of a few people on a few images; nobody answers an image twice."""
    categories = draw(st.integers(2, 5))
    pairs = draw(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = random.dirichlet(np.full(categories, 0.5), size=len(pairs))
    certain = random.random(len(pairs)) < draw(st.floats(0, 1))
    labels[certain] = np.eye(categories)[labels[certain].argmax(axis=1)]
    images, people = np.array(sorted(pairs)).T
    return labels, images, people


pools = st.sampled_from(
    [*(make() for make in POOLS.values()), MedianPool(exponent=1.3), LogPool(floor=0.2), ConfusionPool(exponent=1.0)]
)


@given(crowds(), pools)
@settings(max_examples=200)
def test_every_pool_stays_on_the_simplex(crowd: tuple[Any, Any, Any], pool: Pool) -> None:
    pool.fit(*crowd)
    check_simplex(pool.soft_labels_, tolerance=1e-12)
    assert pool.images_.tolist() == np.unique(crowd[1]).tolist()
    assert pool.counts_.sum() == len(crowd[0])


@given(crowds(), pools, st.integers(0, 2**32))
@settings(max_examples=100)
def test_neither_the_order_of_rows_nor_of_classes_matters(crowd: tuple[Any, Any, Any], pool: Pool, seed: int) -> None:
    labels, images, people = crowd
    random = np.random.default_rng(seed)
    before = pool.fit_predict(labels, images, people)
    rows = random.permutation(len(labels))
    assert (pool.fit_predict(labels[rows], images[rows], people[rows]) == before).all()
    classes = random.permutation(labels.shape[1])
    again = pool.fit_predict(labels[:, classes], images, people)
    np.testing.assert_allclose(again, before[:, classes], rtol=0, atol=1e-12)


def test_the_exponent_sharpens() -> None:
    # .6/.4 squared: .36/.16, over .52.
    found = MeanPool(exponent=2.0).fit_predict([[0.8, 0.2], [0.4, 0.6]], [1, 1], [1, 2])
    assert found[0].tolist() == pytest.approx([0.36 / 0.52, 0.16 / 0.52])
    half = MeanPool(exponent=1.5).fit_predict([[0.8, 0.2], [0.4, 0.6]], [1, 1], [1, 2])
    assert half[0, 0] / half[0, 1] == pytest.approx(1.5**1.5)


def test_the_median_is_taken_class_by_class_and_ignores_a_stray() -> None:
    labels = [[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]
    # Medians .7, .1, .1 over .9.
    assert MedianPool().fit_predict(labels, [1, 1, 1], [1, 2, 3])[0].tolist() == pytest.approx([7 / 9, 1 / 9, 1 / 9])
    # Of two people the median is the mean.
    assert MedianPool().fit_predict(labels[:2], [1, 1], [1, 2])[0].tolist() == pytest.approx([0.8, 0.15, 0.05])


def test_where_every_median_is_nothing_the_mean_steps_in() -> None:
    labels = np.vstack([np.eye(3), [[0.5, 0.5, 0.0]] * 2])
    found = MedianPool().fit_predict(labels, [1, 1, 1, 2, 2], [1, 2, 3, 1, 2])
    assert found.tolist() == [[pytest.approx(1 / 3)] * 3, [0.5, 0.5, 0.0]]


def test_the_log_pool_is_the_geometric_mean() -> None:
    # sqrt(.8 * .2) against sqrt(.2 * .8); then sqrt(.8 * .5) against sqrt(.2 * .5), twice as much.
    found = LogPool(floor=1e-12).fit_predict([[0.8, 0.2], [0.2, 0.8]], [1, 1], [1, 2])
    assert found[0].tolist() == pytest.approx([0.5, 0.5])
    found = LogPool(floor=1e-12).fit_predict([[0.8, 0.2], [0.5, 0.5]], [1, 1], [1, 2])
    assert found[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_the_floor_keeps_a_zero_from_being_a_veto() -> None:
    labels = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    # (1 - .1) p + .05: .95 and .05; geometric means (.95 * .05 * .05) and (.05 * .95 * .95), cube roots.
    ratio = (0.95 / 0.05) ** (1 / 3)
    found = LogPool(floor=0.1).fit_predict(labels, [1, 1, 1], [1, 2, 3])
    assert found[0].tolist() == pytest.approx([1 / (1 + ratio), ratio / (1 + ratio)])


def test_reliability_weighs_annotators_by_their_agreement_with_the_others() -> None:
    # Three people on two images: 1 and 2 agree, 3 says the opposite.
    labels = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]] * 2
    pool = ReliabilityPool(shrinkage=2.0, strength=1.0).fit(labels, [1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3])
    # Agreements with the mean of the others: .5, .5, 0 on each image, 1/3 overall; (1 + 2/3) / 4 and (2/3) / 4.
    assert pool.annotators_.tolist() == [1, 2, 3]
    assert pool.weights_.tolist() == pytest.approx([5 / 12, 5 / 12, 2 / 12])
    assert pool.soft_labels_[0].tolist() == pytest.approx([10 / 12, 2 / 12])


def test_where_nobody_shares_an_image_reliability_is_the_mean() -> None:
    labels = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert (ReliabilityPool().fit_predict(labels, [1, 2], [1, 2]) == labels).all()


def test_reliability_with_equal_weights_is_the_mean_in_every_bit() -> None:
    labels = np.random.default_rng(2).dirichlet(np.ones(10), size=60)
    images, people = np.divmod(np.arange(60), 6)
    assert (
        ReliabilityPool(strength=0.0).fit_predict(labels, images, people)
        == MeanPool().fit_predict(labels, images, people)
    ).all()


def test_confusion_draws_doubt_to_what_is_confused_elsewhere() -> None:
    # Worked by hand, kappa 3, k 1, no sharpening. Image 1: certain of class 0. Image 2: .5 on 0, .5 on 1.
    labels = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    pool = ConfusionPool(exponent=1.0, prior_weight=1.0, pseudo_count=3.0).fit(labels, [1, 2], [1, 1])
    # C[0] = (1 + .25 + 1, .25 + 1, 1) / 4.5; C[1] = (.25 + 1, .25 + 1, 1) / 3.5; C[2] = uniform.
    expected = [[0.5, 1.25 / 4.5, 1 / 4.5], [1.25 / 3.5, 1.25 / 3.5, 1 / 3.5], [1 / 3] * 3]
    np.testing.assert_allclose(pool.confusion_, expected, rtol=1e-12)
    # One annotator and a prior of one: the middle between the label and what C makes of it.
    np.testing.assert_allclose(pool.soft_labels_[0], (np.array([1, 0, 0]) + expected[0]) / 2, rtol=1e-12)
    of_two = (np.array(expected[0]) + expected[1]) / 2
    np.testing.assert_allclose(pool.soft_labels_[1], (np.array([0.5, 0.5, 0]) + of_two) / 2, rtol=1e-12)
    # Nobody ever named class 2 beside class 0: it gets less than the class 1 that was.
    assert pool.soft_labels_[0, 1] > pool.soft_labels_[0, 2] > 0


def test_with_many_annotators_the_image_speaks_for_itself() -> None:
    many = np.repeat([[0.7, 0.3, 0.0]], 4000, axis=0)
    labels = np.vstack([many, [[0.0, 0.5, 0.5]]])
    images = np.repeat([1, 2], [4000, 1])
    pool = ConfusionPool(exponent=1.0).fit(labels, images, np.arange(4001))
    np.testing.assert_allclose(pool.soft_labels_[0], [0.7, 0.3, 0.0], atol=2e-3)


def test_without_prior_and_sharpening_confusion_is_the_mean() -> None:
    labels = np.random.default_rng(2).dirichlet(np.ones(4), size=30)
    images, people = np.divmod(np.arange(30), 3)
    pool = ConfusionPool(prior_weight=0.0, exponent=1.0)
    np.testing.assert_allclose(
        pool.fit_predict(labels, images, people), MeanPool().fit_predict(labels, images, people), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeanPool(exponent=0.0),
        lambda: MeanPool(exponent=np.inf),
        lambda: LogPool(floor=0.0),
        lambda: LogPool(floor=1.1),
        lambda: ReliabilityPool(shrinkage=0.0),
        lambda: ReliabilityPool(strength=-1.0),
        lambda: ConfusionPool(prior_weight=-1.0),
        lambda: ConfusionPool(prior_weight=np.nan),
        lambda: ConfusionPool(pseudo_count=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Pool]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


# Intervals


def test_intervals_are_those_of_redrawn_annotators() -> None:
    # Two people, certain of different classes: half of the redraws have both, a quarter each one of them alone.
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.6, 0.4], [0.3, 0.7]])
    images, people = [1, 1, 2, 2, 3], [1, 2, 1, 2, 1]
    random = np.random.default_rng(5)
    wide = bootstrap(MeanPool(), labels, images, people, random=random, draws=2000, level=0.9)
    assert wide.images.tolist() == [1, 2, 3]
    assert (wide.low[0].tolist(), wide.high[0].tolist()) == ([0, 0], [1, 1])
    narrow = bootstrap(MeanPool(), labels, images, people, random=random, draws=2000, level=0.3)
    assert (narrow.low[0].tolist(), narrow.high[0].tolist()) == ([0.5, 0.5], [0.5, 0.5])
    np.testing.assert_allclose(wide.low[1], [0.6, 0.4], rtol=1e-12)
    np.testing.assert_allclose(wide.high[1], [0.6, 0.4], rtol=1e-12)
    assert np.isnan([wide.low[2], wide.high[2]]).all()


@pytest.mark.parametrize("pool", [make() for make in POOLS.values()], ids=list(POOLS))
def test_intervals_lie_around_the_label_however_many_images_are_drawn_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(11)
    labels = random.dirichlet(np.ones(4), size=30)
    images, people = np.divmod(np.arange(30), 5)
    found = bootstrap(pool, labels, images, people, random=np.random.default_rng(1), draws=40)
    # Few at a time: other images, other draws, the same distribution; every bound stays around its label.
    monkeypatch.setattr("elicit.labels.aggregation._CHUNK_SIZE", 1)
    split = bootstrap(pool, labels, images, people, random=np.random.default_rng(1), draws=400)
    for intervals in (found, split):
        assert (intervals.low <= pool.soft_labels_ + 1e-12).all()
        assert (intervals.high >= pool.soft_labels_ - 1e-12).all()
    # 40 draws and 400 do not agree better than their own noise.
    assert np.abs(found.low - split.low).mean() < 0.04


def test_the_same_generator_gives_the_same_intervals() -> None:
    labels = np.random.default_rng(2).dirichlet(np.ones(4), size=30)
    images, people = np.divmod(np.arange(30), 5)
    first, second, other = (
        bootstrap(ConfusionPool(), labels, images, people, random=np.random.default_rng(seed), draws=50)
        for seed in (3, 3, 4)
    )
    assert (first.low == second.low).all()
    assert (first.low != other.low).any()


@pytest.mark.parametrize("bad", [{"draws": 1}, {"level": 0.0}, {"level": 1.0}])
def test_intervals_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        bootstrap(MeanPool(), LABELS, IMAGES, PEOPLE, random=np.random.default_rng(1), **bad)


def test_a_recipe_records_the_recommended_way() -> None:
    recipe = Recipe(RECOMMENDED, "confusion")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.digest != Recipe(replace(RECOMMENDED, spread=1.0), "confusion").digest
