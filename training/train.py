"""Train one network on people's soft labels and, beside it, on hard ones: the comparison, top to bottom.

Three runs differ in their targets and in nothing else: they start from the same weights and see the same
images, in the same order, cropped and flipped alike.

    soft   what people said: a distribution over the classes
    hard   the archive's own class
    top    the class that people found most likely, as a hard label

Soft labels may help because they are soft, or merely because people chose another class than the archive has.
soft - hard mixes the two; soft - top holds the class fixed and leaves the softness
(Pavlovic, Paun & Poesio 2026, arXiv 2605.18648).

Small on purpose. On 2 CPU threads a thousand images take about a minute for all three runs.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from elicit.labels import Refusal
from training.config import Config
from training.data import LabelledImages, as_network_input, hold_out
from training.evaluate import Evaluation, evaluate, predict
from training.models import SmallConvNet

RUNS = ("soft", "hard", "top")
CROP = 4
"""Pixels by which a crop may shift, each way."""


def targets_of(images: LabelledImages, run: str) -> NDArray[np.float64]:
    """What a run is trained on: (N, K), each row a distribution, one-hot for the hard runs."""
    one_hot = np.eye(len(images.categories))
    if run == "soft":
        return images.soft_labels
    if run == "hard":
        return np.asarray(one_hot[images.hard_labels])
    if run == "top":
        return np.asarray(one_hot[images.soft_labels.argmax(axis=1)])  # a tie goes to the first class
    raise ValueError(f"There is no run named {run!r}.")


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images."""

    number: int
    """1..epochs"""
    learning_rate: float
    """of its last step"""
    train_loss: float
    """mean over its images, in nats, as the weights moved: in-sample, against the run's own targets"""


def train(model: nn.Module, pixels: NDArray[np.uint8], targets: NDArray[np.float64], config: Config) -> Iterator[Epoch]:
    """Train the model in place, yielding after each epoch, with the model in evaluation mode.

    pixels (N, H, W, 3); targets (N, K), each row a distribution. Raises Refusal ``training_diverged``.
    """
    device = torch.device(config.device)
    model.to(device)

    # The whole set lives on the device, padded once, so a random crop is one gather.
    edges = ((0, 0), (CROP, CROP), (CROP, CROP), (0, 0))
    padded = torch.from_numpy(np.pad(pixels, edges, mode="reflect")).to(device)
    wanted = torch.from_numpy(targets).float().to(device)

    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=True,
        weight_decay=config.weight_decay,
    )
    steps = config.epochs * math.ceil(len(pixels) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_up_then_cosine(step, steps))

    # Drawn on the CPU, whatever the device, from a generator of its own: every run draws the same numbers.
    random = torch.Generator().manual_seed(config.seed)

    for number in range(1, config.epochs + 1):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(pixels), generator=random).split(config.batch_size):
            images = as_network_input(augment(padded, rows, config.augmentation, random))
            # The targets are distributions. Never add label_smoothing: they are as soft as people are.
            loss = F.cross_entropy(model(images), wanted[rows.to(device)])
            if not math.isfinite(loss.item()):
                raise Refusal("training_diverged", f"The loss is {loss.item()} in epoch {number}: try a lower --lr.")
            total += loss.item() * len(rows)
            rate = schedule.get_last_lr()[0]
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        model.eval()
        yield Epoch(number=number, learning_rate=float(rate), train_loss=total / len(pixels))


