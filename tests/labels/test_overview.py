"""A release as a whole, and looked into without reading all of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from elicit.labels import CategorySet, Refusal, ReleasedResponse, entropy, read_release
from elicit.labels import overview as module
from elicit.labels.overview import Overview
from elicit.labels.release_files import OpenRelease, describe
from tests.labels import releases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    releases.write(tmp_path / "release")
    return tmp_path / "release"


def many(images: int, categories: int) -> list[ReleasedResponse]:
    """Answers of three annotators on images with gaps between their numbers."""
    random = np.random.default_rng(images)
    return [
        releases.response(
            name,
            3 * image + 1,
            (int(top), float(random.integers(50, 100))),
            impossible={(int(top) + 1) % categories} if categories > 2 else None,
            order=(),
            position=image,
        )
        for image in range(images)
        for name in ("ana", "bea", 'c"e, d')
        if (top := random.integers(0, categories)) >= 0
    ]


# --- Overview


def test_the_overview_of_the_study_is_as_worked_by_hand(folder: Path) -> None:
    seen = Overview.of(read_release(folder))

    # Image 4: .3 .65 .05, most likely Cat; image 11: .025 .275 .7, most likely Dog.
    assert seen.top.tolist() == [1, 2]
    assert seen.annotators.tolist() == [2, 2]
    assert seen.top_images.tolist() == [0, 1, 1]
    assert seen.entropy[0] == pytest.approx(-(0.3 * math.log(0.3) + 0.65 * math.log(0.65) + 0.05 * math.log(0.05)))
    assert np.isnan(seen.mean_labels[0]).all()
    assert seen.mean_labels[1] == pytest.approx([0.3, 0.65, 0.05])
    assert [(i, j) for i, j, _ in seen.pairs(2)] == [(1, 0), (2, 1)]
    assert seen.pairs(1)[0][2] == pytest.approx(0.3)


def test_the_overview_is_the_same_however_much_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = CategorySet(tuple("abcde"))
    releases.write(tmp_path / "r", categories=names, responses=many(50, 5))
    release = read_release(tmp_path / "r")

    whole = Overview.of(release)
    monkeypatch.setattr(module, "AT_ONCE", 15)
    parts = Overview.of(release)

    np.testing.assert_array_equal(parts.entropy, entropy(release.soft_labels))
    np.testing.assert_array_equal(parts.top, whole.top)
    np.testing.assert_allclose(parts.mean_labels, whole.mean_labels, rtol=1e-12)
    for category in range(5):
        mean = release.soft_labels[whole.top == category].mean(axis=0)
        np.testing.assert_allclose(whole.mean_labels[category], mean, rtol=1e-12)


def test_an_overview_comes_back_from_its_bytes(folder: Path) -> None:
    seen = Overview.of(read_release(folder))
    again = Overview.from_bytes(seen.to_bytes())
    for name in Overview.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(seen, name))


def test_of_many_classes_those_are_chosen_that_are_mixed_up_most() -> None:
    shares = np.eye(6) * 0.9
    shares[1, 4], shares[5, 0] = 0.1, 0.05
    seen = Overview(np.zeros(6), np.arange(6), np.ones(6, dtype=np.int64), np.ones(6, dtype=np.int64), shares)

    assert seen.most_mixed(2) == [1, 4]
    assert seen.most_mixed(4) == [0, 1, 4, 5]
    assert seen.most_mixed(6) == [0, 1, 2, 3, 4, 5]
    assert [(i, j) for i, j, _ in seen.pairs(9)] == [(1, 4), (5, 0)]


# --- Looking in


@pytest.mark.parametrize("categories", [2, 3, 40])
def test_what_is_looked_up_is_what_a_whole_reading_finds(tmp_path: Path, categories: int) -> None:
    names = CategorySet(tuple(f"class {place}, so called" for place in range(categories)))
    releases.write(tmp_path / "r", categories=names, responses=many(60, categories))
    whole, opened = read_release(tmp_path / "r"), OpenRelease(tmp_path / "r")
    table = whole.table()

    np.testing.assert_array_equal(opened.images, whole.images)
    np.testing.assert_array_equal(opened.soft_labels, whole.soft_labels)
    np.testing.assert_array_equal(opened.counts, whole.counts)
    np.testing.assert_array_equal(opened.annotators, whole.annotators)
    np.testing.assert_array_equal(opened.response_images, whole.response_images)
    np.testing.assert_array_equal(opened.kinds, whole.kinds)
    for row, pooled in enumerate(opened.pooled(range(len(opened)))):
        assert (pooled.image, pooled.sha256) == (whole.images[row], whole.image_sha256[row])
        assert pooled.annotators == whole.counts[row]
        np.testing.assert_array_equal(pooled.label, whole.soft_labels[row])
        rows = np.flatnonzero(whole.response_images == pooled.image)
        answers = opened.responses_of(pooled.image)
        assert [response.annotator for response, _ in answers] == whole.annotators[rows].tolist()
        for place, (response, label) in zip(rows, answers, strict=True):
            np.testing.assert_array_equal(label, whole.response_soft_labels[place])
            (named, percentage), *_ = response.elicited.named
            assert names.name(named) == table["category_1"][place]
            assert percentage == table["percentage_1"][place]
            assert response.elicited.impossible == {
                index for index, name in enumerate(names) if table[f"impossible_{name}"][place]
            }


def test_a_repeat_and_its_order_are_looked_up_too(folder: Path) -> None:
    answers = [response for response, _ in OpenRelease(folder).responses_of(4)]

    assert [(each.annotator, each.kind) for each in answers] == [("ana", "main"), ("ana", "repeat"), ("bea", "main")]
    assert answers[0].elicited.named == ((0, 60.0), (1, 30.0))
    assert (answers[0].category_order, answers[2].category_order) == ((2, 0, 1), ())
    assert answers[0].duration_ms == 4200


@pytest.mark.parametrize("image", [-1, 0, 5, 12, 10**12])
def test_an_image_that_is_not_there_has_no_row_and_no_answers(folder: Path, image: int) -> None:
    opened = OpenRelease(folder)

    assert opened.row_of(image) is None
    assert opened.responses_of(image) == []


def test_a_folder_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no manifest") as refused:
        OpenRelease(tmp_path)
    assert refused.value.code == "release_not_found"


# --- Differences of what is not read as a whole


def test_differences_are_the_same_for_a_release_that_is_only_looked_into(tmp_path: Path) -> None:
    names = CategorySet(tuple("abcde"))
    responses = many(30, 5)
    releases.write(tmp_path / "a", categories=names, responses=responses)
    releases.write(tmp_path / "b", categories=names, responses=responses[8:] + responses[:2])

    read = describe(read_release(tmp_path / "a"), read_release(tmp_path / "b"), most=3)
    looked = describe(OpenRelease(tmp_path / "a"), OpenRelease(tmp_path / "b"), most=3)

    assert looked == read
    assert (read["responses_removed"], read["responses_added"]) == (6, 0)
    assert read["images_removed"] == [4]
    assert read["labels_changed"] == sum(read["total_variation"]["images"]) == 2
    assert len(read["most_changed"]) == 2


def test_releases_without_a_common_image_have_no_distances(tmp_path: Path) -> None:
    responses = many(4, 3)
    releases.write(tmp_path / "a", responses=responses[:3])
    releases.write(tmp_path / "b", responses=responses[3:])

    found = describe(read_release(tmp_path / "a"), read_release(tmp_path / "b"))

    assert found["counts"]["images"] == {"from": 1, "to": 3, "in_both": 0}
    assert found["total_variation"]["mean"] is None
    assert found["most_changed"] == []
