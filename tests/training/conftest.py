from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elicit.archives import CIFAR10_CATEGORIES, pixel_sha256
from elicit.labels import CategorySet, Elicited, Recipe, ReleasedResponse, write_release
from training.data import LabelledImages

SIZE = 24
"""Images in the small release."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Beside other tests on the same cores, threads that wait for each other cost more than they bring.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(category: int, random: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(32, 32, 3): a colour per class under noise, so that there is something to learn."""
    colour = np.array([category * 25, 250 - category * 25, (category * 77) % 256])
    noise = random.normal(0, 25, size=(32, 32, 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def labelled_images(n: int, seed: int = 0) -> LabelledImages:
    """n images of ten classes; people give 0.7 to the archive's class and 0.3 to the next one."""
    random = np.random.default_rng(seed)
    classes = np.arange(n, dtype=np.int64) % 10
    soft = 0.7 * np.eye(10)[classes] + 0.3 * np.eye(10)[(classes + 1) % 10]
    return LabelledImages(
        pixels=np.stack([picture(int(c), random) for c in classes]),
        indices=np.arange(n, dtype=np.int64),
        soft_labels=soft,
        hard_labels=classes,
        categories=CIFAR10_CATEGORIES,
        differs=np.zeros(n, dtype=np.bool_),
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder of PNGs in the layout of the sample images, numbered from 0."""
    folder = tmp_path / "archive"
    folder.mkdir()
    images = labelled_images(SIZE)
    for index, label, pixels in zip(images.indices, images.hard_labels, images.pixels, strict=True):
        Image.fromarray(pixels).save(folder / f"cifar10_{index:02d}_{label}.png")
    return folder


def release_of(folder: Path, images: LabelledImages, categories: tuple[str, ...] = CIFAR10_CATEGORIES) -> Path:
    """Write a release in which each of two annotators says 70 % the archive's class, 30 % the next one."""
    responses = [
        ReleasedResponse(
            annotator=annotator,
            image=int(index),
            image_sha256=pixel_sha256(pixels),
            kind="main",
            position=int(index),
            elicited=Elicited(
                named=((int(label), 70.0), ((int(label) + 1) % len(categories), 30.0)), impossible=frozenset()
            ),
            category_order=(),
            duration_ms=None,
        )
        for annotator in ("ann-1", "ann-2")
        for index, label, pixels in zip(images.indices, images.hard_labels, images.pixels, strict=True)
    ]
    write_release(
        folder,
        categories=CategorySet(categories),
        responses=responses,
        recipe=Recipe(),
        facts={"study": "colours"},
        version=3,
    )
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of the archive's images."""
    return release_of(tmp_path / "release", labelled_images(SIZE))
