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
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from elicit.labels import Refusal
from training.config import Config
from training.convolutions import Convolution
from training.data import LabelledImages, as_network_input, hold_out
from training.evaluate import Evaluation, evaluate, predict
from training.label_sets import Targets
from training.models import NETWORKS, parameters_of

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


class Training:
    """A network on its way: the network, its optimiser, and how many epochs it has behind it.

    What is random in an epoch depends on the seed and on the epoch's number, and on nothing before it. So a
    network that is taken up again from ``state`` goes exactly where it would have gone.

    pixels (N, H, W, 3) uint8; targets (N, K), each row a distribution, or Targets that draw them in each epoch.
    In a process group (torchrun) each process takes its share of every batch.
    """

    def __init__(
        self,
        model: nn.Module,
        pixels: NDArray[np.uint8],
        targets: Targets | NDArray[np.float64],
        config: Config,
    ) -> None:
        self.config, self.done = config, 0
        self.device = torch.device(config.device)
        # Convolutions like the channels last.
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # no stub
        for module in self.model.modules():
            if isinstance(module, Convolution):
                # A GPU's kernels have no need of it, and a compiled network is left to the compiler.
                module.as_products = self.device.type == "cpu" and not config.compile
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._network: nn.Module = DistributedDataParallel(self.model) if self.processes > 1 else self.model
        if config.compile:
            self._network.compile()

        # The whole set lives on the device, padded once, so that a random crop is a window of it.
        self._padded = pad(pixels, config.padding).to(self.device)
        self._targets = targets if isinstance(targets, Targets) else Targets(targets)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.schedule == "cosine",
            weight_decay=config.weight_decay,
            # One pass over the weights instead of several: of VGG-11's step on a CPU about a twentieth.
            fused=self.device.type in ("cpu", "cuda", "mps"),
        )
        self._steps = math.ceil(len(pixels) / config.batch_size)
        self._precision = config.precision

    @property
    def precision(self) -> str:
        """What it computes in: bf16 or float32. ``auto`` is decided here, once; in a process group by all together."""
        if self._precision == "auto":
            self._precision = "bf16" if self._is_faster_in_bf16() else "float32"
        return self._precision

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, for torch.save."""
        return {
            "done": self.done,
            "precision": self.precision,  # as decided: where a load was since, ``auto`` might decide otherwise
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self._precision = int(state["done"]), str(state["precision"])

    def epoch(self) -> Epoch:
        """Train for one epoch; the model is in evaluation mode after it. Raises Refusal ``training_diverged``."""
        config, count = self.config, len(self._padded)
        # Drawn on the CPU, whatever the device, and moved at once: every run draws the same numbers.
        random = np.random.default_rng([config.seed, self.done])
        order = torch.from_numpy(random.permutation(count))
        crops = draw_crops(count, config.augmentation, random).to(self.device)
        wanted = torch.from_numpy(self._targets.draw(random)).float().to(self.device)
        total = torch.zeros((), device=self.device)
        rate, in_bf16 = config.lr, self.precision == "bf16"

        self._network.train()
        for step, batch in enumerate(order.split(config.batch_size)):
            if len(batch) < self.processes:
                break  # a few images less than there are processes: none of them could take a mean
            rate = config.lr * self._share(step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            rows = batch[self.rank :: self.processes].to(self.device)
            images = as_network_input(crop(self._padded, rows, crops[rows]))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bf16):
                logits = self._network(images)
            # The targets are distributions. Never add label_smoothing: they are as soft as people are.
            loss = F.cross_entropy(logits.float(), wanted[rows])
            total += loss.detach() * len(rows)
            # Gradients are averaged over processes; an uneven last batch must not weigh its images differently.
            (loss * (len(rows) * self.processes / len(batch))).backward()
            if config.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self._network.eval()
        if self.processes > 1:
            dist.all_reduce(total)
        # Asked once per epoch: to read a number back in each step would make the device wait.
        loss_sum = float(total)
        self.done += 1
        if not math.isfinite(loss_sum):
            raise Refusal("training_diverged", f"The loss is {loss_sum} in epoch {self.done}: try a lower --lr.")
        return Epoch(number=self.done, learning_rate=rate, train_loss=loss_sum / count)

    def _share(self, step: int) -> float:
        """The learning rate's share of its highest, in this step of the epoch that runs."""
        if self.config.schedule == "steps":
            return steps_down(self.done, self.config.epochs)
        return warm_up_then_cosine(self.done * self._steps + step, self.config.epochs * self._steps)

    def _is_faster_in_bf16(self) -> bool:
        """Measured on copies of the network: on many CPUs it is slower by far.

        Of several processes the slowest counts, so that all decide alike.
        """
        batch = as_network_input(self._padded[: self.config.batch_size, CROP:-CROP, CROP:-CROP])
        seconds = torch.zeros(2, device=self.device)
        for wanted in (False, True):
            model = copy.deepcopy(self.model).train()
            for turn in range(4):
                if turn == 1:  # the first one warms up
                    began = time.perf_counter()
                with torch.autocast(self.device.type, torch.bfloat16, enabled=wanted):
                    logits = model(batch)
                logits.float().logsumexp(1).sum().backward()
                float(logits.detach()[0, 0])  # waits for the device
            seconds[int(wanted)] = time.perf_counter() - began
        if self.processes > 1:
            dist.all_reduce(seconds, dist.ReduceOp.MAX)
        float32, bf16 = seconds.tolist()
        return bool(bf16 < 0.9 * float32)


