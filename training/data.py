"""A release's labels beside the pixels they were given for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from elicit.archives import Cifar, CifarArchive, Split, open_cifar, pixel_sha256, sample_folder
from elicit.folders import SUFFIXES, Limits, Problem, Source, Unusable, open_source, plan, take
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


_SHARP = PIL.Image.Resampling.LANCZOS


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


def open_images(choice: str | Path) -> CifarArchive | Source:
    """The archive at a path: CIFAR-10 or CIFAR-100 in any form, else a folder, zip or tar of images.

    The word ``sample`` means the 20 images that an optional package carries. Raises Refusal ``sample_missing``, and
    what open_cifar raises.
    """
    if str(choice) == "sample":
        folder = sample_folder()
        if folder is None:
            raise Refusal("sample_missing", "The sample images are not installed: name an archive.")
        return open_cifar(folder)
    path = Path(choice)
    try:
        return open_cifar(path)
    except Refusal as refusal:
        if refusal.code != "archive_unreadable":
            raise
        found = open_source(path)
        try:
            if not any(PurePosixPath(member.name).suffix.casefold() in SUFFIXES for member in found.members()):
                raise refusal
        except Refusal:
            # Of a spoilt tar of CIFAR-10 the first word is the right one.
            raise refusal from None
        return found


@dataclass(frozen=True, eq=False)
class Found:
    """The n wanted images, in the order in which they were wanted."""

    pixels: NDArray[np.uint8]
    """(n, side, side, 3)"""
    classes: NDArray[np.int64]
    """(n,) the archive's own class, 0..K-1, or -1 where it has none"""
    differs: NDArray[np.bool_]
    """(n,) whether these pixels are other ones than people saw"""


def find_images(
    archive: CifarArchive | Source,
    wanted: NDArray[np.int64],
    sha256: Mapping[int, str],
    categories: tuple[str, ...],
    split: Split,
    side: int,
) -> Found:
    """Images ``wanted`` (n,) by number, of K ``categories``, scaled to ``side`` pixels.

    In CIFAR an image is found by its place in the ``split``. Other pixels than people saw (``sha256`` by image, as
    pixel_sha256 makes them) are let through there and marked: copies that went through JPEG are common. Elsewhere
    nothing but the pixels tells which image a file is. Raises Refusal: ``categories_differ``, ``images_missing``, and
    what the archive raises.
    """
    if isinstance(archive, Source):
        return _found_by_pixels(archive, wanted, sha256, categories, side)
    require_same_categories(categories, archive.cifar)
    pixels, classes, indices = archive.load(split)
    _require_all(wanted, np.isin(wanted, indices), f"the {split} split of {archive.origin}")
    order = np.argsort(indices)
    rows = order[np.searchsorted(indices, wanted, sorter=order)]
    seen = zip(wanted.tolist(), pixels[rows], strict=True)
    differs = [image in sha256 and pixel_sha256(picture) != sha256[image] for image, picture in seen]
    return Found(_scaled(pixels[rows], side), classes[rows], np.array(differs, dtype=np.bool_))


def _found_by_pixels(
    source: Source, wanted: NDArray[np.int64], sha256: Mapping[int, str], categories: tuple[str, ...], side: int
) -> Found:
    limits = Limits()
    planned = {each.key: each for each in plan(source, limits=limits, categories=categories).images}
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(wanted.tolist()):
        if image in sha256:
            rows.setdefault(sha256[image], []).append(row)
    pixels = np.zeros((len(wanted), side, side, 3), dtype=np.uint8)
    classes, here = np.full(len(wanted), -1, dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    for key, content in source.read(planned, limits.file):
        if isinstance(content, Problem):
            continue  # missed below, if it is one of ours
        try:
            picture = take(content, limits).pixels
        except Unusable:
            continue
        category = planned[key].category
        # Of images that are alike to the pixel each takes a file of its own, as long as there are such.
        for row in [row for row in rows.get(pixel_sha256(picture), []) if not here[row]][:1]:
            pixels[row] = _scaled(picture[np.newaxis], side)[0]
            classes[row] = -1 if category is None else category
            here[row] = True
    for alike in rows.values():
        if here[alike].any():
            first = alike[int(here[alike].argmax())]
            for row in alike:
                if not here[row]:
                    pixels[row], classes[row], here[row] = pixels[first], classes[first], True
    _require_all(wanted, here, f"{source.origin}, by their pixels")
    return Found(pixels, classes, np.zeros(len(wanted), dtype=np.bool_))


def _require_all(wanted: NDArray[np.int64], here: NDArray[np.bool_], where: str) -> None:
    missing = wanted[~here]
    if len(missing):
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise Refusal("images_missing", f"{len(missing)} of {len(wanted)} images are not in {where}: {shown}.")


def _scaled(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(n, H, W, 3) -> (n, side, side, 3), cut to a square about the middle; as they are where they have that size."""
    if pixels.shape[1:3] == (side, side):
        return pixels
    pictures = (PIL.Image.fromarray(each) for each in pixels)
    return np.stack([np.asarray(PIL.ImageOps.fit(each, (side, side), _SHARP)) for each in pictures])


def match_images(
    release: ReadRelease, archive: CifarArchive | Source, split: Split = "test", side: int = 32
) -> LabelledImages:
    """The release's images with both labels; where the archive has no class, the one that people found likeliest.

    Raises Refusal ``too_few_images``, and what find_images raises.
    """
    if len(release.images) < 2:
        raise Refusal(
            "too_few_images",
            f"The release labels {len(release.images)} image; training needs 2, one of them held out.",
        )
    images = np.asarray(release.images, dtype=np.int64)
    soft = np.asarray(release.soft_labels, dtype=np.float64)
    sha256 = dict(zip(images.tolist(), release.image_sha256, strict=True))
    found = find_images(archive, images, sha256, tuple(release.categories), split, side)
    return LabelledImages(
        pixels=found.pixels,
        indices=images,
        soft_labels=soft,
        hard_labels=np.where(found.classes < 0, soft.argmax(axis=1), found.classes),
        categories=tuple(release.categories),
        differs=found.differs,
    )


def require_same_categories(named: tuple[str, ...], cifar: Cifar) -> None:
    """The archive's classes are numbers: the release must list as many, and not the same ones reordered.

    Raises Refusal ``categories_differ``.
    """
    if len(named) != len(cifar.categories):
        raise Refusal(
            "categories_differ",
            f"The release has {len(named)} categories and the archive {len(cifar.categories)}: "
            "they are about different images.",
        )
    ours, theirs = [n.casefold() for n in named], [n.casefold() for n in cifar.categories]
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
