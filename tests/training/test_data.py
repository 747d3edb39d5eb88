from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from elicit.archives import CIFAR10_CATEGORIES, CifarArchive, open_cifar10
from elicit.labels import Refusal, read_release
from tests.training.conftest import SIZE, labelled_images, release_of
from training import data
from training.data import LabelledImages, SoftLabelDataset, hold_out, match_images, open_images


def test_each_image_comes_with_its_pixels_and_both_its_labels(release: Path, archive: Path) -> None:
    found = match_images(read_release(release), open_cifar10(archive), "test")
    expected = labelled_images(SIZE)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.hard_labels, expected.hard_labels)
    # 70 and 30 fill the answer, so gamma = .1 goes to the eight unnamed classes.
    first = np.full(10, 0.1 / 8)
    first[:2] = 0.63, 0.27
    np.testing.assert_allclose(found.soft_labels[0], first)
    assert not found.differs.any()


def test_a_release_of_some_images_finds_them_by_index(tmp_path: Path, archive: Path) -> None:
    some = labelled_images(SIZE).select(np.array([5, 17, 2]))
    found = match_images(read_release(release_of(tmp_path / "some", some)), open_cifar10(archive), "test")
    assert found.indices.tolist() == [2, 5, 17]
    assert found.hard_labels.tolist() == [2, 5, 7]
    np.testing.assert_array_equal(found.pixels, labelled_images(SIZE).pixels[[2, 5, 17]])


def test_other_pixels_than_people_saw_are_marked_and_let_through(tmp_path: Path, archive: Path) -> None:
    changed = labelled_images(SIZE)
    changed.pixels[3, 0, 0, 0] ^= 1
    release = read_release(release_of(tmp_path / "changed", changed))
    found = match_images(release, open_cifar10(archive), "test")
    assert np.flatnonzero(found.differs).tolist() == [3]


def test_images_that_the_archive_lacks_are_refused_by_number(tmp_path: Path, archive: Path) -> None:
    more = labelled_images(SIZE + 7)
    release = read_release(release_of(tmp_path / "more", more))
    with pytest.raises(Refusal, match=r"7 of 31 images .* 24, 25, 26, 27, 28, \.\.\.") as caught:
        match_images(release, open_cifar10(archive), "test")
    assert caught.value.code == "images_missing"


def test_a_release_of_a_single_image_is_refused(tmp_path: Path, archive: Path) -> None:
    release = read_release(release_of(tmp_path / "one", labelled_images(1)))
    with pytest.raises(Refusal, match="needs 2") as caught:
        match_images(release, open_cifar10(archive), "test")
    assert caught.value.code == "too_few_images"


@pytest.mark.parametrize(
    ("categories", "sentence"),
    [
        (CIFAR10_CATEGORIES[:4], "4 categories and the archive 10"),
        (CIFAR10_CATEGORIES[::-1], "in another order"),
    ],
)
def test_categories_that_are_not_the_archives_are_refused(
    tmp_path: Path, archive: Path, categories: tuple[str, ...], sentence: str
) -> None:
    release = read_release(release_of(tmp_path / "other", labelled_images(4), categories))
    with pytest.raises(Refusal, match=sentence) as caught:
        match_images(release, open_cifar10(archive), "test")
    assert caught.value.code == "categories_differ"


def test_the_word_sample_opens_the_sample_images_and_says_so_where_there_are_none(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "sample_folder", lambda: archive)
    sample = open_images("sample")
    assert isinstance(sample, CifarArchive)
    assert len(sample.load("test")[1]) == SIZE
    monkeypatch.setattr(data, "sample_folder", lambda: None)
    with pytest.raises(Refusal) as caught:
        open_images("sample")
    assert caught.value.code == "sample_missing"


@pytest.mark.parametrize(("n", "share", "held"), [(20, 0.3, 6), (2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2)])
def test_every_image_is_on_one_side_and_no_side_is_empty(n: int, share: float, held: int) -> None:
    images = labelled_images(n)
    train, held_out = hold_out(images, share, seed=1)
    assert len(held_out) == held
    assert sorted([*train.indices.tolist(), *held_out.indices.tolist()]) == list(range(n))