def warm_up_then_cosine(step: int, steps: int) -> float:
    """The learning rate's share of its highest: a line up over the first tenth, a cosine down to 0."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))


def augment(padded: Tensor, rows: Tensor, kind: str, random: torch.Generator) -> Tensor:
    """Cut a window from each image, anywhere within CROP pixels of its place, mirrored half of the time.

    padded (N, H + 2 CROP, W + 2 CROP, 3) uint8; rows (B,) -> (B, H, W, 3) uint8.
    """
    height, width = padded.shape[1] - 2 * CROP, padded.shape[2] - 2 * CROP
    if kind == "none":
        return padded[rows.to(padded.device), CROP : CROP + height, CROP : CROP + width]
    ys = torch.randint(2 * CROP + 1, (len(rows), 1), generator=random) + torch.arange(height)
    xs = torch.randint(2 * CROP + 1, (len(rows), 1), generator=random) + torch.arange(width)
    xs = torch.where(torch.rand(len(rows), 1, generator=random) < 0.5, xs.flip(1), xs)
    rows, ys, xs = (index.to(padded.device) for index in (rows, ys, xs))
    return padded[rows[:, None, None], ys[:, :, None], xs[:, None, :]]


@dataclass(frozen=True)
class Run:
    """One run: how it went, and what the last epoch's network says of the held-out images."""

    name: str
    curve: tuple[tuple[Epoch, Evaluation], ...]
    seconds: float

    @property
    def final(self) -> Evaluation:
        """Of the last epoch, always: to choose the best by the held-out images would be to train on them."""
        return self.curve[-1][1]


@dataclass(frozen=True)
class Comparison:
    """All runs on one split, and what needs no network at all."""

    train: LabelledImages
    held_out: LabelledImages
    parameters: int
    runs: dict[str, Run]
    baselines: dict[str, Evaluation]
    """``uniform``: every class alike. ``mean_label``: for every image the training images' mean soft label."""


def compare_labels(images: LabelledImages, config: Config, say: Callable[[str], None]) -> Comparison:
    """Hold images out, then train and evaluate each run; ``say`` gets a line per epoch.

    On the CPU, the same images and settings give the same numbers on the same machine and version of torch.
    Raises Refusal: ``device_missing``, ``too_few_images``, ``training_diverged``.
    """
    _require_device(config.device)
    training, held_out = hold_out(images, config.holdout, config.seed)
    with _repeatable(config):
        first = SmallConvNet(len(images.categories))
        runs = {}
        for name in RUNS:
            model, curve, began = copy.deepcopy(first), [], time.perf_counter()
            for epoch in train(model, training.pixels, targets_of(training, name), config):
                found = evaluate(predict(model, held_out.pixels, config.device), held_out)
                curve.append((epoch, found))
                say(
                    f"{name:<4} epoch {epoch.number:>{len(str(config.epochs))}}/{config.epochs}"
                    f"  training loss {epoch.train_loss:.3f}"
                    f"  held out: accuracy {found.metrics['accuracy']:.3f},"
                    f" cross-entropy to people {found.metrics['cross_entropy']:.3f}"
                    f"  {time.perf_counter() - began:.1f} s"
                )
            runs[name] = Run(name=name, curve=tuple(curve), seconds=time.perf_counter() - began)
    return Comparison(
        train=training,
        held_out=held_out,
        parameters=sum(p.numel() for p in first.parameters()),
        runs=runs,
        baselines=_baselines(training, held_out),
    )


def _baselines(training: LabelledImages, held_out: LabelledImages) -> dict[str, Evaluation]:
    k = len(held_out.categories)
    mean = training.soft_labels.mean(axis=0)
    guesses = {"uniform": np.full(k, 1 / k), "mean_label": 0.99 * mean + 0.01 / k}
    return {name: evaluate(np.tile(np.log(p), (len(held_out), 1)), held_out) for name, p in guesses.items()}


def _require_device(name: str) -> None:
    try:
        torch.zeros(1, device=torch.device(name))
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # by kind of device
        reason = str(error).partition("\n")[0]
        raise Refusal("device_missing", f"The device {name!r} can't be used here: {reason}") from None


@contextmanager
def _repeatable(config: Config) -> Iterator[None]:
    """Seeded weights, deterministic kernels, a fixed number of threads; torch is put back as it was."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):  # only the first weights use the global generator, on the CPU
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)
