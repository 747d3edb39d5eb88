"""How a network fares when every pixel may be moved a little: FGSM and PGD at the settings of Collins et al. 2022.

A few lines each instead of an attack library: none is among what training needs, and a library would bring a
dependency for two formulas. Both move pixels in 0..1 up the gradient of the cross-entropy to ``targets`` by at
most eps in each channel (the infinity norm), and stay within 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data import LabelledImages, as_network_input

EPSILON = 4 / 255
"""Of both attacks."""
STEPS, STEP = 10, 2 / 255
"""Of PGD."""


@dataclass(frozen=True)
class Attacked:
    """Means over the attacked images: cross-entropy to people in nats, and accuracy against the archive's class."""

    images: int
    cross_entropy: float
    accuracy: float


def fgsm(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """One step of EPSILON along the gradient's signs (Goodfellow, Shlens & Szegedy 2015): (B, 3, H, W) in 0..1."""
    return (images + EPSILON * _uphill(model, images, targets)).clamp(0, 1)


def pgd(model: nn.Module, images: Tensor, targets: Tensor, random: torch.Generator) -> Tensor:
    """STEPS steps of STEP from a random start, kept within EPSILON (Madry et al. 2018): (B, 3, H, W) in 0..1."""
    noise = torch.rand(images.shape, generator=random).to(images.device)
    moved = (images + EPSILON * (2 * noise - 1)).clamp(0, 1)
    for _ in range(STEPS):
        moved = moved + STEP * _uphill(model, moved, targets)
        moved = (images + (moved - images).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    return moved


def _uphill(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(model(images), targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient.sign()


def attack(
    model: nn.Module, images: LabelledImages, device: str, *, most: int = 1000, seed: int = 0, batch_size: int = 250
) -> dict[str, Attacked]:
    """``fgsm`` and ``pgd`` on the first ``most`` images, against people's labels; the model's mode is put back after.

    The published code attacked against the archive's class by a slip, and drew the thousand images at random.
    """
    some = images.select(np.arange(min(most, len(images)), dtype=np.int64))
    was_training = model.training
    model.eval()
    random = torch.Generator().manual_seed(seed)
    found: dict[str, list[NDArray[np.float64]]] = {"fgsm": [], "pgd": []}
    for rows in torch.arange(len(some)).split(batch_size):
        inputs = as_network_input(torch.from_numpy(some.pixels[rows.numpy()]).to(device))
        targets = torch.from_numpy(some.soft_labels[rows.numpy()]).float().to(device)
        for name in found:
            moved = fgsm(model, inputs, targets) if name == "fgsm" else pgd(model, inputs, targets, random)
            with torch.inference_mode():
                logits = model(moved)
            right = logits.argmax(dim=1).cpu().numpy() == some.hard_labels[rows.numpy()]
            loss = F.cross_entropy(logits, targets, reduction="none").cpu().double().numpy()
            found[name].append(np.stack([loss, right.astype(np.float64)], axis=1))
    model.train(was_training)
    means = {name: np.concatenate(parts).mean(axis=0) for name, parts in found.items()}
    return {name: Attacked(len(some), float(loss), float(right)) for name, (loss, right) in means.items()}
