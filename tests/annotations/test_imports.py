"""Datasets out of folders, zips and tars: through the console, through the commands, and away again."""

from __future__ import annotations

import csv
import errno
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import time_machine
from celery import current_app
from django.conf import settings as site
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db.models import ProtectedError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from annotations import image_store
from annotations.errors import AnnotationError
from annotations.image_files import ImageFiles
from annotations.models import Category, Dataset, Image, ImageImport, ImageRemoval, ImportProblem
from annotations.selectors.datasets import import_state
from annotations.services import images, uploads
from elicit import folders
from elicit.archives import pixel_sha256
from elicit.folders import Source
from elicit.labels import Refusal
from jobs.models import Job, Status
from jobs.services import ROOM_AGAIN
from tests import factories as make
from tests.pictures import picture, png, tarred, unpacked, zipped

pytestmark = pytest.mark.django_db

ADD = "/admin/annotations/dataset/add/"
GOOD = {"cat/1.png": png(1), "cat/2.png": png(2), "dog/1.png": png(3)}
BROKEN = {"dog/cut.png": png(4)[:80], "dog/photo.tiff": b"II*\0", "dog/twin.png": png(1)}


@pytest.fixture(autouse=True)
def _own_files(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


def address(dataset: Dataset, what: str = "change", *arguments: object) -> str:
    return reverse(f"admin:annotations_dataset_{what}", args=[dataset.pk, *arguments])


def page(client: Client, dataset: Dataset, query: str = "") -> str:
    response = client.get(address(dataset) + query)
    assert response.status_code == 200
    return response.content.decode()


def upload(tmp_path: Path, files: dict[str, bytes], name: str = "pets.zip") -> SimpleUploadedFile:
    pack = zipped if name.endswith(".zip") else tarred
    return SimpleUploadedFile(name, pack(tmp_path / name, files).read_bytes())


def ask(curator: Client, **values: object) -> Dataset:
    response = curator.post(ADD, {"name": "Pets", "source": "archive", **values})
    assert response.status_code == 302, response.context["errors"]
    return Dataset.objects.get(name=values.get("name", "Pets"))


def test_an_uploaded_zip_becomes_a_dataset_with_its_folders_as_categories(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD))
    [job] = make.run_jobs()

    assert job.status == Status.DONE, job.error
    dataset.refresh_from_db()
    assert dataset.ready_at is not None
    assert list(dataset.categories.values_list("index", "name")) == [(0, "cat"), (1, "dog")]
    rows = list(dataset.images.order_by("index").values_list("index", "name", "reference", "width", "height"))
    assert rows == [(0, "cat/1.png", 0, 8, 6), (1, "cat/2.png", 0, 8, 6), (2, "dog/1.png", 1, 8, 6)]
    for image, seed in zip(dataset.images.order_by("index"), (1, 2, 3), strict=True):
        assert image.sha256 == pixel_sha256(picture(seed))
        assert (image_store.pixels(image.sha256) == picture(seed)).all()
    assert (job.done, job.total, job.percent) == (3, 3, 100)
    assert not list(Path(site.MEDIA_ROOT).rglob("*.zip"))


def test_a_table_of_votes_beside_a_tar_gives_reference_distributions(curator: Client, tmp_path: Path) -> None:
    table = SimpleUploadedFile("votes.csv", b"file_name,cat,dog\na.png,3,1\nb.png,1,1\n")
    dataset = ask(curator, archive=upload(tmp_path, {"a.png": png(1), "b.png": png(2)}, "pets.tar.gz"), labels=table)
    make.run_jobs()

    found = dataset.images.order_by("index").values_list("name", "reference", "reference_distribution")
    assert list(found) == [("a.png", 0, [0.75, 0.25]), ("b.png", None, [0.5, 0.5])]
    text = page(curator, dataset)
    assert "cat 75%, dog 25%" in text
    assert not list(Path(site.MEDIA_ROOT).rglob("*.csv"))


def test_categories_that_are_typed_label_nothing(curator: Client, tmp_path: Path) -> None:
    files = {"1.png": png(1), "2.png": png(2)}
    dataset = ask(curator, archive=upload(tmp_path, files), categories="Rook\n\n  Crow \nJackdaw")
    make.run_jobs()

    assert [category.name for category in dataset.categories.all()] == ["Rook", "Crow", "Jackdaw"]
    assert set(dataset.images.values_list("reference", flat=True)) == {None}
    assert "With a reference label" not in page(curator, dataset)


