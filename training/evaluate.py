"""How well a network's predictions fit held-out images: the archive's class, and what people said.

Every number here is of images that were not trained on; the caller sees to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from elicit.labels import Refusal, entropy, kl, total_variation
from training.data import LabelledImages, as_network_input

BINS = 10
"""Equal-width bins of confidence, for every calibration figure and for the plot."""

BIN_SIZE = 100
"""Images in a bin of equally many; fewer images make one bin."""

LEAST_FOR_CORRELATION = 3
"""Two points always correlate by 1 or -1."""

LEAST_FOR_INTERVAL = 20
"""Resampling fewer images understates how much another sample would differ."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Held-out images whose confidence lies in [low, high)."""

    low: float
    high: float
    images: int
    confidence: float
    """mean of the predicted classes' probabilities"""
    accuracy: float
    """share whose predicted class is the archive's"""
    people: float
    """mean share that people give to the predicted class"""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``metrics`` by name, None where undefined; ``per_image``: (N,) of those that are means over images."""

    metrics: dict[str, float | None]
    per_image: dict[str, Floats]
    reliability: tuple[Bin, ...]


def predict(model: nn.Module, pixels: NDArray[np.uint8], device: str, batch_size: int = 512) -> Floats:
    """(N, H, W, 3) uint8 -> (N, K) float64 natural log probabilities; the model's mode is put back after.

    Raises Refusal ``training_diverged`` where the model answers with infinity or NaN.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        batches = torch.from_numpy(pixels).split(batch_size)
        logits = torch.cat([model(as_network_input(batch.to(device))).cpu() for batch in batches])
    model.train(was_training)
    if not torch.isfinite(logits).all():
        raise Refusal("training_diverged", "The network answers with infinite numbers: try a lower --lr.")
    return np.asarray(logits.double().log_softmax(dim=1).numpy())


def evaluate(log_probabilities: Floats, images: LabelledImages) -> Evaluation:
    """Score (N, K) natural log probabilities, each row normalised, against the images' labels. N >= 1.

    accuracy            share whose most probable class is the archive's
    top2                share for which the archive's class is among the two most probable
    worst_class         the least accuracy of any class that the archive has among the images
    top_agreement       share whose most probable class is one that people found most likely
    cross_entropy       -sum h log q, nats, h what people said; no less than people's own entropy
    kl                  KL(h || .99 q + .01/K), nats
    total_variation     half of sum |h - q|, 0..1 (Baan et al. 2022 call it the human calibration distance)
    calibration_error   |confidence - accuracy| averaged over BINS, by their images (expected calibration
                        error, Naeini et al. 2015), 0..1, against the archive's class
    calibration_error_rms     the root of the mean square instead
    calibration_error_equal   the root of the mean square over bins of equally many images, BIN_SIZE each, the last
                        taking the rest: the published protocol's, which left that last and surest bin out by a slip
    calibration_error_people  as the first, against the share that people give to the predicted class
    entropy_error       mean |entropy of the prediction - people's| of an image, nats (Baan et al. 2022)
    rank_agreement      share of images whose classes stand in people's order; what people tie may stand
                        either way (Baan et al. 2022)
    confidence          mean probability of the predicted class
    entropy, entropy_people   means, of the predictions and of what people said, nats
    entropy_correlation Pearson's, over the images; None where either does not vary or N < 3
    """
    if log_probabilities.shape != images.soft_labels.shape or not len(images):
        raise ValueError(f"expected {images.soft_labels.shape} and N >= 1, got {log_probabilities.shape}.")
    said, probabilities = images.soft_labels, np.clip(np.exp(log_probabilities), 0.0, 1.0)
    classes = images.hard_labels
    predicted, rows = probabilities.argmax(axis=1), np.arange(len(images))
    confidence, share = probabilities[rows, predicted], said[rows, predicted]
    per_image = {
        "accuracy": (predicted == classes).astype(np.float64),
        "top2": ((probabilities > probabilities[rows, classes][:, np.newaxis]).sum(axis=1) < 2).astype(np.float64),
        "top_agreement": np.isclose(share, said.max(axis=1), rtol=0, atol=1e-12).astype(np.float64),
        "cross_entropy": -(said * log_probabilities).sum(axis=1),
        "kl": kl(said, probabilities),
        "total_variation": total_variation(said, probabilities),
        "confidence": confidence,
        "entropy": entropy(probabilities),
        "entropy_people": entropy(said),
        "entropy_error": np.abs(entropy(probabilities) - entropy(said)),
        "rank_agreement": _in_order(said, probabilities),
    }
    reliability = _reliability(confidence, per_image["accuracy"], share)
    metrics: dict[str, float | None] = {name: float(values.mean()) for name, values in per_image.items()}
    present = np.unique(classes)
    metrics["worst_class"] = min(float(per_image["accuracy"][classes == c].mean()) for c in present)
    metrics["calibration_error"] = _calibration_error(probabilities, images.hard_labels, "l1")
    metrics["calibration_error_rms"] = _calibration_error(probabilities, images.hard_labels, "l2")
    metrics["calibration_error_equal"] = _equal_bins_error(confidence, per_image["accuracy"])
    metrics["calibration_error_people"] = float(
        sum(b.images * abs(b.confidence - b.people) for b in reliability) / len(images)
    )
    metrics["entropy_correlation"] = _correlation(per_image["entropy"], per_image["entropy_people"])
    return Evaluation(metrics=metrics, per_image=per_image, reliability=reliability)


