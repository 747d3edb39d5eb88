from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elicit.labels import MeanPool

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