def test_only_the_chosen_part_is_imported(curator: Client, tmp_path: Path) -> None:
    files = {f"{split}/{name}": png(seed) for seed, (split, name) in enumerate(
        (split, name) for split in ("train", "test") for name in GOOD)}  # fmt: skip
    dataset = ask(curator, archive=upload(tmp_path, files), part="test")
    make.run_jobs()

    assert sorted(dataset.images.values_list("name", flat=True)) == [f"test/{name}" for name in GOOD]


# Problems


def test_an_import_with_problems_leaves_the_dataset_empty_and_tells_each(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD | BROKEN))
    [job] = make.run_jobs()

    assert job.status == Status.FAILED
    assert job.error == "3 files have problems, 3 images are good. Nothing was imported."
    dataset.refresh_from_db()
    assert dataset.ready_at is None
    assert not Image.objects.exists()
    assert not Category.objects.exists()
    told = dict(ImportProblem.objects.values_list("file", "what"))
    assert told["dog/photo.tiff"] == "is of a type that is not taken"
    assert "damaged or cut short" in told["dog/cut.png"]
    assert told["dog/twin.png"] == "has the same pixels as cat/1.png, which is of another category"
    text = page(curator, dataset)
    assert "Import the 3 good ones without these" in text
    assert "dog/photo.tiff" in text


def test_the_good_images_are_imported_in_an_explicit_second_step(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD | BROKEN))
    make.run_jobs()

    assert curator.post(address(dataset, "retry"), {"skip": ""}).status_code == 302
    [job] = make.run_jobs()

    assert job.status == Status.DONE, job.error
    assert list(dataset.images.order_by("index").values_list("index", "name")) == list(enumerate(GOOD))
    text = page(curator, dataset)
    assert "3 problems: left out" in text
    assert "New study on this dataset" in text


def test_the_problems_can_be_downloaded_and_no_cell_is_a_formula(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD | {"=cmd|calc.tiff": b"x"}))
    make.run_jobs()

    response = curator.get(address(dataset, "problems"))

    assert "attachment" in response["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(response.content.decode("utf-8-sig"))))
    assert rows[0] == ["file", "what is wrong", "what to do"]
    assert rows[1][0] == "'=cmd|calc.tiff"


def test_the_first_thousand_problems_are_kept_and_all_are_counted(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD | {f"dog/{n}.tiff": b"x" for n in range(1100)}))
    make.run_jobs()

    assert ImportProblem.objects.count() == images.PROBLEMS_KEPT == 1000
    assert ImageImport.objects.get().problem_count == 1100
    text = page(curator, dataset)
    assert "1,100 problems" in text
    assert "the first 1,000" in text


def test_nothing_good_at_all_is_a_failure_that_can_not_be_skipped(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, {"cat/1.png": b"x", "dog/1.png": b"y"}))
    make.run_jobs()
    assert "good one" not in page(curator, dataset)

    curator.post(address(dataset, "retry"), {"skip": ""})
    [job] = make.run_jobs()

    assert job.status == Status.FAILED
    assert "none of its images can be taken" in job.error


def test_a_failed_import_can_be_tried_again_or_replaced_by_another(
    curator: Client, tmp_path: Path, django_capture_on_commit_callbacks: Any
) -> None:
    dataset = ask(curator, archive=SimpleUploadedFile("x.zip", b"no zip"))
    make.run_jobs()
    assert "Try again" in page(curator, dataset)
    curator.post(address(dataset, "retry"))
    [again] = make.run_jobs()
    assert again.status == Status.FAILED

    assert curator.get(address(dataset, "import")).status_code == 200
    assert curator.post(address(dataset, "import"), {"source": "archive"}).status_code == 422
    with django_capture_on_commit_callbacks(execute=True):
        response = curator.post(address(dataset, "import"), {"source": "archive", "archive": upload(tmp_path, GOOD)})
    assert response.status_code == 302
    make.run_jobs()

    assert dataset.images.count() == 3
    assert ImageImport.objects.count() == 1
    assert not [path for path in Path(site.MEDIA_ROOT).rglob("*") if path.is_file()]


