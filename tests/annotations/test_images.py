from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annotations import image_store
from annotations.models import Category, Dataset, Image
from annotations.services.images import fill_dataset, request_import
from elicit.archives import open_cifar10, pixel_sha256
from elicit.labels import Refusal
from tests import factories as make


def picture(height: int = 3, width: int = 2) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return make.rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def opened(png: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(png))


def test_stored_pixels_come_back_bit_for_bit() -> None:
    pixels = picture()

    sha256 = image_store.put(pixels)

    assert sha256 == pixel_sha256(pixels)
    assert (image_store.pixels(sha256) == pixels).all()


def test_storing_the_same_pixels_again_changes_nothing() -> None:
    first = image_store.put(picture())

    assert image_store.put(picture()) == first
    assert (image_store.pixels(first) == picture()).all()


@pytest.mark.parametrize("scale", [1, 2, 10])
def test_an_image_is_rendered_at_a_multiple_of_its_size(scale: int) -> None:
    image = opened(image_store.rendered(image_store.put(picture()), scale))

    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (2 * scale, 3 * scale))


def test_an_image_at_its_own_size_is_not_touched() -> None:
    image = opened(image_store.rendered(image_store.put(picture()), 1))

    assert (np.asarray(image) == picture()).all()


def test_a_large_image_is_not_sent_larger_than_a_screen() -> None:
    sha256 = image_store.put(np.zeros((700, 1000, 3), dtype=np.uint8))

    assert opened(image_store.rendered(sha256, 10)).size == (2000, 1400)


def test_an_image_that_is_not_stored_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        image_store.rendered("0" * 64, 1)


@pytest.mark.django_db
def test_a_dataset_is_filled_with_all_images_in_order_and_progress_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    archive = open_cifar10(make.write_archive(tmp_path, 250))

    count = fill_dataset(Dataset(slug="new", name="New"), archive, "test", told.append)

    dataset = Dataset.objects.get()
    assert count == dataset.images.count() == 250
    assert told == [100, 200, 250]
    assert dataset.ready_at is not None
    assert list(dataset.images.values_list("index", flat=True)) == list(range(250))


@pytest.mark.django_db
def test_an_import_that_breaks_off_leaves_the_dataset_empty_and_can_be_repeated(tmp_path: Path) -> None:
    archive = open_cifar10(make.write_archive(tmp_path, 250))
    dataset = Dataset(slug="new", name="New")

    def break_off(done: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_dataset(dataset, archive, "test", break_off)
    assert not Dataset.objects.exists()
    assert not Image.objects.exists()
    assert not Category.objects.exists()

    assert fill_dataset(dataset, archive, "test", lambda _: None) == 250


@pytest.mark.django_db
def test_a_split_that_is_missing_leaves_the_dataset_empty(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        fill_dataset(
            Dataset(slug="new", name="New"), open_cifar10(make.write_archive(tmp_path)), "train", lambda _: None
        )

    assert refused.value.code == "split_missing"
    assert not Dataset.objects.exists()


@pytest.mark.django_db
def test_the_same_images_may_be_in_two_datasets(tmp_path: Path) -> None:
    first, second = (make.import_pictures(tmp_path, slug=slug) for slug in ("one", "two"))

    assert list(first.images.values_list("sha256")) == list(second.images.values_list("sha256"))


@pytest.mark.django_db
def test_an_import_is_queued_once_with_its_request() -> None:
    dataset = Dataset.objects.create(slug="new", name="New")

    wanted = request_import(dataset=dataset, source="sample", split="test")

    assert str(wanted) == "the twenty test images that come with this installation into New"
    assert wanted.file.name == ""
