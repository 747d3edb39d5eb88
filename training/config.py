"""Every setting of a training run. No torch here, so that the command line can explain itself without it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from elicit.archives import Split
from elicit.labels import Refusal


@dataclass(frozen=True)
class Config:
    """The settings of one comparison; each field is a flag of ``python -m training fit``.

    Raises Refusal ``setting_invalid`` for a value out of range.
    """

    epochs: int = field(default=40, metadata={"help": "passes over the training images"})
    batch_size: int = field(default=64, metadata={"help": "images per step"})
    lr: float = field(default=0.05, metadata={"help": "highest learning rate: warms up, then falls as a cosine"})
    momentum: float = field(default=0.9, metadata={"help": "Nesterov momentum, 0..1"})
    weight_decay: float = field(default=5e-3, metadata={"help": "pull of the weights towards zero"})
    augmentation: str = field(
        default="crop+flip",
        metadata={"help": "drawn anew for each image in each epoch", "choices": ("crop+flip", "none")},
    )
    holdout: float = field(default=0.3, metadata={"help": "share of the images kept for evaluation, 0..1"})
    seed: int = field(default=0, metadata={"help": "of the split, first weights, batches and crops"})
    split: Split = field(
        default="test", metadata={"help": "where in the archive the images are", "choices": ("test", "train")}
    )
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1, mps"})
    threads: int = field(default=2, metadata={"help": "CPU threads; the last digits of the figures depend on it"})

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "must be at least 1"),
            "batch_size": (self.batch_size >= 1, "must be at least 1"),
            "lr": (0 < self.lr < math.inf, "must be above 0"),
            "momentum": (0 < self.momentum < 1, "must lie between 0 and 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "must be 0 or more"),
            "augmentation": (self.augmentation in ("crop+flip", "none"), "must be crop+flip or none"),
            "holdout": (0 < self.holdout < 1, "must lie between 0 and 1"),
            "seed": (0 <= self.seed < 2**63, "must be 0 or more"),
            "split": (self.split in ("test", "train"), "must be test or train"),
            "threads": (self.threads >= 1, "must be at least 1"),
        }
        broken = {name: rule for name, (kept, rule) in rules.items() if not kept}
        if broken:
            sentence = "; ".join(f"{name} {rule}" for name, rule in broken.items())
            raise Refusal("setting_invalid", f"The settings can't be used: {sentence}.", broken)