def test_an_import_that_finds_the_disk_full_says_so_and_goes_on_when_there_is_room(
    curator: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pictures that no other test has stored.
    files = {"cat/1.png": png(101), "cat/2.png": png(102), "dog/1.png": png(103)}
    dataset = ask(curator, archive=upload(tmp_path, files))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as without_room, time_machine.travel(timezone.now(), tick=False) as clock:
        without_room.setattr(ImageFiles, "_save", full)
        for _ in range(10):
            [job] = make.run_jobs()
            assert (job.status, job.attempts) == (Status.QUEUED, 0)
            clock.shift(ROOM_AGAIN)
        assert "The disk is full: make room" in page(curator, dataset)
    assert (dataset.images.count(), dataset.categories.count()) == (0, 0)

    with time_machine.travel(job.due_at + ROOM_AGAIN):
        [job] = make.run_jobs()
    assert (job.status, job.error, dataset.images.count()) == (Status.DONE, "", 3)
    assert "The disk is full" not in page(curator, dataset)


def test_an_import_that_has_not_failed_is_not_tried_again(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD))
    wanted = ImageImport.objects.get()
    with pytest.raises(AnnotationError, match="has not failed"):
        images.import_again(wanted, skip_problems=True)
    with pytest.raises(AnnotationError, match="under way"):
        images.request_import(dataset=dataset, source="sample", split="test")
    make.run_jobs()
    with pytest.raises(AnnotationError, match="has its images already"):
        images.request_import(dataset=dataset, source="sample", split="test")
    assert Job.objects.count() == 1


def test_what_was_done_to_an_image_is_told_with_it(curator: Client, tmp_path: Path, settings: Settings) -> None:
    settings.IMAGE_LARGEST_SIDE = 4
    dataset = ask(curator, archive=upload(tmp_path, GOOD))
    make.run_jobs()

    image = dataset.images.get(index=0)
    assert (image.width, image.height, image.changes) == (4, 3, "scaled down from 8 × 6")
    assert "scaled down from 8 × 6" in page(curator, dataset)


def test_the_limits_of_the_installation_are_kept(tmp_path: Path, settings: Settings) -> None:
    source = folders.open_source(zipped(tmp_path / "x.zip", GOOD))
    settings.IMAGE_MOST_PIXELS = 47
    with pytest.raises(images.ProblemsFound) as found:
        images.fill_from_files(Dataset(slug="x", name="x"), source)
    assert (found.value.problems.count, found.value.good) == (3, 0)
    settings.IMAGE_MOST_FILES = 2
    with pytest.raises(Refusal, match="more than 2 files"):
        images.fill_from_files(Dataset(slug="x", name="x"), source)
    assert not Dataset.objects.exists()


def test_a_name_that_is_changed_during_the_import_is_kept_and_undoes_nothing(curator: Client, tmp_path: Path) -> None:
    dataset = ask(curator, archive=upload(tmp_path, GOOD))
    stale = Dataset.objects.get(pk=dataset.pk)
    source = folders.open_source(tmp_path / "pets.zip")
    curator.post(address(dataset), {"name": "Better pets"})
    images.fill_from_files(stale, source)
    opened = Dataset.objects.get(pk=dataset.pk)
    assert (opened.name, opened.origin) == ("Better pets", "pets.zip (zip of images)")

    curator.post(address(dataset), {"name": "Best pets", "origin": "my own photographs"})

    opened.refresh_from_db()
    assert (opened.name, opened.origin) == ("Best pets", "my own photographs")
    assert opened.ready_at is not None


# A folder from the browser


def send(curator: Client, dataset: Dataset, number: int, files: dict[str, bytes]) -> int:
    data = {"name": list(files), "file": [SimpleUploadedFile("x", content) for content in files.values()]}
    return curator.post(address(dataset, "part", number), data).status_code


def begin(curator: Client, dataset: Dataset, parts: object, files: object) -> str:
    response = curator.post(address(dataset, "begin"), {"parts": parts, "files": files}, follow=True)
    return response.content.decode()


