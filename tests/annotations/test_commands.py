from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotations.models import Dataset, Place, Study, StudyStatus
from tests import factories as make

pytestmark = pytest.mark.django_db


def command(which: str, /, **options: Any) -> str:
    out = StringIO()
    call_command(which, stdout=out, **options)
    return out.getvalue()


# --- import_cifar10


def test_an_archive_is_imported_under_the_name_of_its_split(tmp_path: Path) -> None:
    said = command("import_cifar10", source=str(make.write_archive(tmp_path)))

    dataset = Dataset.objects.get()
    assert (dataset.slug, dataset.images.count()) == ("cifar10-test", 12)
    assert "Imported 12 into the dataset cifar10-test." in said


def test_an_import_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    archive = str(make.write_archive(tmp_path))
    command("import_cifar10", source=archive)
    before = Dataset.objects.values().get()

    assert "has its 12 images already" in command("import_cifar10", source=archive)
    assert Dataset.objects.values().get() == before


def test_an_import_that_broke_off_is_taken_up_again(tmp_path: Path) -> None:
    Dataset.objects.create(slug="cifar10-test", name="Half")

    command("import_cifar10", source=str(make.write_archive(tmp_path)))

    dataset = Dataset.objects.get()
    assert dataset.images.count() == 12
    assert dataset.ready_at is not None


def test_a_dataset_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    command("import_cifar10", source=str(make.write_archive(tmp_path)), dataset="mine")

    assert Dataset.objects.get().slug == "mine"


@pytest.mark.parametrize("source", ["nothing-here", "broken"])
def test_an_archive_that_can_not_be_read_is_told_in_one_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "broken").write_bytes(b"no archive")

    with pytest.raises(CommandError) as told:
        command("import_cifar10", source=str(tmp_path / source))

    assert "\n" not in str(told.value)
    assert not Dataset.objects.exists()


def test_a_split_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="train"):
        command("import_cifar10", source=str(make.write_archive(tmp_path)), split="train")


# --- create_study


def test_a_study_is_made_and_launched() -> None:
    dataset = make.make_dataset()

    said = command(
        "create_study",
        name="Birds",
        dataset=dataset.slug,
        labels_per_image=3,
        images_per_session=5,
        launch=True,
        seed=1,
    )

    study = Study.objects.get()
    assert (study.slug, study.status) == ("birds", StudyStatus.LIVE)
    assert Place.objects.count() == 12
    assert said == "Study birds (live): 20 images, 3 labels each, in 4 batches.\n"


def test_a_study_is_a_draft_unless_asked_otherwise() -> None:
    said = command("create_study", name="Birds", dataset=make.make_dataset().slug)

    assert Study.objects.get().status == StudyStatus.DRAFT
    assert "in 1 batch." in said


def test_the_seed_decides_the_batches() -> None:
    slug = make.make_dataset().slug
    for name in ("One", "Two", "Three"):
        seed = {"One": 5, "Two": 5, "Three": 6}[name]
        command("create_study", name=name, dataset=slug, images_per_session=5, seed=seed)

    drawn = {
        study.name: [
            set(b.study_images.values_list("image__index", flat=True)) for b in study.batches.order_by("number")
        ]
        for study in Study.objects.all()
    }
    assert drawn["One"] == drawn["Two"] != drawn["Three"]


def test_only_the_first_images_may_be_taken() -> None:
    command("create_study", name="Birds", dataset=make.make_dataset().slug, images=7)

    assert sorted(Study.objects.get().study_images.values_list("image__index", flat=True)) == list(range(7))


def test_batches_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "batches.json"
    file.write_text(json.dumps([[3, 4], [5]]), encoding="utf-8")

    said = command("create_study", name="Birds", dataset=make.make_dataset().slug, batches=file)

    assert "3 images" in said
    assert "2 batches" in said


def test_a_study_that_is_there_is_left_as_it_is() -> None:
    study = make.make_study()

    said = command("create_study", name="Other", slug=study.slug, dataset="nothing")

    assert said == "The study birds is there already (live).\n"
    assert Study.objects.count() == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "nothing"}, "There is no dataset nothing"),
        ({"slug": "a b"}, "slug"),
        ({"labels_per_image": 0}, "greater than or equal to 1"),
        ({"images": 0, "launch": True}, "no images"),
        ({"batches": "missing.json"}, "cannot be read"),
        ({"batches": "."}, "cannot be read"),
        ({"batches": "broken.json"}, "not JSON"),
        ({"batches": "latin.json"}, "UTF-8"),
        ({"batches": "unknown.json"}, "no image 99"),
    ],
)
def test_what_is_wrong_is_told_and_no_study_is_made(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    (tmp_path / "unknown.json").write_text("[[99]]", encoding="utf-8")
    if "batches" in options:
        options = {"batches": tmp_path / options["batches"]}
    options = {"name": "Birds", "dataset": make.make_dataset().slug, **options}

    with pytest.raises(CommandError, match=words):
        command("create_study", **options)

    assert not Study.objects.exists()


@pytest.mark.parametrize("images", ["-1", "1.5", "many"])
def test_a_number_of_images_that_is_none_is_told(images: str) -> None:
    with pytest.raises(CommandError):
        call_command("create_study", "--name", "Birds", "--dataset", make.make_dataset().slug, "--images", images)

    assert not Study.objects.exists()
