"""Imports and deletions of datasets at the same time, and imports whose worker dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from annotations import image_store
from annotations.errors import AnnotationError
from annotations.models import Category, Dataset, Image, ImageImport
from annotations.services import images
from elicit import folders
from elicit.folders import Member, Problem, Source
from jobs import services as jobs
from jobs.models import Job, Status
from tests import factories as make
from tests import services
from tests.concurrency.together import meanwhile, together
from tests.pictures import png, zipped

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

CATEGORIES = ("cat", "dog")
FILES = {f"{category}/{n}.png": png(n + 50 * (category == "dog")) for n in range(20) for category in CATEGORIES}


class Watched(Source):
    """A source that does something once all of it has been read."""

    def __init__(self, source: Source, then: Callable[[], object]) -> None:
        self.origin, self._source, self._then = source.origin, source, then

    def members(self) -> Iterator[Member]:
        return self._source.members()

    def read(self, keys: Collection[int], most: int) -> Iterator[tuple[int, bytes | Problem]]:
        yield from self._source.read(keys, most)
        if keys:
            self._then()


def archive(tmp_path: Path, name: str = "x.zip") -> Source:
    return folders.open_source(zipped(tmp_path / name, FILES))


def test_of_several_imports_into_one_dataset_one_fills_it(tmp_path: Path) -> None:
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    path = zipped(tmp_path / "x.zip", FILES)

    def fill() -> int:
        return images.fill_from_files(Dataset.objects.get(pk=dataset.pk), folders.open_source(path))[0]

    outcomes = together([fill] * 4)

    assert outcomes.count(40) == 1
    refused = [each for each in outcomes if isinstance(each, AnnotationError)]
    assert [each.code for each in refused] == ["dataset_filled"] * 3
    assert dataset.images.count() == 40
    assert dataset.categories.count() == 2


def test_two_imports_of_the_same_images_at_once_both_have_their_files(tmp_path: Path) -> None:
    made = [Dataset.objects.create(slug=slug, name=slug) for slug in ("one", "two")]
    path = zipped(tmp_path / "x.zip", FILES)
    outcomes = together([partial(images.fill_from_files, each, folders.open_source(path)) for each in made])
    assert [outcome[0] for outcome in outcomes if not isinstance(outcome, Exception)] == [40, 40]
    assert all(image_store.has(sha256) for sha256 in Image.objects.values_list("sha256", flat=True))


def test_files_of_a_dataset_that_is_deleted_during_an_import_of_the_same_are_not_missing(tmp_path: Path) -> None:
    old, new = (Dataset.objects.create(slug=slug, name=slug) for slug in ("old", "new"))
    images.fill_from_files(old, archive(tmp_path))

    def delete() -> None:
        meanwhile(partial(images.delete_dataset, old))
        make.run_jobs()

    with pytest.raises(images.FilesGone):
        images.fill_from_files(new, Watched(archive(tmp_path), delete))
    assert not new.images.exists()
    images.fill_from_files(new, archive(tmp_path))
    assert all(image_store.has(sha256) for sha256 in new.images.values_list("sha256", flat=True))


def test_a_worker_that_slept_past_its_lease_doubles_nothing(tmp_path: Path) -> None:
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    file = SimpleUploadedFile("x.zip", zipped(tmp_path / "x.zip", FILES).read_bytes())
    images.request_import(dataset=dataset, source="archive", split="all", file=file)
    asleep = jobs.claim(Job.objects.get().pk)
    assert asleep is not None
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    awake = jobs.claim(asleep.pk)
    assert awake is not None
    outcomes = together([partial(images.run_import, each) for each in (asleep, awake)])

    assert outcomes.count(None) == 1
    assert dataset.images.count() == 40
    assert Category.objects.count() == 2


@pytest.mark.worker
@pytest.mark.slow
def test_an_import_whose_workers_are_killed_is_whole_in_the_end(
    server_environment: dict[str, str], tmp_path: Path
) -> None:
    files = {f"{category}/{n}.png": png(n + 3000 * (category == "dog")) for n in range(1500) for category in CATEGORIES}
    file = SimpleUploadedFile("x.zip", zipped(tmp_path / "x.zip", files).read_bytes())
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    images.request_import(dataset=dataset, source="archive", split="all", file=file)
    job = Job.objects.get()
    Job.objects.update(most_attempts=100)
    for least in (60, 600, 1800):
        with services.worker(server_environment) as doomed:
            wait(partial(has_done, job, least))
            doomed.kill()
        assert not Image.objects.exists()
        Job.objects.filter(status=Status.RUNNING).update(lease_until=timezone.now() - timedelta(hours=1), rung_at=None)
    with services.worker(server_environment):
        wait(lambda: Job.objects.filter(pk=job.pk, status=Status.DONE).exists())

    assert dataset.images.count() == len(files)
    assert list(dataset.images.order_by("index").values_list("index", flat=True)) == list(range(len(files)))
    assert Category.objects.count() == 2
    assert ImageImport.objects.get().good == len(files)
    assert all(image_store.has(sha256) for sha256 in dataset.images.values_list("sha256", flat=True))


def has_done(job: Job, least: int) -> bool:
    return Job.objects.filter(pk=job.pk, status=Status.RUNNING, total__gt=0, done__gte=least).exists()


def wait(condition: Callable[[], bool], within: float = 90) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
