"""What changed between two releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elicit.labels.errors import Refusal
from elicit.labels.release_files.common import JSON
from elicit.labels.simplex import total_variation

ResponseKey = tuple[str, int, str]
"""(annotator, image, kind)"""

BINS = 20


class Comparable(Protocol):
    """A release as a `ReadRelease` or an `OpenRelease` has it."""

    @property
    def manifest(self) -> dict[str, Any]: ...

    @property
    def categories(self) -> tuple[str, ...]: ...

    @property
    def images(self) -> NDArray[np.int64]: ...

    @property
    def soft_labels(self) -> NDArray[np.float64]: ...

    @property
    def annotators(self) -> NDArray[np.str_]: ...

    @property
    def response_images(self) -> NDArray[np.int64]: ...

    @property
    def kinds(self) -> NDArray[np.str_]: ...


@dataclass(frozen=True, slots=True)
class LabelChange:
    """The pooled label of ``image`` moved by ``total_variation``, 0..1."""

    image: int
    total_variation: float


@dataclass(frozen=True, slots=True)
class ReleaseDifference:
    """From release a to release b.

    ``images_added`` and ``images_removed``: pooled images, rising. ``annotators_...`` and ``responses_...`` as in
    the rows of the responses; a response that comes more often is listed as often. ``labels_changed``: images in
    both whose pooled label is another, the largest change first. ``recipe``: each part that differs, by its path
    (``variety.gamma``), with both values; None where a release has no such part.
    """

    images_added: tuple[int, ...]
    images_removed: tuple[int, ...]
    annotators_added: tuple[str, ...]
    annotators_removed: tuple[str, ...]
    responses_added: tuple[ResponseKey, ...]
    responses_removed: tuple[ResponseKey, ...]
    labels_changed: tuple[LabelChange, ...]
    recipe: dict[str, tuple[JSON, JSON]]

    @property
    def is_empty(self) -> bool:
        """Whether both releases hold the same labels, made from the same responses in the same way."""
        return not any(getattr(self, name) for name in self.__dataclass_fields__)


def diff_releases(a: Comparable, b: Comparable) -> ReleaseDifference:
    """What it takes from release ``a`` to release ``b`` of the same categories; Refusal ``categories_differ``."""
    if a.categories != b.categories:
        raise Refusal("categories_differ", "The releases have different categories, so their labels can't be compared.")
    _, in_a, in_b = np.intersect1d(a.images, b.images, assume_unique=True, return_indices=True)
    before, after = a.soft_labels[in_a], b.soft_labels[in_b]
    changed = np.flatnonzero((before != after).any(axis=1))
    distances = total_variation(before[changed], after[changed]) if len(changed) else np.empty(0)
    moved = a.images[in_a][changed]
    by_size = np.lexsort((moved, -distances))
    annotators_a, annotators_b = set(a.annotators.tolist()), set(b.annotators.tolist())
    responses_added, responses_removed = _responses(a, b)
    recipe_a, recipe_b = _flat(a.manifest.get("recipe")), _flat(b.manifest.get("recipe"))
    return ReleaseDifference(
        images_added=_missing(b.images, a.images),
        images_removed=_missing(a.images, b.images),
        annotators_added=tuple(sorted(annotators_b - annotators_a)),
        annotators_removed=tuple(sorted(annotators_a - annotators_b)),
        responses_added=responses_added,
        responses_removed=responses_removed,
        labels_changed=tuple(
            LabelChange(image, distance)
            for image, distance in zip(moved[by_size].tolist(), distances[by_size].tolist(), strict=True)
        ),
        recipe={
            part: (recipe_a.get(part), recipe_b.get(part))
            for part in sorted(recipe_a.keys() | recipe_b.keys())
            if recipe_a.get(part) != recipe_b.get(part)
        },
    )


def _missing(images: NDArray[np.int64], others: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(np.setdiff1d(images, others).tolist())


def _responses(a: Comparable, b: Comparable) -> tuple[tuple[ResponseKey, ...], tuple[ResponseKey, ...]]:
    """The responses that b has more often than a, and those that a has more often than b."""
    names: dict[str, int] = {}
    kinds: dict[str, int] = {}
    images, places = np.unique(np.concatenate([a.response_images, b.response_images]), return_inverse=True)
    coded = [
        np.array([codes.setdefault(value, len(codes)) for value in values.tolist()], dtype=np.int64)
        for release in (a, b)
        for codes, values in ((names, release.annotators), (kinds, release.kinds))
    ]
    # One number for each response: a million tuples would take a second and 200 MB to count.
    key = (np.concatenate(coded[0::2]) * len(images) + places) * len(kinds) + np.concatenate(coded[1::2])
    distinct, where = np.unique(key, return_inverse=True)
    of_a = len(a.response_images)
    more = np.bincount(where[of_a:], minlength=len(distinct)) - np.bincount(where[:of_a], minlength=len(distinct))
    name_of, kind_of = list(names), list(kinds)

    def decoded(times: NDArray[np.int64]) -> tuple[ResponseKey, ...]:
        found = np.repeat(distinct, np.maximum(times, 0))
        who, kind = found // len(kinds) // len(images), found % len(kinds)
        numbers = images[found // len(kinds) % len(images)].tolist()
        return tuple(
            sorted((name_of[w], i, kind_of[k]) for w, i, k in zip(who.tolist(), numbers, kind.tolist(), strict=True))
        )

    return decoded(more), decoded(-more)


def _flat(value: JSON, path: str = "") -> dict[str, JSON]:
    if not isinstance(value, dict):
        return {path: value}
    return {
        inner: leaf for key, part in value.items() for inner, leaf in _flat(part, f"{path}.{key}".lstrip(".")).items()
    }


def describe(a: Comparable, b: Comparable, *, most: int = 100) -> dict[str, Any]:
    """What changed from release ``a`` to ``b``, as plain JSON; Refusal ``categories_differ``.

    ``counts``: what the manifests count, ``from`` and ``to``; of the images also ``in_both``. ``total_variation``: over
    the images in both, 0 where the label is the same: mean, quantiles, and a histogram of the labels that changed
    (``edges``: one more than ``images``). ``most_changed``: the labels of at most ``most`` images, before and after.
    docs/api.md tells of the rest.
    """
    found = diff_releases(a, b)
    in_both = len(a.images) - len(found.images_removed)
    distances = np.array([change.total_variation for change in found.labels_changed])
    changed = found.labels_changed[:most]
    moved = np.array([change.image for change in changed], dtype=np.int64)
    before = a.soft_labels[np.searchsorted(a.images, moved)]
    after = b.soft_labels[np.searchsorted(b.images, moved)]
    counts_a, counts_b = a.manifest["counts"], b.manifest["counts"]
    counts: dict[str, dict[str, int]] = {
        what: {"from": counts_a[what], "to": counts_b[what]} for what in ("images", "annotators", "responses")
    }
    counts["images"]["in_both"] = in_both
    return {
        "same": found.is_empty,
        "categories": list(a.categories),
        "counts": counts,
        "recipe": [{"part": part, "from": old, "to": new} for part, (old, new) in found.recipe.items()],
        "images_added": list(found.images_added),
        "images_removed": list(found.images_removed),
        "annotators_added": list(found.annotators_added),
        "annotators_removed": list(found.annotators_removed),
        "responses_added": len(found.responses_added),
        "responses_removed": len(found.responses_removed),
        "labels_changed": len(found.labels_changed),
        "total_variation": _distribution(distances, in_both),
        "most_changed": [
            {"image": change.image, "total_variation": change.total_variation, "from": list(old), "to": list(new)}
            for change, old, new in zip(changed, before.tolist(), after.tolist(), strict=True)
        ],
    }


def _distribution(distances: NDArray[np.float64], in_both: int) -> Mapping[str, JSON]:
    """Of the distances that are not 0, among so many."""
    if not in_both:
        return {"mean": None, "median": None, "p90": None, "largest": None, "edges": [], "images": []}
    everywhere = np.zeros(in_both)
    everywhere[: len(distances)] = distances
    largest = float(everywhere.max())
    edges = np.linspace(0.0, next(end for end in (0.05, 0.1, 0.2, 0.5, 1.0) if largest <= end or end == 1.0), BINS + 1)
    median, p90 = np.quantile(everywhere, [0.5, 0.9]).tolist()
    return {
        "mean": float(everywhere.mean()),
        "median": median,
        "p90": p90,
        "largest": largest,
        "edges": [round(edge, 6) for edge in edges.tolist()],
        "images": np.histogram(np.minimum(distances, edges[-1]), edges)[0].tolist(),
    }
