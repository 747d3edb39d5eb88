from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.labels import Refusal, cifar10h


def test_counts_become_shares(tmp_path: Path) -> None:
    np.save(tmp_path / "counts.npy", np.array([[1, 3, 0], [0, 0, 0], [2, 0, 0]]))
    found = cifar10h.read(tmp_path / "counts.npy")
    assert found[0].tolist() == [0.25, 0.75, 0.0]
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [1.0, 0.0, 0.0]


def test_shares_come_back_bit_for_bit_with_nothing_between(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).dirichlet(np.ones(4), size=3)
    cifar10h.write_probs(tmp_path / "probs.npy", [7, 0, 2], labels, size=10)
    found = cifar10h.read(tmp_path / "probs.npy")
    assert found.shape == (10, 4)
    assert (found[[7, 0, 2]] == labels).all()
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == [1, 3, 4, 5, 6, 8, 9]
    assert list(tmp_path.iterdir()) == [tmp_path / "probs.npy"]


def test_votes_are_counted_where_they_fell(tmp_path: Path) -> None:
    cifar10h.write_counts(tmp_path / "counts.npy", [5, 2, 5, 5], [0, 1, 2, 0], categories=3)
    written = np.load(tmp_path / "counts.npy")
    assert written.dtype == np.int64
    assert written.tolist() == [[0, 0, 0]] * 2 + [[0, 1, 0]] + [[0, 0, 0]] * 2 + [[2, 0, 1]]
    assert cifar10h.read(tmp_path / "counts.npy")[5].tolist() == [pytest.approx(2 / 3), 0, pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.ones(3), "no table"),
        (np.ones((3, 1)), "no table"),
        (np.array([["a", "b"]]), "not numbers"),
        (np.array([[0.5, 0.6]]), "sum to 1"),
        (np.array([[0.5, math.nan]]), "nan"),
        (np.array([[1, -1]]), "negative"),
    ],
)
def test_a_table_that_is_no_reference_is_refused(tmp_path: Path, values: Any, match: str) -> None:
    np.save(tmp_path / "probs.npy", values)
    with pytest.raises(Refusal, match=match) as caught:
        cifar10h.read(tmp_path / "probs.npy")
    assert caught.value.code == "reference_unreadable"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "probs.npy").write_text("hello", encoding="utf-8")
    for name in ("probs.npy", "absent.npy"):
        with pytest.raises(Refusal, match="can't be read"):
            cifar10h.read(tmp_path / name)


@pytest.mark.parametrize(
    ("images", "size", "match"),
    [([0, 0], None, "twice"), ([0, 5], 5, "outside 0..4"), ([-1, 2], None, "outside"), ([0], None, "must be")],
)
def test_images_that_have_no_row_are_refused(tmp_path: Path, images: Any, size: int | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        cifar10h.write_probs(tmp_path / "probs.npy", images, [[0.5, 0.5], [1.0, 0.0]], size=size)
    assert list(tmp_path.iterdir()) == []


def test_a_vote_for_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.2"):
        cifar10h.write_counts(tmp_path / "counts.npy", [1], [3], categories=3)


def test_the_comparison_worked_by_hand() -> None:
    labels, reference = [[0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    found = cifar10h.against(labels, reference)
    assert found.images == 2
    assert found.total_variation == pytest.approx((0.5 + 1) / 2)
    # Floored: .99 q + .005.
    assert found.kl == pytest.approx((math.log(1 / 0.5) + math.log(1 / 0.005)) / 2)
    assert found.js == pytest.approx(
        (0.5 * (math.log(1 / 0.75) + 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)) + math.log(2)) / 2
    )
    assert found.entropy == pytest.approx(math.log(2) / 2)
    assert found.reference_entropy == 0
    assert found.entropy_correlation is None
    # .5 and .5: the first class counts as the most probable.
    assert found.accuracy == 0.5


def test_entropies_that_rise_together_correlate() -> None:
    labels = [[1.0, 0.0], [0.8, 0.2], [0.5, 0.5]]
    assert cifar10h.against(labels, labels).entropy_correlation == pytest.approx(1.0)
    assert cifar10h.against(labels, labels[::-1]).entropy_correlation == pytest.approx(
        np.corrcoef([0, 0.5004, 0.6931], [0.6931, 0.5004, 0])[0, 1], abs=1e-3
    )


def test_labels_of_other_shapes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="one shape"):
        cifar10h.against([[0.5, 0.5]], [[0.5, 0.25, 0.25]])
    with pytest.raises(ValueError, match="one shape"):
        cifar10h.against(np.empty((0, 2)), np.empty((0, 2)))


def test_the_published_counts_and_shares_agree(shared_data: Path) -> None:
    counts = cifar10h.read(shared_data / "cifar10h" / "cifar10h-counts.npy")
    shares = cifar10h.read(shared_data / "cifar10h" / "cifar10h-probs.npy")
    assert counts.shape == shares.shape == (10_000, 10)
    np.testing.assert_allclose(counts, shares, rtol=0, atol=1e-6)