def train(
    model: nn.Module, pixels: NDArray[np.uint8], targets: Targets | NDArray[np.float64], config: Config
) -> Iterator[Epoch]:
    """Train the model in place, yielding after each epoch, with the model in evaluation mode; see Training."""
    training = Training(model, pixels, targets, config)
    while training.done < config.epochs:
        yield training.epoch()


def warm_up_then_cosine(step: int, steps: int) -> float:
    """The learning rate's share of its highest: a line up over the first tenth, a cosine down to 0."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))


def steps_down(done: int, epochs: int) -> float:
    """The published schedule: of 65 epochs 51 at the highest rate, 5 at a tenth of it, the rest at a hundredth."""
    return 1.0 if done < 51 * epochs / 65 else 0.1 if done < 56 * epochs / 65 else 0.01


def pad(pixels: NDArray[np.uint8], padding: str) -> Tensor:
    """(N, H, W, 3) -> (N, H + 2 CROP, W + 2 CROP, 3): each image amid its mirror images, or amid black."""
    edges = ((0, 0), (CROP, CROP), (CROP, CROP), (0, 0))
    return torch.from_numpy(np.pad(pixels, edges, mode="constant" if padding == "zeros" else "reflect"))


def draw_crops(count: int, kind: str, random: np.random.Generator) -> Tensor:
    """(count, 3): row and column where each image's window begins, 0..2 CROP, and whether it is mirrored, 0 or 1."""
    if kind == "none":
        return torch.tensor([[CROP, CROP, 0]]).expand(count, 3)
    return torch.from_numpy(random.integers((2 * CROP + 1, 2 * CROP + 1, 2), size=(count, 3)))


def crop(padded: Tensor, rows: Tensor, crops: Tensor) -> Tensor:
    """Cut each image's window out of its padded image, and mirror some.

    padded (N, H + 2 CROP, W + 2 CROP, 3) uint8; rows (B,); crops (B, 3) as drawn -> (B, H, W, 3) uint8.
    """
    size = padded.shape[1] - 2 * CROP, padded.shape[2] - 2 * CROP
    # Every window of every image, as a view: one gather copies whole windows.
    windows = padded.unfold(1, size[0], 1).unfold(2, size[1], 1).permute(0, 1, 2, 4, 5, 3)
    cut = windows[rows, crops[:, 0], crops[:, 1]]
    return torch.where(crops[:, 2, None, None, None].bool(), cut.flip(2), cut)


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
    Raises Refusal: ``device_missing``, ``too_few_images``, ``training_diverged``, ``setting_invalid``.
    """
    if config.stop_on != "nothing":
        raise Refusal("setting_invalid", "fit reports the last epoch; compare can stop early.")
    require_device(config.device)
    training, held_out = hold_out(images, config.holdout, config.seed)
    with repeatable(config):
        first = NETWORKS[config.network](len(images.categories))
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
        parameters=parameters_of(first),
        runs=runs,
        baselines=baselines_of(training.soft_labels.mean(axis=0), held_out),
    )


def baselines_of(mean: NDArray[np.float64], held_out: LabelledImages) -> dict[str, Evaluation]:
    """What needs no network: every class alike, and the training images' mean label (K,) for every image."""
    k = len(mean)
    guesses = {"uniform": np.full(k, 1 / k), "mean_label": 0.99 * mean + 0.01 / k}
    return {name: evaluate(np.tile(np.log(p), (len(held_out), 1)), held_out) for name, p in guesses.items()}


def require_device(name: str) -> None:
    """Raises Refusal ``device_missing`` unless a number can be put there."""
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
def repeatable(config: Config) -> Iterator[None]:
    """Seeded weights, deterministic kernels, a fixed number of threads; torch is put back as it was."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):  # only the first weights use the global generator, on the CPU
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.deterministic)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)
