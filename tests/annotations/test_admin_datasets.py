from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotations import image_store
from annotations.models import Dataset, Image, ImageImport
from elicit.archives import CIFAR10_CATEGORIES, open_cifar10
from jobs.models import Job, Status
from tests import factories as make

pytestmark = pytest.mark.django_db

ADD = "/admin/annotations/dataset/add/"


@pytest.fixture(autouse=True)
def _own_files(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


def upload(folder: Path, images: int = 12) -> SimpleUploadedFile:
    return SimpleUploadedFile("cifar-10-binary.tar.gz", make.write_archive(folder, images).read_bytes())


def ask(curator: Client, **values: object) -> Dataset:
    """Fill in the import form."""
    form = {"name": "My images", "source": "upload", "split": "test", **values}
    response = curator.post(ADD, form)
    assert response.status_code == 302, response.context["errors"]
    dataset = Dataset.objects.get()
    assert response["Location"] == reverse("admin:annotations_dataset_change", args=[dataset.pk])
    return dataset


def page(curator: Client, dataset: Dataset) -> str:
    response = curator.get(reverse("admin:annotations_dataset_change", args=[dataset.pk]))
    assert response.status_code == 200
    return response.content.decode()


def test_an_uploaded_archive_becomes_a_dataset(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path))
    assert dataset.ready_at is None
    assert "waiting for a worker" in page(curator, dataset)

    (job,) = make.run_jobs()

    assert job.status == Status.DONE
    dataset.refresh_from_db()
    assert dataset.ready_at is not None
    assert dataset.origin == "cifar-10-binary.tar.gz (official binary layout)"
    assert [category.name for category in dataset.categories.all()] == list(CIFAR10_CATEGORIES)
    assert list(dataset.images.values_list("index", "reference")) == [(i, i % 10) for i in range(12)]
    text = page(curator, dataset)
    assert "ready" in text
    assert text.count("/thumbnail/") == 12
    assert "Airplane, Automobile" in text


def test_the_stored_images_are_those_of_the_archive(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path))
    make.run_jobs()

    pixels, _, indices = open_cifar10(make.write_archive(tmp_path)).load("test")
    for image, index in zip(dataset.images.order_by("index"), indices, strict=True):
        assert image.index == index
        assert (image_store.pixels(image.sha256) == pixels[index]).all()


def test_the_uploaded_file_is_thrown_away_once_its_images_are_in(curator: Client, tmp_path: Path) -> None:
    ask(curator, archive=upload(tmp_path))
    stored = Path(ImageImport.objects.get().file.path)
    assert stored.exists()

    make.run_jobs()

    assert not stored.exists()


def test_an_import_that_is_run_twice_fills_the_dataset_once(curator: Client, tmp_path: Path) -> None:
    ask(curator, archive=upload(tmp_path))
    make.run_jobs()
    Job.objects.update(status=Status.QUEUED)

    (job,) = make.run_jobs()

    assert job.status == Status.DONE
    assert Image.objects.count() == 12


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b" + b"\0" * 100])
def test_an_archive_that_is_none_leaves_the_dataset_empty_and_says_why(curator: Client, content: bytes) -> None:
    response = curator.post(
        ADD, {"name": "X", "source": "upload", "split": "test", "archive": SimpleUploadedFile("x.tar.gz", content)}
    )
    if not content:
        assert "The submitted file is empty" in response.content.decode()
        return
    make.run_jobs()

    dataset = Dataset.objects.get()
    assert dataset.ready_at is None
    assert not dataset.images.exists()
    assert Job.objects.get().status == Status.FAILED
    assert re.search(r"failed: [^<]*x\w*\.tar\.gz", page(curator, dataset))


def test_a_split_that_the_archive_lacks_is_told(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path), split="train")
    make.run_jobs()

    assert re.search("failed: [^<]*train", page(curator, dataset))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "This field is required"),
        ({"name": "???"}, "There is a dataset of this name already"),
        ({"name": "Pictures"}, "There is a dataset of this name already"),
        ({"source": "upload"}, "Choose the archive to upload"),
        ({"source": "moon"}, "Select a valid choice"),
        ({"split": "all"}, "Select a valid choice"),
    ],
)
def test_the_import_form_says_what_is_wrong(curator: Client, values: dict[str, str], words: str) -> None:
    make.make_dataset(slug="pictures")

    response = curator.post(ADD, {"name": "New", "source": "sample", "split": "test", **values})

    assert response.status_code == 200
    assert words in response.content.decode()
    assert Dataset.objects.count() == 1
    assert not Job.objects.exists()


def test_the_list_shows_how_many_images_there_are(curator: Client) -> None:
    make.make_dataset(20)

    assert "20" in curator.get("/admin/annotations/dataset/").content.decode()


def test_a_dataset_of_a_study_can_not_be_deleted(curator: Client) -> None:
    dataset = make.make_study(launch=False).dataset
    free = make.make_dataset(slug="free")

    assert curator.post(f"/admin/annotations/dataset/{dataset.pk}/delete/", {"post": "yes"}).status_code == 403
    assert curator.post(f"/admin/annotations/dataset/{free.pk}/delete/", {"post": "yes"}).status_code == 302
    assert list(Dataset.objects.all()) == [dataset]


def test_deleting_many_datasets_spares_those_of_studies(curator: Client) -> None:
    dataset = make.make_study(launch=False).dataset

    curator.post(
        "/admin/annotations/dataset/", {"action": "delete_selected", "_selected_action": dataset.pk, "post": "yes"}
    )

    assert Dataset.objects.filter(pk=dataset.pk).exists()


def test_who_may_only_look_imports_nothing(tmp_path: Path) -> None:
    client = Client()
    client.force_login(make.make_staff("looker", "annotations.view_dataset"))

    assert client.get("/admin/annotations/dataset/").status_code == 200
    assert client.get(ADD).status_code == 403
    assert client.post(ADD, {"name": "X", "source": "sample", "split": "test"}).status_code == 403
