"""What a release looks like as a whole: how settled its images are, and what is mixed up with what."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from elicit.labels.simplex import entropy

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Numbers of the (N, K) labels that are in memory at a time.
AT_ONCE = 1 << 20


class Labelled(Protocol):
    """N images with pooled labels in K categories, as an `OpenRelease` or a `ReadRelease`."""

    @property
    def soft_labels(self) -> Floats: ...

    @property
    def counts(self) -> Integers: ...


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """Of N images in K categories.

    ``entropy`` (N,) of the pooled labels, in nats: 0 for one certain class, log K for all alike. ``top`` (N,) the
    most likely category, the first of equals. ``annotators`` (N,) pooled. ``top_images`` (K,) how many images have
    each category as their most likely. ``mean_labels`` (K, K): row i is the mean pooled label of the images whose
    most likely category is i, nan where there is none; a row sums to 1.
    """

    entropy: Floats
    top: Integers
    annotators: Integers
    top_images: Integers
    mean_labels: Floats

    @classmethod
    def of(cls, release: Labelled) -> Self:
        """Read through the labels once, a bounded number at a time."""
        images, categories = release.soft_labels.shape
        entropies, top = np.empty(images), np.empty(images, dtype=np.int64)
        sums = np.zeros((categories, categories))
        for rows in _slices(images, categories):
            labels = np.asarray(release.soft_labels[rows])
            entropies[rows] = entropy(labels)
            likeliest = top[rows] = labels.argmax(axis=1)
            by_class = np.argsort(likeliest, kind="stable")
            present, starts = np.unique(likeliest[by_class], return_index=True)
            sums[present] += np.add.reduceat(labels[by_class], starts, axis=0)
        top_images = np.bincount(top, minlength=categories).astype(np.int64)
        with np.errstate(invalid="ignore"):
            mean_labels = np.asarray(sums / top_images[:, None])
        return cls(entropies, top, release.counts, top_images, mean_labels)

    def to_bytes(self) -> bytes:
        """An .npz file."""
        out = io.BytesIO()
        np.savez(out, **{field.name: getattr(self, field.name) for field in fields(self)})
        return out.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """What ``to_bytes`` made."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as saved:
            return cls(**{field.name: saved[field.name] for field in fields(cls)})

    def pairs(self, most: int) -> list[tuple[int, int, float]]:
        """(i, j, share): j is the class that images of i leave most to, of all pairs i != j; the largest first."""
        shares = np.where(np.isnan(self.mean_labels), 0.0, self.mean_labels)
        np.fill_diagonal(shares, 0.0)
        order = np.argsort(-shares, axis=None, kind="stable")[:most]
        found = [(int(place) // len(shares), int(place) % len(shares)) for place in order]
        return [(i, j, float(shares[i, j])) for i, j in found if shares[i, j] > 0]

    def most_mixed(self, most: int) -> list[int]:
        """At most so many categories, in their order: those that take part in the strongest pairs."""
        categories = len(self.top_images)
        if categories <= most:
            return list(range(categories))
        shares = np.where(np.isnan(self.mean_labels), 0.0, self.mean_labels)
        np.fill_diagonal(shares, 0.0)
        strength = np.maximum(shares.max(axis=0), shares.max(axis=1))
        return sorted(np.argsort(-strength, kind="stable")[:most].tolist())


def _slices(images: int, categories: int) -> Iterator[slice]:
    step = max(1, AT_ONCE // categories)
    return (slice(start, min(start + step, images)) for start in range(0, images, step))
