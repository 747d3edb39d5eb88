"""What a training run may be asked for. The words of `training` that need no torch; the networks are elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Final

from elicit.labels.varieties import Depth, Redistribution
from exports.errors import ExportError
from training.config import CHOICES, Config
from training.label_sets import FROM_PEOPLE, PLAIN, LabelSet, label_sets_of

MOST_OTHERS = 5
MOST_RUNS = 1000
NETWORKS: Final = CHOICES["network"]
VOTES = "h"

NO_TORCH: Final = (
    "Training needs PyTorch, which is not installed here: `make training` installs it, and so does "
    "`pip install -r requirements/training.txt -r requirements/torch.txt`. In Compose, "
    "`docker compose --profile training up -d --build trainer` starts a worker that has it."
)

_SAID: Final = {
    "hard": "the archive’s own class",
    "smooth": "the archive’s class, a tenth of it spread over all classes",
    "uniform": "the same share for every class: nothing, to see what that does",
    "random": "a random label: nothing, to see what that does",
    "recommended": "the recommended recipe of the answers",
    "simselect2": "half a vote for each of the two likeliest classes",
    "released": "the release’s own pooled labels",
}
_DEPTHS: Final = {
    Depth.T1: "the likeliest category",
    Depth.T2: "the two likeliest",
    Depth.TALL: "all that are named",
}
_RESTS: Final = {
    Redistribution.CLAMP: "the rest to those not ruled out",
    Redistribution.UNIFORM: "the rest to all others",
    Redistribution.NONE: "scaled to 100 %",
}


def has_torch() -> bool:
    """Whether this Python could train. Looks, and imports nothing."""
    return importlib.util.find_spec("torch") is not None


def offered(*, reference: bool) -> list[tuple[str, str]]:
    """Label sets by name, each with what it is; with the dataset's own distributions where there are such."""
    named = [(name, f"{name}: {_SAID[name]}") for name in ("hard", "smooth", "released", "recommended")]
    named += [
        (f"{depth}-{rest}", f"{depth}-{rest}: {_DEPTHS[depth]}, {_RESTS[rest]}")
        for depth in Depth
        for rest in Redistribution
    ]
    rest = [name for name in (*FROM_PEOPLE, *PLAIN) if name not in dict(named)]
    named += [(name, f"{name}: {_SAID[name]}") for name in rest]
    return [*named, (VOTES, "h: the dataset’s own distributions")] if reference else named


DEFAULT_SETS: Final = ("hard", "smooth", "released", "recommended")


def planned(names: Sequence[str], annotators: str) -> tuple[LabelSet, ...]:
    """The label sets that a run trains on, for each number of annotators, without those of other releases.

    Raises:
        Refusal: ``label_set_unknown`` or what a variety raises; ExportError ``label_sets_missing``.
    """
    if not names:
        raise ExportError("label_sets_missing", "Choose at least one label set.")
    return label_sets_of(",".join(names), annotators)


def runs_of(names: Sequence[str], annotators: str, seeds: int, others: int) -> int:
    """How many networks are trained: label sets, and one for the labels of each other release, times seeds."""
    return (len(planned(names, annotators)) + others) * seeds


def check(
    *, names: Sequence[str], annotators: str, seeds: int, network: str, epochs: int, holdout: float, others: int
) -> None:
    """Raises Refusal where `training` would: ``setting_invalid``, ``label_set_unknown``, ``too_many_runs``,
    ``label_sets_missing``."""
    Config(network=network, epochs=epochs, holdout=holdout)
    if seeds < 1:
        raise ExportError("setting_invalid", "There is at least one seed.")
    runs = runs_of(names, annotators, seeds, others)
    if runs > MOST_RUNS:
        raise ExportError("too_many_runs", f"That makes {runs:,} runs; at most {MOST_RUNS:,} are done at once.")


def label_names(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """What `training compare` is asked for: the label sets, and the own labels of each other release by its name."""
    # Distributions without votes can't be sampled: all of them, whatever the numbers of annotators.
    return [f"{VOTES}@all" if name == VOTES else name for name in names] + [f"released:{name}" for name in others]