def test_the_seed_alone_draws_the_split() -> None:
    images = labelled_images(20)
    assert hold_out(images, 0.3, 5)[1].indices.tolist() == hold_out(images, 0.3, 5)[1].indices.tolist()
    assert hold_out(images, 0.3, 5)[1].indices.tolist() != hold_out(images, 0.3, 6)[1].indices.tolist()


def test_the_split_is_the_same_for_another_copy_of_the_archive() -> None:
    images = labelled_images(20)
    before = hold_out(images, 0.3, 5)[1].indices.tolist()
    images.pixels[:] ^= 1
    assert hold_out(images, 0.3, 5)[1].indices.tolist() == before


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_picture_stay_on_one_side(seed: int) -> None:
    images = labelled_images(12)
    images.pixels[6:] = images.pixels[:6]
    train, held_out = hold_out(images, 0.4, seed)
    assert not {p.tobytes() for p in train.pixels} & {p.tobytes() for p in held_out.pixels}


def test_copies_of_a_single_picture_can_not_be_split() -> None:
    images = labelled_images(3)
    images.pixels[:] = images.pixels[0]
    with pytest.raises(Refusal) as caught:
        hold_out(images, 0.3, 0)
    assert caught.value.code == "too_few_images"


def test_the_dataset_gives_pairs_for_a_loop_of_ones_own() -> None:
    images = labelled_images(5)
    pairs = SoftLabelDataset(images)
    assert len(pairs) == 5
    image, label = pairs[3]
    assert (image.shape, image.dtype, label.dtype) == ((3, 32, 32), torch.float32, torch.float32)
    assert image[2, 4, 9] == pytest.approx(images.pixels[3, 4, 9, 2] / 255)
    np.testing.assert_allclose(label.numpy(), images.soft_labels[3], rtol=1e-6)
    batch, labels = next(iter(DataLoader(pairs, batch_size=4)))
    assert batch.shape == (4, 3, 32, 32)
    assert labels.shape == (4, 10)


def test_the_datasets_transform_runs_at_each_fetch() -> None:
    drawn = iter([0.25, 0.5])
    pairs = SoftLabelDataset(labelled_images(2), transform=lambda image: image * 0 + next(drawn))
    assert [float(pairs[0][0].mean()) for _ in range(2)] == [0.25, 0.5]


def test_arrays_that_do_not_fit_together_are_an_error() -> None:
    images = labelled_images(4)
    for change in (
        {"soft_labels": images.soft_labels[:3]},
        {"hard_labels": images.hard_labels + 10},
        {"pixels": images.pixels.astype(np.float64)},
        {"differs": images.differs[:1]},
    ):
        with pytest.raises(ValueError, match="must"):
            replace(images, **change)


def test_selecting_rows_keeps_all_that_belongs_to_them() -> None:
    images = labelled_images(6)
    images.differs[4] = True
    some: LabelledImages = images.select(np.array([4, 1]))
    assert some.indices.tolist() == [4, 1]
    assert some.differs.tolist() == [True, False]
    np.testing.assert_array_equal(some.soft_labels, images.soft_labels[[4, 1]])


# Other archives than CIFAR


def zip_of(path: Path, images: LabelledImages, order: list[int], labels: bool = True) -> Path:
    """A zip of PNGs in this order, called by nothing that tells which image they are, with a table of labels."""
    with zipfile.ZipFile(path, "w") as packed:
        lines = ["file_name,label"]
        for place, row in enumerate(order):
            picture = io.BytesIO()
            Image.fromarray(images.pixels[row]).save(picture, "PNG")
            packed.writestr(f"images/{place:02d}.png", picture.getvalue())
            name = images.categories[images.hard_labels[row]] if labels else ""
            lines.append(f"images/{place:02d}.png,{name.lower()}")
        packed.writestr("metadata.csv", "\n".join(lines))
    return path


