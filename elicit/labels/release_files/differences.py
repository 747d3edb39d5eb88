"""What changed between two releases."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elicit.labels.errors import Refusal
from elicit.labels.release_files.common import JSON
from elicit.labels.release_files.reading import ReadRelease
from elicit.labels.simplex import total_variation

ResponseKey = tuple[str, int, str]
"""(annotator, image, kind)"""


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


def diff_releases(a: ReadRelease, b: ReadRelease) -> ReleaseDifference:
    """What it takes from release ``a`` to release ``b`` of the same categories; Refusal ``categories_differ``."""
    if a.categories != b.categories:
        raise Refusal("categories_differ", "The releases have different categories, so their labels can't be compared.")
    _, in_a, in_b = np.intersect1d(a.images, b.images, assume_unique=True, return_indices=True)
    before, after = a.soft_labels[in_a], b.soft_labels[in_b]
    changed = np.flatnonzero((before != after).any(axis=1))
    distances = total_variation(before[changed], after[changed]) if len(changed) else np.empty(0)
    by_size = np.lexsort((a.images[in_a][changed], -distances))
    said_a, said_b = _responses(a), _responses(b)
    recipe_a, recipe_b = _flat(a.manifest.get("recipe")), _flat(b.manifest.get("recipe"))
    return ReleaseDifference(
        images_added=_missing(b.images, a.images),
        images_removed=_missing(a.images, b.images),
        annotators_added=tuple(sorted(set(b.annotators.tolist()) - set(a.annotators.tolist()))),
        annotators_removed=tuple(sorted(set(a.annotators.tolist()) - set(b.annotators.tolist()))),
        responses_added=tuple(sorted((said_b - said_a).elements())),
        responses_removed=tuple(sorted((said_a - said_b).elements())),
        labels_changed=tuple(
            LabelChange(int(a.images[in_a][changed[place]]), float(distances[place])) for place in by_size
        ),
        recipe={
            part: (recipe_a.get(part), recipe_b.get(part))
            for part in sorted(recipe_a.keys() | recipe_b.keys())
            if recipe_a.get(part) != recipe_b.get(part)
        },
    )


def _missing(images: NDArray[np.int64], others: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(np.setdiff1d(images, others).tolist())


def _responses(release: ReadRelease) -> Counter[ResponseKey]:
    return Counter(
        zip(release.annotators.tolist(), release.response_images.tolist(), release.kinds.tolist(), strict=True)
    )


def _flat(value: JSON, path: str = "") -> dict[str, JSON]:
    if not isinstance(value, dict):
        return {path: value}
    return {
        inner: leaf for key, part in value.items() for inner, leaf in _flat(part, f"{path}.{key}".lstrip(".")).items()
    }
