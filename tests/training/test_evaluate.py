from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from elicit.labels import Refusal
from training.data import LabelledImages
from training.evaluate import BINS, LEAST_FOR_INTERVAL, compare, evaluate, predict


def images_of(soft: Sequence[Sequence[float]], hard: Sequence[int]) -> LabelledImages:
    n = len(hard)
    return LabelledImages(
        pixels=np.zeros((n, 8, 8, 3), dtype=np.uint8),
        indices=np.arange(n, dtype=np.int64),
        soft_labels=np.array(soft, dtype=np.float64),
        hard_labels=np.array(hard, dtype=np.int64),
        categories=tuple("abcdefgh"[: len(soft[0])]),
        differs=np.zeros(n, dtype=np.bool_),
    )


def random_case(n: int, k: int = 4, seed: int = 0) -> tuple[np.ndarray, LabelledImages]:
    random = np.random.default_rng(seed)
    said = random.dirichlet(np.full(k, 0.5), size=n)
    return np.log(random.dirichlet(np.ones(k), size=n)), images_of(said.tolist(), random.integers(k, size=n).tolist())


def test_the_metrics_are_those_worked_by_hand() -> None:
    images = images_of([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], [0, 2])
    predicted = np.array([[0.8, 0.1, 0.1], [0.2, 0.55, 0.25]])
    found = evaluate(np.log(predicted), images).metrics

    def floored(q: float) -> float:
        return 0.99 * q + 0.01 / 3

    expected = {
        "accuracy": 0.5,
        "top2": 1.0,
        "worst_class": 0.0,
        "top_agreement": 1.0,
        "cross_entropy": (-0.5 * np.log(0.8) - 0.5 * np.log(0.1) - np.log(0.55)) / 2,
        "kl": (0.5 * np.log(0.5 / floored(0.8)) + 0.5 * np.log(0.5 / floored(0.1)) - np.log(floored(0.55))) / 2,
        "total_variation": (0.4 + 0.45) / 2,
        "confidence": (0.8 + 0.55) / 2,
        "calibration_error": (abs(0.8 - 1) + abs(0.55 - 0)) / 2,
        "calibration_error_rms": np.sqrt((0.2**2 + 0.55**2) / 2),
        "calibration_error_equal": abs((0.8 + 0.55) / 2 - 0.5),
        "calibration_error_people": (abs(0.8 - 0.5) + abs(0.55 - 1)) / 2,
        "entropy": -(predicted * np.log(predicted)).sum() / 2,
        "entropy_people": np.log(2) / 2,
        "entropy_error": np.abs(-(predicted * np.log(predicted)).sum(axis=1) - [np.log(2), 0]).mean(),
        "rank_agreement": 0.5,
        "entropy_correlation": None,
    }
    assert found == {name: value if value is None else pytest.approx(value) for name, value in expected.items()}


def test_the_binned_error_of_the_protocol_counts_the_surest_images_too() -> None:
    confidence = np.linspace(0.55, 0.99, 250)
    right = np.arange(250) < 200  # the surest are all wrong
    images = images_of([[1.0, 0.0]] * 250, np.where(right, 0, 1).tolist())
    found = evaluate(np.log(np.stack([confidence, 1 - confidence], axis=1)), images).metrics
    # By hand: bins of the 100 least sure, and of the other 150, the last one taking the rest.
    gaps = [confidence[:100].mean() - 1, confidence[100:].mean() - 100 / 150]
    expected = np.sqrt((100 * gaps[0] ** 2 + 150 * gaps[1] ** 2) / 250)
    assert found["calibration_error_equal"] == pytest.approx(expected)


def test_the_worst_class_is_among_those_that_are_there() -> None:
    images = images_of([[1.0, 0.0, 0.0]] * 4, [0, 0, 1, 1])
    predicted = np.log([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.15, 0.05]])
    found = evaluate(predicted, images).metrics
    assert (found["worst_class"], found["accuracy"], found["top2"]) == (0.5, 0.75, 1.0)


def test_the_order_of_classes_is_people_s_where_only_their_ties_differ() -> None:
    images = images_of([[0.6, 0.4, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]], [0, 0, 0])
    predicted = np.log([[0.5, 0.3, 0.05, 0.15], [0.5, 0.1, 0.2, 0.2], [0.2, 0.6, 0.15, 0.05]])
    assert evaluate(predicted, images).per_image["rank_agreement"].tolist() == [1, 0, 1]


def test_to_predict_what_people_said_is_as_good_as_it_gets() -> None:
    _, images = random_case(50)
    perfect = evaluate(np.log(images.soft_labels), images).metrics
    other = evaluate(random_case(50, seed=1)[0], images).metrics
    assert perfect["cross_entropy"] == pytest.approx(perfect["entropy_people"])
    assert perfect["total_variation"] == pytest.approx(0)
    assert perfect["top_agreement"] == 1
    assert perfect["calibration_error_people"] == pytest.approx(0)
    assert perfect["entropy_correlation"] == pytest.approx(1)
    assert other["cross_entropy"] is not None
    assert other["cross_entropy"] > other["entropy_people"]  # type: ignore[operator]  # a mean, never None