def test_images_of_a_zip_are_found_by_their_pixels_in_any_order(tmp_path: Path, release: Path) -> None:
    images = labelled_images(SIZE)
    found = match_images(read_release(release), open_images(zip_of(tmp_path / "a.zip", images, [*range(SIZE)][::-1])))
    np.testing.assert_array_equal(found.pixels, images.pixels)
    np.testing.assert_array_equal(found.hard_labels, images.hard_labels)
    assert not found.differs.any()


def test_images_in_folders_of_categories_are_found_as_well(tmp_path: Path, release: Path) -> None:
    images = labelled_images(SIZE)
    for row, category in enumerate(images.hard_labels):
        folder = tmp_path / "sorted" / images.categories[category]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels[row]).save(folder / f"picture-{row}.png")
    found = match_images(read_release(release), open_images(tmp_path / "sorted"))
    np.testing.assert_array_equal(found.hard_labels, images.hard_labels)


def test_where_the_archive_names_no_class_the_one_that_people_found_likeliest_stands_for_it(
    tmp_path: Path, release: Path
) -> None:
    packed = zip_of(tmp_path / "a.zip", labelled_images(SIZE), [*range(SIZE)], labels=False)
    read = read_release(release)
    found = match_images(read, open_images(packed))
    np.testing.assert_array_equal(found.hard_labels, np.asarray(read.soft_labels).argmax(axis=1))


def test_images_that_are_alike_each_take_their_own_file_and_its_label(tmp_path: Path) -> None:
    images = labelled_images(6)
    images.pixels[4] = images.pixels[1]
    read = read_release(release_of(tmp_path / "alike", images))
    both = match_images(read, open_images(zip_of(tmp_path / "both.zip", images, [*range(6)])))
    assert both.hard_labels.tolist() == [0, 1, 2, 3, 4, 5]
    once = match_images(read, open_images(zip_of(tmp_path / "once.zip", images, [0, 1, 2, 3, 5])))
    assert once.hard_labels.tolist() == [0, 1, 2, 3, 1, 5]
    np.testing.assert_array_equal(once.pixels[4], images.pixels[1])


def test_images_of_any_size_are_cut_square_and_scaled(tmp_path: Path) -> None:
    images = labelled_images(4)
    wide = np.zeros((4, 48, 96, 3), dtype=np.uint8)
    wide[:, :, 24:72] = 200
    large = LabelledImages(wide + np.arange(4, dtype=np.uint8)[:, None, None, None], *as_they_are(images))
    read = read_release(release_of(tmp_path / "large", large))
    found = match_images(read, open_images(zip_of(tmp_path / "large.zip", large, [2, 0, 3, 1])), side=40)
    assert found.pixels.shape == (4, 40, 40, 3)
    # Of the wide picture the light middle is what is left.
    expected = np.full((4, 40, 40, 3), 200) + np.arange(4)[:, None, None, None]
    np.testing.assert_array_equal(found.pixels[:, :, 5:-5], expected[:, :, 5:-5])
    np.testing.assert_allclose(found.pixels, expected, atol=10)


def as_they_are(images: LabelledImages) -> tuple[Any, ...]:
    return images.indices, images.soft_labels, images.hard_labels, images.categories, images.differs


def test_images_that_a_zip_lacks_or_holds_spoilt_are_refused_by_number(tmp_path: Path, release: Path) -> None:
    images = labelled_images(SIZE)
    packed = zip_of(tmp_path / "a.zip", images, [row for row in range(SIZE) if row not in (3, 7)])
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr("images/3.png", b"\x89PNG\r\n\x1a\nspoilt")
    with pytest.raises(Refusal, match=r"2 of 24 images are not in a\.zip .*by their pixels: 3, 7") as caught:
        match_images(read_release(release), open_images(packed))
    assert caught.value.code == "images_missing"


def test_what_is_no_archive_of_images_is_refused_in_the_words_for_the_official_ones(tmp_path: Path) -> None:
    (tmp_path / "notes.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(Refusal) as caught:
        open_images(tmp_path / "notes.tar.gz")
    assert caught.value.code == "archive_unreadable"
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal) as caught:
        open_images(tmp_path / "empty")
    assert caught.value.code == "archive_unreadable"
