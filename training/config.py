"""Every setting of a training run. No torch here, so that the command line can explain itself without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elicit.archives import Split
from elicit.labels import Refusal

CHOICES: dict[str, tuple[str, ...]] = {
    "network": ("small", "vgg11", "resnet18", "resnet34a"),
    "schedule": ("cosine", "steps"),
    "augmentation": ("crop+flip", "none"),
    "padding": ("reflect", "zeros"),
    "precision": ("float32", "bf16", "auto"),
    "stop_on": ("nothing", "validation", "train-split"),
    "split": ("test", "train"),
}


def _choice(name: str, default: str, said: str) -> Any:
    return field(default=default, metadata={"help": said, "choices": CHOICES[name]})


@dataclass(frozen=True)
class Config:
    """The settings of a comparison; each field is a flag of ``python -m training fit`` and ``compare``.

    Raises Refusal ``setting_invalid`` for a value out of range.
    """

    network: str = _choice("network", "small", "small, or one of the published protocol's")
    epochs: int = field(default=40, metadata={"help": "passes over the training images"})
    batch_size: int = field(default=64, metadata={"help": "images per step, over all processes"})
    lr: float = field(default=0.05, metadata={"help": "highest learning rate"})
    schedule: str = _choice(
        "schedule",
        "cosine",
        "cosine warms up over a tenth of the steps, then falls to 0, with Nesterov momentum; steps divides the rate "
        "by 10 after 51/65 and 56/65 of the epochs, with plain momentum",
    )
    momentum: float = field(default=0.9, metadata={"help": "share of the last step that goes on, 0..1"})
    weight_decay: float = field(default=5e-3, metadata={"help": "pull of the weights towards zero"})
    clip: float = field(default=0.0, metadata={"help": "longest gradient, longer ones are shortened; 0 lets all pass"})
    augmentation: str = _choice("augmentation", "crop+flip", "drawn anew for each image in each epoch")
    padding: str = _choice("padding", "reflect", "what a crop shows beyond an image's edge: its mirror image, or black")
    stop_on: str = _choice(
        "stop_on",
        "nothing",
        "stop early by accuracy on: validation, a tenth of the training images, or train-split, 30%% of the archive's "
        "other images; then the best epoch's network counts. Never the held-out images",
    )
    patience: int = field(default=5, metadata={"help": "epochs without a better accuracy before it stops early"})
    holdout: float = field(default=0.3, metadata={"help": "share of the images kept for evaluation, 0..1"})
    seed: int = field(default=0, metadata={"help": "of the split, first weights, batches and crops"})
    split: Split = field(
        default="test", metadata={"help": "where in the archive the images are", "choices": CHOICES["split"]}
    )
    side: int = field(default=32, metadata={"help": "pixels of an image's side; others are cut square and scaled"})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1, mps"})
    threads: int = field(default=2, metadata={"help": "CPU threads; the last digits of the figures depend on it"})
    precision: str = _choice(
        "precision", "float32", "auto takes bf16 where a few steps on this device are faster in it"
    )
    compile: bool = field(
        default=False, metadata={"help": "let torch compile the network: minutes first, faster after"}
    )
    deterministic: bool = field(default=True, metadata={"help": "same figures from same settings on one machine"})

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "must be at least 1"),
            "batch_size": (self.batch_size >= 1, "must be at least 1"),
            "lr": (0 < self.lr < math.inf, "must be above 0"),
            "momentum": (0 < self.momentum < 1, "must lie between 0 and 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "must be 0 or more"),
            "clip": (0 <= self.clip < math.inf, "must be 0 or more"),
            "patience": (self.patience >= 1, "must be at least 1"),
            "holdout": (0 < self.holdout < 1, "must lie between 0 and 1"),
            "seed": (0 <= self.seed < 2**63, "must be 0 or more"),
            "side": (32 <= self.side <= 1024, "must lie in 32..1024"),
            "threads": (self.threads >= 1, "must be at least 1"),
            **{
                name: (getattr(self, name) in choices, f"must be one of {', '.join(choices)}")
                for name, choices in CHOICES.items()
            },
        }
        broken = {name: rule for name, (kept, rule) in rules.items() if not kept}
        if broken:
            sentence = "; ".join(f"{name} {rule}" for name, rule in broken.items())
            raise Refusal("setting_invalid", f"The settings can't be used: {sentence}.", broken)


PRESETS: dict[str, Mapping[str, Any]] = {
    "laptop": {},
    # Collins, Bhatt & Weller 2022, after Uma et al. 2020.
    "protocol": {
        "network": "vgg11",
        "epochs": 65,
        "batch_size": 32,
        "lr": 0.1,
        "schedule": "steps",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "clip": 1.0,
        "padding": "zeros",
    },
}
"""Settings by name; what the command line says goes over them."""
