"""The files of a release: the only package that knows their formats.

A release is a flat directory of data files and a ``manifest.json`` that is written last and holds the sha256 of
each of them. The bytes are a function of the arguments alone: no clock, no host, no path. What each file holds
is told in docs/release-format.md; ``building`` says how they come about in little memory, and in spite of kills.
"""

from __future__ import annotations

from elicit.labels.aggregation import POOLS
from elicit.labels.release_files.building import write_release
from elicit.labels.release_files.columns import KINDS, ReleasedResponse, ResponseColumns
from elicit.labels.release_files.common import (
    CIFAR10S,
    CIFAR10S_ANSWERS,
    FORMAT,
    FORMAT_VERSION,
    JSON,
    MANIFEST,
    RESPONSES_CSV,
    RESPONSES_JSONL,
    SOFT_LABELS_CSV,
    Progress,
)
from elicit.labels.release_files.differences import (
    Comparable,
    LabelChange,
    ReleaseDifference,
    describe,
    diff_releases,
)
from elicit.labels.release_files.opened import OpenRelease, PooledImage
from elicit.labels.release_files.packing import zip_release
from elicit.labels.release_files.reading import ReadRelease, read_release
from elicit.labels.release_files.recipe import Recipe

__all__ = [
    "CIFAR10S",
    "CIFAR10S_ANSWERS",
    "FORMAT",
    "FORMAT_VERSION",
    "JSON",
    "KINDS",
    "MANIFEST",
    "POOLS",
    "RESPONSES_CSV",
    "RESPONSES_JSONL",
    "SOFT_LABELS_CSV",
    "Comparable",
    "LabelChange",
    "OpenRelease",
    "PooledImage",
    "Progress",
    "ReadRelease",
    "Recipe",
    "ReleaseDifference",
    "ReleasedResponse",
    "ResponseColumns",
    "describe",
    "diff_releases",
    "read_release",
    "write_release",
    "zip_release",
]