def test_a_folder_comes_in_parts_and_is_imported_once_it_is_whole(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    assert "Choose the folder" in page(curator, dataset)
    assert not Job.objects.exists()
    [*names] = GOOD
    assert send(curator, dataset, 0, {f"pets/{name}": GOOD[name] for name in names[:2]}) == 200
    assert "have not come yet" in begin(curator, dataset, 2, 3)
    assert send(curator, dataset, 1, {f"pets/{names[2]}": GOOD[names[2]]}) == 200
    # The answer was lost, say: the browser sends it again.
    assert send(curator, dataset, 1, {f"pets/{names[2]}": GOOD[names[2]]}) == 200
    assert "have not come yet" in begin(curator, dataset, 2, 4)
    assert not Job.objects.exists()

    assert "The import has begun" in begin(curator, dataset, 2, 3)
    [job] = make.run_jobs()

    assert job.status == Status.DONE, job.error
    assert list(dataset.images.order_by("index").values_list("name", flat=True)) == names
    assert not [path for path in Path(site.MEDIA_ROOT).rglob("*") if path.is_file()]


def test_a_smaller_folder_chosen_later_takes_the_place_of_a_larger_one(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    for number in range(4):
        send(curator, dataset, number, {f"old/cat/{number}.png": png(50 + number)})
    send(curator, dataset, 0, {f"pets/{name}": content for name, content in GOOD.items()})
    begin(curator, dataset, 1, 3)
    make.run_jobs()

    assert sorted(dataset.images.values_list("name", flat=True)) == sorted(GOOD)


def test_names_from_a_browser_lead_nowhere(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    hostile = {f"pets/{name}": content for name, content in GOOD.items()} | {"../../../evil.png": png(8), "": png(9)}
    assert send(curator, dataset, 0, hostile) == 200
    begin(curator, dataset, 1, 5)
    make.run_jobs()

    assert set(ImportProblem.objects.values_list("file", "what")) == {
        ("../../../evil.png", "has a name that leads out of its folder"),
        ("?", "is of a type that is not taken"),
    }
    assert not list(Path(site.MEDIA_ROOT).parent.rglob("evil*"))


def test_parts_that_do_not_fit_are_refused(curator: Client, tmp_path: Path, settings: Settings) -> None:
    dataset = ask(curator, source="folder")
    assert send(curator, dataset, 0, {}) == 409
    assert send(curator, dataset, uploads.MOST_PARTS, GOOD) == 409
    lone = {"name": ["a", "b"], "file": SimpleUploadedFile("a", b"x")}
    assert curator.post(address(dataset, "part", 0), lone).status_code == 409
    assert curator.get(address(dataset, "part", 0)).status_code == 405
    settings.IMAGE_MOST_TOTAL = 100
    assert send(curator, dataset, 0, GOOD) == 409
    assert begin(curator, dataset, "x", 3)
    other = ask(curator, name="Other", archive=upload(tmp_path, GOOD))
    assert send(curator, other, 0, GOOD) == 409
    assert not uploads.parts(ImageImport.objects.get(dataset=dataset))


def idle(dataset: Dataset, hours: float) -> datetime:
    """The time so many hours after the last file of a folder came."""
    there = uploads.folder(ImageImport.objects.get(dataset=dataset))
    return datetime.fromtimestamp(max(path.stat().st_mtime for path in there.iterdir()), UTC) + timedelta(hours=hours)


def test_a_folder_that_was_never_finished_goes_after_a_day_and_can_be_sent_again(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    send(curator, dataset, 0, GOOD)
    wanted = ImageImport.objects.get(dataset=dataset)
    assert uploads.sweep(idle(dataset, 23.9)) == 0
    assert uploads.parts(wanted)

    late = idle(dataset, 24.1)
    assert uploads.sweep(late) == 1
    assert uploads.sweep(late) == 0
    assert not uploads.folder(wanted).exists()

    send(curator, dataset, 0, {f"pets/{name}": content for name, content in GOOD.items()})
    begin(curator, dataset, 1, 3)
    make.run_jobs()
    assert dataset.images.count() == 3


def test_a_folder_whose_import_has_begun_is_left_alone_however_long_it_takes(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    send(curator, dataset, 0, GOOD | {"dog/broken.png": b"no image"})
    begin(curator, dataset, 1, 4)
    late = idle(dataset, 100)
    assert uploads.sweep(late) == 0
    [job] = make.run_jobs()
    assert job.status == Status.FAILED

    # The curator may take the good ones yet.
    assert uploads.sweep(late) == 0
    assert uploads.parts(ImageImport.objects.get(dataset=dataset))


def test_a_folder_of_an_import_that_is_gone_goes_too_and_nothing_else_does(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    send(curator, dataset, 0, GOOD)
    late = idle(dataset, 24.1)
    incoming = uploads.folder(ImageImport.objects.get(dataset=dataset)).parent
    (incoming / "not-ours").mkdir()
    ImageImport.objects.all().delete()

    assert current_app.tasks["annotations.sweep_uploads"]() == 0
    assert uploads.sweep(late) == 1

    assert [path.name for path in incoming.iterdir()] == ["not-ours"]


def test_what_a_killed_web_process_left_of_an_upload_goes_too(settings: Settings, tmp_path: Path) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path
    left, other = tmp_path / "tmp1.upload.zip", tmp_path / "other"
    for path in (left, other):
        path.write_bytes(b"x")
    written = datetime.fromtimestamp(left.stat().st_mtime, UTC)

    uploads.sweep(written + timedelta(hours=23))
    assert left.exists()
    uploads.sweep(written + timedelta(hours=25))
    assert (left.exists(), other.exists()) == (False, True)


def test_nothing_is_added_once_the_import_has_begun(curator: Client) -> None:
    dataset = ask(curator, source="folder")
    send(curator, dataset, 0, GOOD)
    begin(curator, dataset, 1, 3)
    assert send(curator, dataset, 1, GOOD) == 409
    assert "has begun already" in begin(curator, dataset, 1, 3)
    assert Job.objects.count() == 1


# Who may


def test_who_may_only_look_sees_images_and_reference_labels_and_changes_nothing(tmp_path: Path) -> None:
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    images.fill_from_files(dataset, folders.open_source(zipped(tmp_path / "x.zip", GOOD)))
    client = Client()
    client.force_login(make.make_staff("looker", "annotations.view_dataset"))

    assert "cat/2.png" in page(client, dataset)
    assert client.get(address(dataset, "thumbnail", 0))["Content-Type"] == "image/jpeg"
    assert client.get(address(dataset, "problems")).status_code == 200
    for what, arguments in (("import", []), ("part", [0]), ("begin", []), ("retry", [])):
        assert client.post(address(dataset, what, *arguments)).status_code == 403


def test_who_may_not_look_sees_nothing(tmp_path: Path) -> None:
    dataset = make.import_pictures(tmp_path)
    client = Client()
    client.force_login(make.make_staff("other", "annotations.view_study"))
    for what, arguments in (("change", []), ("thumbnail", [0]), ("problems", []), ("import", [])):
        assert client.get(address(dataset, what, *arguments)).status_code == 403


def test_annotators_are_sent_neither_names_nor_labels(tmp_path: Path) -> None:
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    named = {f"cat/telltale-{n}.png": png(n) for n in range(3)} | {"dog/telltale.png": png(9)}
    images.fill_from_files(dataset, folders.open_source(zipped(tmp_path / "x.zip", named)))
    session = make.begin(make.make_session(make.make_study(dataset=dataset, images_per_session=4)))
    text = Client().get(reverse("session", args=[session.token])).content.decode()
    assert Image.objects.get(index=0).sha256[:8] in text or "stimulus" in text
    assert "telltale" not in text


# The page


def test_images_are_browsed_by_page_and_by_category(curator: Client, tmp_path: Path) -> None:
    files = {f"cat/{n}.png": png(n) for n in range(70)} | {f"dog/{n}.png": png(100 + n) for n in range(5)}
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    images.fill_from_files(dataset, folders.open_source(zipped(tmp_path / "x.zip", files)))

    assert "Page 1 of 2" in page(curator, dataset)
    assert page(curator, dataset, "?page=2").count("/thumbnail/") == 15
    dogs = page(curator, dataset, "?category=1")
    assert dogs.count("/thumbnail/") == 5
    assert "Page 1" not in dogs
    for query in ("?category=99", "?category=x", "?page=999", "?page=x"):
        assert "/thumbnail/" in page(curator, dataset, query)


def test_a_thumbnail_is_a_small_jpeg_and_one_that_is_not_there_is_not_found(curator: Client, tmp_path: Path) -> None:
    dataset = make.import_pictures(tmp_path)
    body = curator.get(address(dataset, "thumbnail", 3)).content
    assert body[:2] == b"\xff\xd8"
    assert curator.get(address(dataset, "thumbnail", 12)).status_code == 404
    assert curator.get(address(dataset, "thumbnail", 2**40)).status_code == 404
    image_store.remove(dataset.images.get(index=3).sha256)
    assert curator.get(address(dataset, "thumbnail", 3)).status_code == 404


def test_the_form_explains_the_layouts(curator: Client) -> None:
    text = curator.get(ADD).content.decode()
    for words in ("metadata.csv", "file_name,label", "1,024", "A folder for each category"):
        assert words in text


# Deleting


def test_deleting_a_dataset_removes_the_files_that_nobody_else_uses(tmp_path: Path) -> None:
    first, second = (Dataset.objects.create(slug=slug, name=slug) for slug in ("first", "second"))
    images.fill_from_files(first, folders.open_source(zipped(tmp_path / "1.zip", GOOD)))
    shared = {"cat/1.png": png(1), "dog/9.png": png(9)}
    images.fill_from_files(second, folders.open_source(zipped(tmp_path / "2.zip", shared)))
    mentioned = pixel_sha256(picture(2))
    make.make_study(dataset=second, launch=False, instructions=f"![A cat](picture:{mentioned})")

    images.delete_dataset(first)
    [job] = make.run_jobs()

    assert job.status == Status.DONE, job.error
    there = {seed: image_store.has(pixel_sha256(picture(seed))) for seed in (1, 2, 3, 9)}
    assert there == {1: True, 2: True, 3: False, 9: True}
    assert ImageRemoval.objects.get().done_at is not None


def test_the_console_deletes_with_the_number_of_images_and_not_their_names(curator: Client, tmp_path: Path) -> None:
    dataset = make.import_pictures(tmp_path, 30)
    sha256 = dataset.images.get(index=0).sha256
    text = curator.get(address(dataset, "delete")).content.decode()
    assert "30 images" in text
    assert curator.post(address(dataset, "delete"), {"post": "yes"}).status_code == 302
    make.run_jobs()
    assert not Dataset.objects.exists()
    assert not image_store.has(sha256)


def test_deleting_a_dataset_takes_what_was_uploaded_for_it_along(
    curator: Client, django_capture_on_commit_callbacks: Any
) -> None:
    dataset = ask(curator, source="folder")
    send(curator, dataset, 0, GOOD)
    with django_capture_on_commit_callbacks(execute=True):
        images.delete_dataset(dataset)
    assert not [path for path in Path(site.MEDIA_ROOT).rglob("*") if path.is_file()]


def test_a_dataset_of_a_study_is_not_deleted_and_keeps_its_files(tmp_path: Path) -> None:
    dataset = make.import_pictures(tmp_path)
    make.make_study(dataset=dataset, launch=False)
    with pytest.raises(ProtectedError):
        images.delete_dataset(dataset)
    assert not ImageRemoval.objects.exists()


def test_an_import_whose_dataset_was_deleted_meanwhile_leaves_no_files(tmp_path: Path) -> None:
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    source = folders.open_source(zipped(tmp_path / "x.zip", GOOD))

    def delete(done: int, total: int) -> None:
        Dataset.objects.filter(pk=dataset.pk).delete()

    with pytest.raises(Refusal) as refused:
        images.fill_from_files(dataset, source, progress=delete)
    make.run_jobs()

    assert refused.value.code == "dataset_deleted"
    assert not Dataset.objects.exists()
    assert not image_store.has(pixel_sha256(picture(3)))


def test_an_import_begins_again_where_files_that_it_found_went_meanwhile(tmp_path: Path) -> None:
    image_store.put(picture(3))
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    source = folders.open_source(zipped(tmp_path / "x.zip", GOOD))

    def remove(done: int, total: int) -> None:
        ImageRemoval.objects.create(sha256s=[pixel_sha256(picture(3))], done_at=timezone.now())
        image_store.remove(pixel_sha256(picture(3)))

    with pytest.raises(images.FilesGone):
        images.fill_from_files(dataset, source, progress=remove)
    assert not Image.objects.exists()
    assert images.fill_from_files(dataset, source)[0] == 3
    assert all(image_store.has(sha256) for sha256 in dataset.images.values_list("sha256", flat=True))


def test_a_file_that_vanishes_between_looking_and_reading_is_told(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "pets", GOOD)
    source = folders.open_source(folder)

    class Thief(Source):
        origin = source.origin
        members = source.members

        def read(self, keys, most):  # type: ignore[no-untyped-def]
            (folder / "cat" / "1.png").unlink(missing_ok=True)
            yield from source.read(keys, most)

    with pytest.raises(images.ProblemsFound) as found:
        images.fill_from_files(Dataset(slug="x", name="x"), Thief())
    assert [each.file for each in found.value.problems.kept] == ["cat/1.png"]


# Commands


def test_the_command_imports_a_folder_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("import_images", str(unpacked(tmp_path / "pets", GOOD)), name="My pets")
    assert "Imported 3 images into the dataset my-pets." in capsys.readouterr().out
    dataset = Dataset.objects.get(slug="my-pets")
    assert dataset.origin == "pets (folder of images)"
    assert import_state(dataset).phase == "ready"
    with pytest.raises(CommandError, match="my-pets already, with 3 images"):
        call_command("import_images", str(tmp_path / "pets"), name="My pets")


def test_the_command_tells_the_problems_and_can_leave_them_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(zipped(tmp_path / "pets.zip", GOOD | BROKEN))
    with pytest.raises(CommandError, match=r"3 files have problems.*--skip-problems"):
        call_command("import_images", path, name="Pets")
    assert "dog/photo.tiff: is of a type that is not taken; save it as" in capsys.readouterr().err
    assert not Dataset.objects.exists()
    call_command("import_images", path, name="Pets", skip_problems=True)
    assert "3 left out" in capsys.readouterr().out


def test_the_command_takes_a_table_and_categories(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"file,label\n1.png,b\n2.png,a\n")
    path = zipped(tmp_path / "x.zip", {"1.png": png(1), "2.png": png(2)})
    call_command("import_images", str(path), name="X", labels=str(tmp_path / "t.csv"), categories="b, a, c")
    assert list(Image.objects.order_by("index").values_list("reference", flat=True)) == [0, 1]
    assert Category.objects.count() == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.zip"], "There is no file or folder"),
        (["x.zip", "--labels", "gone.csv"], "gone.csv can't be read"),
        (["x.zip", "--split", "test"], "There is no folder “test”"),
        (["x.zip", "--categories", "one"], "2 to 1,000 categories"),
        (["cifar-100-binary.tar.gz"], "say --split test or --split train"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zipped(tmp_path / "x.zip", GOOD)
    with pytest.raises(CommandError) as told:
        call_command("import_images", *arguments, name="X")
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert not Dataset.objects.exists()


def test_the_command_imports_cifar_100(tmp_path: Path) -> None:
    path = tarred(tmp_path / "cifar-100-binary.tar.gz", {"cifar-100-binary/test.bin": bytes([0, 99]) + bytes(3072)})
    call_command("import_images", str(path), name="Hundred", split="test")
    dataset = Dataset.objects.get()
    assert dataset.categories.count() == 100
    assert dataset.images.get().reference == 99


def test_cifar_100_can_be_uploaded(curator: Client, tmp_path: Path) -> None:
    files = {"cifar-100-binary/test.bin": bytes([0, 7]) + bytes(3072)}
    archive = upload(tmp_path, files, "cifar-100-binary.tar.gz")
    dataset = ask(curator, source="upload", split="test", archive=archive)
    make.run_jobs()
    dataset.refresh_from_db()
    assert dataset.origin.startswith("cifar-100-binary")
    assert dataset.images.get().reference == 7


def test_an_image_larger_than_a_screen_is_sent_as_it_is_stored() -> None:
    sha256 = image_store.put(picture(1, height=1500, width=1500))
    assert image_store.rendered(sha256, 5) == image_store.rendered(sha256, 1)
    with PIL.Image.open(io.BytesIO(image_store.thumbnail(sha256))) as small:
        assert small.size == (128, 128)