def test_the_bins_of_the_plot_are_those_of_the_calibration_error() -> None:
    log_probabilities, images = random_case(300)
    found = evaluate(log_probabilities, images)
    by_bins = sum(b.images * abs(b.confidence - b.accuracy) for b in found.reliability) / 300
    assert found.metrics["calibration_error"] == pytest.approx(by_bins)
    assert sum(b.images for b in found.reliability) == 300
    assert all(b.low <= b.confidence < b.high for b in found.reliability)
    reference = multiclass_calibration_error(
        torch.from_numpy(np.exp(log_probabilities)), torch.from_numpy(images.hard_labels), 4, n_bins=BINS
    )
    assert by_bins == pytest.approx(float(reference))


def test_a_network_that_is_sure_gives_finite_figures() -> None:
    images = images_of([[1.0, 0.0], [0.0, 1.0], [0.4, 0.6]], [0, 1, 1])
    sure = torch.tensor([[4000.0, 0.0], [4000.0, 0.0], [0.0, 4000.0]]).double().log_softmax(1).numpy()
    found = evaluate(sure, images)
    assert all(value is None or np.isfinite(value) for value in found.metrics.values())
    assert found.metrics["calibration_error"] == pytest.approx(1 / 3)
    assert [b.images for b in found.reliability] == [3]


@pytest.mark.parametrize("varies", ["people", "network", "neither"])
def test_an_entropy_that_does_not_vary_correlates_with_nothing(varies: str) -> None:
    certain, uneven = [[1.0, 0.0]] * 4, [[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.7, 0.3]]
    images = images_of(uneven if varies == "people" else certain, [0, 0, 0, 0])
    predicted = np.array([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.5, 0.5]])
    log_probabilities = np.log(predicted if varies == "network" else np.full((4, 2), 0.5))
    assert evaluate(log_probabilities, images).metrics["entropy_correlation"] is None


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_have_figures_but_no_correlation(n: int) -> None:
    log_probabilities, images = random_case(n)
    metrics = evaluate(log_probabilities, images).metrics
    assert [name for name, value in metrics.items() if value is None] == ["entropy_correlation"]


def test_predictions_of_the_wrong_shape_are_an_error() -> None:
    log_probabilities, images = random_case(5)
    with pytest.raises(ValueError, match=r"expected \(5, 4\)"):
        evaluate(log_probabilities[:, :3], images)


def test_a_difference_is_paired_image_by_image() -> None:
    log_probabilities, images = random_case(200)
    ours = evaluate(log_probabilities, images)
    better = evaluate(np.log(0.99 * np.exp(log_probabilities) + 0.01 * images.soft_labels), images)
    same, gain = compare(ours, ours, seed=0), compare(better, ours, seed=0)
    assert {(d.difference, d.low, d.high) for d in same.values() if d.low is not None} == {(0, 0, 0)}
    found = gain["cross_entropy"]
    assert found.low is not None
    assert found.difference is not None
    assert found.high is not None
    # Small beside the spread over images, but the same way in each of them.
    assert found.low < found.difference < found.high < 0
    assert gain["calibration_error"].difference is not None
    assert gain["calibration_error"].low is None
    assert compare(better, ours, seed=0) == gain


def test_the_interval_covers_about_what_it_says() -> None:
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(60):
        right = random.random((2, 60)) < [[0.7], [0.5]]
        soft = [[1.0, 0.0]] * 60
        a, b = (
            evaluate(np.log(np.where(r[:, np.newaxis], [0.6, 0.4], [0.4, 0.6])), images_of(soft, [0] * 60))
            for r in right
        )
        found = compare(a, b, seed=0, draws=200)["accuracy"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.2 <= found.high
    assert 51 <= covered <= 60


def test_few_images_get_no_interval() -> None:
    log_probabilities, images = random_case(LEAST_FOR_INTERVAL - 1)
    found = compare(evaluate(log_probabilities, images), evaluate(log_probabilities[::-1], images), seed=0)
    assert found["accuracy"].difference is not None
    assert found["accuracy"].low is None
    log_probabilities, images = random_case(LEAST_FOR_INTERVAL)
    found = compare(evaluate(log_probabilities, images), evaluate(log_probabilities[::-1], images), seed=0)
    assert found["accuracy"].low is not None


class Brightness(nn.Module):
    """Answers with the mean of red and of green, and infinity where told."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))[:, :2] * self.factor


def test_predictions_are_log_probabilities_in_the_order_of_the_images() -> None:
    pixels = np.zeros((5, 8, 8, 3), dtype=np.uint8)
    pixels[:, :, :, 0] = np.arange(5)[:, np.newaxis, np.newaxis] * 51
    model = Brightness()
    model.train()
    found = predict(model, pixels, "cpu", batch_size=2)
    red = np.arange(5) / 5
    np.testing.assert_allclose(found[:, 0], red - np.log(np.exp(red) + 1), rtol=1e-6)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    assert model.training


def test_a_network_that_answers_with_infinity_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        predict(Brightness(float("inf")), np.ones((2, 8, 8, 3), dtype=np.uint8), "cpu")
    assert caught.value.code == "training_diverged"
