"""A release's labels beside the pixels they were given for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from elicit.archives import (
    CIFAR10_CATEGORIES,
    CifarArchive,
    Split,
    open_cifar10,
    pixel_sha256,
    sample_folder,
)
from elicit.labels import ReadRelease, Refusal


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """N images of one size with two labels each; raises ValueError where the shapes do not fit together."""

    pixels: NDArray[np.uint8]
    """(N, H, W, 3), 0..255"""
    indices: NDArray[np.int64]
    """(N,) places in the archive's split"""
    soft_labels: NDArray[np.float64]
    """(N, K), what people said: the release's pooled labels, each row on the simplex"""
    hard_labels: NDArray[np.int64]
    """(N,) the archive's own class, 0..K-1"""
    categories: tuple[str, ...]
    """K names"""
    differs: NDArray[np.bool_]
    """(N,) whether these pixels are other ones than people saw"""

    def __post_init__(self) -> None:
        n, k = len(self.indices), len(self.categories)
        if self.pixels.ndim != 4 or self.pixels.shape[3] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be (N, H, W, 3) uint8, got {self.pixels.dtype}, {self.pixels.shape}.")
        expected = {"pixels": (n, *self.pixels.shape[1:]), "indices": (n,), "soft_labels": (n, k)}
        expected |= {"hard_labels": (n,), "differs": (n,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, got {getattr(self, name).shape}.")
        if not ((self.hard_labels >= 0) & (self.hard_labels < k)).all():
            raise ValueError(f"hard_labels must lie in 0..{k - 1}.")

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, rows: NDArray[np.int64]) -> LabelledImages:
        """The images at these rows, in this order."""
        return LabelledImages(
            pixels=self.pixels[rows],
            indices=self.indices[rows],
            soft_labels=self.soft_labels[rows],
            hard_labels=self.hard_labels[rows],
            categories=self.categories,
            differs=self.differs[rows],
        )


class SoftLabelDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs for a loop of your own: image (3, H, W) float32 in 0..1, soft label (K,) float32.

    ``transform`` changes an image as it is fetched, so a random one is drawn anew in every epoch.
    """

    def __init__(self, images: LabelledImages, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = as_network_input(torch.from_numpy(self.images.pixels[row][np.newaxis]))[0]
        label = torch.from_numpy(self.images.soft_labels[row]).float()
        return (self.transform(image) if self.transform else image), label


def as_network_input(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in 0..1, channels last in memory (convolutions like it)."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def open_images(choice: str | Path) -> CifarArchive:
    """The archive at a path; the word ``sample`` means the 20 images that an optional package carries.

    Raises Refusal ``sample_missing``, and what open_cifar10 raises.
    """
    if str(choice) != "sample":
        return open_cifar10(Path(choice))
    folder = sample_folder()
    if folder is None:
        raise Refusal("sample_missing", "The sample images are not installed: name an archive.")
    return open_cifar10(folder)


def match_images(release: ReadRelease, archive: CifarArchive, split: Split) -> LabelledImages:
    """The release's images, found in the archive by index, with both labels.

    Other pixels than people saw are let through and marked in ``differs``: copies of CIFAR-10 that went
    through JPEG are common. Raises Refusal: ``categories_differ``, ``images_missing``, ``too_few_images``,
    and what the archive raises.
    """
    require_same_categories(tuple(release.categories))
    if len(release.images) < 2:
        raise Refusal(
            "too_few_images",
            f"The release labels {len(release.images)} image; training needs 2, one of them held out.",
        )
    pixels, labels, indices = archive.load(split)
    missing = release.images[~np.isin(release.images, indices)]
    if len(missing):
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise Refusal(
            "images_missing",
            f"{len(missing)} of the release's {len(release.images)} images are not in the {split} split of "
            f"{archive.origin}: {shown}.",
        )
    by_index = np.argsort(indices)
    rows = by_index[np.searchsorted(indices, release.images, sorter=by_index)]
    seen = zip(pixels[rows], release.image_sha256, strict=True)
    return LabelledImages(
        pixels=pixels[rows],
        indices=np.asarray(release.images, dtype=np.int64),
        soft_labels=np.asarray(release.soft_labels, dtype=np.float64),
        hard_labels=labels[rows],
        categories=tuple(release.categories),
        differs=np.array([pixel_sha256(image) != labelled for image, labelled in seen], dtype=np.bool_),
    )


def require_same_categories(named: tuple[str, ...]) -> None:
    """The archive's classes are numbers: the release must list as many, and not the same ones reordered.

    Raises Refusal ``categories_differ``.
    """
    if len(named) != len(CIFAR10_CATEGORIES):
        raise Refusal(
            "categories_differ",
            f"The release has {len(named)} categories and the archive {len(CIFAR10_CATEGORIES)}: "
            "they are about different images.",
        )
    ours, theirs = [n.casefold() for n in named], [n.casefold() for n in CIFAR10_CATEGORIES]
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise Refusal(
            "categories_differ",
            f"The release lists the archive's categories in another order ({', '.join(named)}), "
            "so the archive's class numbers would mean other classes.",
        )


def hold_out(images: LabelledImages, share: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Training images and held-out ones, drawn by the seed, at least one on each side.

    Images with the very same pixels stay together: a copy on the other side would be training on the test.
    Raises Refusal ``too_few_images`` where there are not two different images.
    """
    # Numbered as they come, so that the split does not depend on the pixels of one copy of the archive.
    number: dict[str, int] = {}
    picture = [number.setdefault(pixel_sha256(image), len(number)) for image in images.pixels]
    pictures = len(number)
    if pictures < 2:
        raise Refusal(
            "too_few_images",
            f"There is {pictures} different image; training needs at least 2, one of them held out.",
        )
    kept_back = min(max(round(share * pictures), 1), pictures - 1)
    held = np.isin(picture, np.random.default_rng(seed).permutation(pictures)[:kept_back])
    return images.select(np.flatnonzero(~held)), images.select(np.flatnonzero(held))
