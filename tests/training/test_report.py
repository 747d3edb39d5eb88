from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from elicit.archives import CifarArchive, ImageBatch, Split
from elicit.labels import ReadRelease, read_release
from tests.training.conftest import SIZE, labelled_images
from training.config import Config
from training.data import LabelledImages
from training.report import note_on, result_of, table_of, write_report
from training.train import Comparison, compare_labels

QUICK = Config(epochs=2, batch_size=8, threads=1)


class Nowhere(CifarArchive):
    """An archive by name alone."""

    origin, splits = "a folder", ()

    def _batches(self, split: Split) -> Iterator[ImageBatch]:
        raise AssertionError("a report reads no images")


ARCHIVE = Nowhere()


def run(release: ReadRelease, images: LabelledImages, config: Config = QUICK) -> tuple[Comparison, dict[str, Any]]:
    comparison = compare_labels(images, config, lambda line: None)
    return comparison, result_of(comparison, release, ARCHIVE, config, seconds=1.0)


@pytest.fixture
def read(release: Path) -> ReadRelease:
    return read_release(release)


def numbers_in(value: object) -> list[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers_in(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers_in(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_the_result_says_what_was_trained_on_what_with_what(read: ReadRelease) -> None:
    result = run(read, labelled_images(SIZE))[1]
    assert result["release"]["digest"] == read.manifest["digest"]
    assert result["release"]["recipe_digest"] == read.manifest["recipe_digest"]
    assert result["release"]["facts"] == {"study": "colours"}
    assert result["config"]["seed"] == 0
    assert result["model"] == {"name": "small", "parameters": 94_762}
    assert result["environment"]["torch"].startswith("2.")
    assert len(result["code"]["training_sha256"]) == 64
    images = result["images"]
    assert (images["labelled"], images["train"], images["held_out"]) == (24, 17, 7)
    assert len(images["held_out_indices"]) == 7
    assert images["train_top_is_archive_class"] == 17


def test_soft_and_hard_stand_side_by_side_with_their_difference(read: ReadRelease) -> None:
    result = run(read, labelled_images(SIZE))[1]
    held_out = result["held_out"]
    assert set(held_out["soft"]) == set(held_out["hard"]) == set(held_out["top"])
    assert {"accuracy", "cross_entropy", "kl", "total_variation", "calibration_error"} <= set(held_out["soft"])
    for metric in held_out["soft"]:
        for other in ("hard", "top"):
            found = result["differences"][f"soft_minus_{other}"][metric]["difference"]
            ours, theirs = held_out["soft"][metric], held_out[other][metric]
            assert found is None if ours is None or theirs is None else found == pytest.approx(ours - theirs)
    curve = result["learning_curve"]["hard"]
    assert [point["epoch"] for point in curve] == [1, 2]
    assert curve[-1]["held_out"] == held_out["hard"]


def test_the_same_seed_writes_the_same_result_but_for_the_seconds(read: ReadRelease) -> None:
    results = [run(read, labelled_images(SIZE))[1] for _ in range(2)]
    for result in results:
        assert set(result.pop("seconds")) == {"soft", "hard", "top", "total"}
    assert results[0] == results[1]


@pytest.mark.parametrize("n", [2, 20])
def test_a_tiny_set_is_reported_without_nan_and_called_tiny(read: ReadRelease, n: int, tmp_path: Path) -> None:
    images = labelled_images(n)
    certain = replace(images, soft_labels=np.eye(10)[images.hard_labels])  # so some metrics are undefined
    comparison, result = run(read, certain)
    assert result["held_out"]["soft"]["entropy_correlation"] is None
    assert result["note"].startswith(f"Only {len(comparison.held_out)} held-out image")
    write_report(tmp_path, comparison, result, QUICK)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read_back = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read_back == json.loads(json.dumps(result))
    assert np.isfinite(numbers_in(read_back)).all()
    assert "-" in table_of(result).splitlines()[-1]


def test_a_large_set_is_not_called_tiny() -> None:
    assert note_on(100) is None
    assert "1.01 points" in str(note_on(99))


def test_other_pixels_are_counted_and_the_wrong_archive_is_suspected(read: ReadRelease) -> None:
    images = labelled_images(SIZE)
    assert run(read, images)[1]["warnings"] == []
    images.differs[:3] = True
    result = run(read, images)[1]
    assert result["images"]["pixels_differ"] == 3
    assert result["warnings"] == ["3 of 24 images have other pixels in the archive than people saw."]
    images.differs[:] = True
    assert "the right --split?" in run(read, images)[1]["warnings"][0]


def test_categories_by_other_names_are_mentioned(read: ReadRelease) -> None:
    images = labelled_images(SIZE)
    renamed = replace(images, categories=("Airplane", "Car", *images.categories[2:]))
    assert "Car for Automobile" in run(read, renamed)[1]["warnings"][0]


def test_the_plots_are_pictures_that_say_of_how_many_images(read: ReadRelease, tmp_path: Path) -> None:
    comparison, result = run(read, labelled_images(SIZE))
    paths = write_report(tmp_path, comparison, result, QUICK)
    assert [path.name for path in paths] == ["result.json", "plot.png", "plot.svg"]
    with Image.open(tmp_path / "plot.png") as png:
        assert png.size[0] > 1200
        colours = {colour for _, colour in png.convert("RGB").getcolors(1 << 24) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= colours
    svg = ET.parse(tmp_path / "plot.svg").getroot()  # noqa: S314 - our own file
    assert svg.tag.endswith("svg")
    assert "7 held-out images, 17 trained on" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
