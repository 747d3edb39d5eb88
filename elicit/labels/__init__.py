"""The mathematics of Elicit: answers, soft labels, pools, releases. Standard library and numpy only."""

from __future__ import annotations

from elicit.labels.aggregation import (
    POOLS,
    ConfusionPool,
    Intervals,
    LogPool,
    MeanPool,
    MedianPool,
    Pool,
    ReliabilityPool,
    bootstrap,
)
from elicit.labels.categories import CategorySet
from elicit.labels.consistency import RULE_VERSION, RepeatComparison, Verdict, compare, judge
from elicit.labels.elicited import AnswerRules, Contradiction, Elicited, check
from elicit.labels.errors import Refusal
from elicit.labels.release_files import (
    JSON,
    ReadRelease,
    Recipe,
    ReleasedResponse,
    read_release,
    write_release,
    zip_release,
)
from elicit.labels.simplex import check_simplex, entropy, hellinger, js, kl, normalise, total_variation
from elicit.labels.varieties import RECOMMENDED, Answers, Depth, LabelVariety, Redistribution

__all__ = [
    "JSON",
    "POOLS",
    "RECOMMENDED",
    "RULE_VERSION",
    "AnswerRules",
    "Answers",
    "CategorySet",
    "ConfusionPool",
    "Contradiction",
    "Depth",
    "Elicited",
    "Intervals",
    "LabelVariety",
    "LogPool",
    "MeanPool",
    "MedianPool",
    "Pool",
    "ReadRelease",
    "Recipe",
    "Redistribution",
    "Refusal",
    "ReleasedResponse",
    "ReliabilityPool",
    "RepeatComparison",
    "Verdict",
    "bootstrap",
    "check",
    "check_simplex",
    "compare",
    "entropy",
    "hellinger",
    "js",
    "judge",
    "kl",
    "normalise",
    "read_release",
    "total_variation",
    "write_release",
    "zip_release",
]