def _calibration_error(probabilities: Floats, classes: NDArray[np.int64], norm: Literal["l1", "l2"]) -> float:
    # The function takes a row outside 0..1 for logits, by a rounding error too: hence the clipping above.
    found = multiclass_calibration_error(
        torch.from_numpy(probabilities),
        torch.from_numpy(classes),
        num_classes=probabilities.shape[1],
        n_bins=BINS,
        norm=norm,
    )
    return float(found)


def _equal_bins_error(confidence: Floats, right: Floats) -> float:
    order = np.argsort(confidence, kind="stable")
    starts = np.arange(max(1, len(order) // BIN_SIZE)) * BIN_SIZE
    counts = np.diff(np.append(starts, len(order)))
    gaps = (np.add.reduceat(confidence[order], starts) - np.add.reduceat(right[order], starts)) / counts
    return float(np.sqrt((counts * np.square(gaps)).sum() / len(order)))


def _in_order(said: Floats, predicted: Floats) -> Floats:
    """(N,) 1 where every class that people find likelier than another is predicted likelier."""
    likelier = said[:, :, np.newaxis] > said[:, np.newaxis, :]
    agrees = predicted[:, :, np.newaxis] > predicted[:, np.newaxis, :]
    return np.asarray((agrees | ~likelier).all(axis=(1, 2)), dtype=np.float64)


def _reliability(confidence: Floats, right: Floats, share: Floats) -> tuple[Bin, ...]:
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in np.unique(place):
        here = place == number
        means = [float(values[here].mean()) for values in (confidence, right, share)]
        bins.append(Bin(number / BINS, (number + 1) / BINS, int(here.sum()), *means))
    return tuple(bins)


def _correlation(a: Floats, b: Floats) -> float | None:
    # Equal values leave a spread of rounding errors, and these would correlate by anything.
    if len(a) < LEAST_FOR_CORRELATION or min(np.ptp(a), np.ptp(b)) < 1e-9:
        return None
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True)
class Difference:
    """One run's metric minus another's on the same images; 95 % of the resampled ones lie in low..high."""

    difference: float | None
    low: float | None
    high: float | None


def compare(ours: Evaluation, theirs: Evaluation, seed: int, draws: int = 2000) -> dict[str, Difference]:
    """ours - theirs for every metric; for means over images also a paired percentile bootstrap.

    The interval says how much other held-out images would change the difference, not another seed.
    It is None with fewer than LEAST_FOR_INTERVAL images and for a metric that is no mean over images.
    """
    gaps = {name: ours.per_image[name] - theirs.per_image[name] for name in ours.per_image}
    table = np.stack(list(gaps.values()), axis=1)
    bounds: dict[str, tuple[float, float]] = {}
    if len(table) >= LEAST_FOR_INTERVAL:
        random = np.random.default_rng(seed)
        means = np.stack([table[random.integers(len(table), size=len(table))].mean(axis=0) for _ in range(draws)])
        low, high = np.quantile(means, (0.025, 0.975), axis=0)
        bounds = {name: (float(low[i]), float(high[i])) for i, name in enumerate(gaps)}
    found = {}
    for name, value in ours.metrics.items():
        other = theirs.metrics[name]
        gap = None if value is None or other is None else value - other
        found[name] = Difference(gap, *bounds.get(name, (None, None)))
    return found
