"""Where images lie: on the disk, or in an S3 bucket."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import Client
from django.urls import reverse
from moto.server import ThreadedMotoServer
from pytest_django.fixtures import Settings

from annotations import image_store
from annotations.image_files import ImageFiles
from annotations.models import Dataset
from annotations.services import images
from elicit import env, folders
from elicit.archives import pixel_sha256
from tests import factories as make
from tests.pictures import picture, png, zipped
from tests.services import ROOT

FILES = {"cat/1.png": png(1), "dog/1.png": png(2)}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path) -> Iterator[Any]:
    """A bucket at a server of S3's own protocol, and the images storage in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    places = {"BUCKET": "pictures", "ENDPOINT": f"http://{host}:{port}", "REGION": "eu-central-1", "PREFIX": "/ours/"}
    for name, value in {**keys, **{f"ELICIT_IMAGES_S3_{name}": value for name, value in places.items()}}.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3", endpoint_url=places["ENDPOINT"], region_name="eu-central-1").create_bucket(
        Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    settings.STORAGES = {**settings.STORAGES, "images": env.image_storage(tmp_path)}
    yield made
    # The server keeps its buckets in this process.
    made.objects.delete()
    made.delete()
    cast("Any", storages["images"]).connection.meta.client.close()
    made.meta.client.close()
    server.stop()


def test_images_lie_in_the_bucket_under_its_prefix_and_come_back(bucket: Any) -> None:
    sha256 = image_store.put(picture(1))

    assert [each.key for each in bucket.objects.all()] == [f"ours/{sha256[:2]}/{sha256}.png"]
    assert (image_store.pixels(sha256) == picture(1)).all()
    assert image_store.has(sha256)
    assert image_store.keep(picture(1)).was_there
    image_store.remove(sha256)
    assert not image_store.has(sha256)
    with pytest.raises(FileNotFoundError):
        image_store.rendered(sha256, 1)


@pytest.mark.django_db
def test_a_dataset_is_imported_shown_and_deleted_with_its_images_in_the_bucket(bucket: Any, tmp_path: Path) -> None:
    dataset = Dataset.objects.create(slug="pets", name="Pets")
    images.fill_from_files(dataset, folders.open_source(zipped(tmp_path / "x.zip", FILES)))
    assert len(list(bucket.objects.all())) == 2

    url = reverse("image", args=[pixel_sha256(picture(2)), 2])
    response = Client().get(url)
    assert response["Content-Type"] == "image/png"
    assert "immutable" in response["Cache-Control"]
    assert Client().get(reverse("image", args=["0" * 64, 2])).status_code == 404

    images.delete_dataset(dataset)
    make.run_jobs()
    assert not list(bucket.objects.all())


def test_without_a_bucket_images_lie_on_the_disk(tmp_path: Path) -> None:
    assert env.image_storage(tmp_path)["OPTIONS"]["location"] == tmp_path


def test_a_bucket_without_the_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELICIT_IMAGES_S3_BUCKET", "pictures")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImproperlyConfigured, match="make s3"):
        env.image_storage(tmp_path)


def test_a_file_that_is_written_half_does_not_pass_for_an_image(tmp_path: Path) -> None:
    class Breaks(ContentFile[bytes]):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"half"
            raise KeyboardInterrupt

    store = ImageFiles(location=tmp_path, allow_overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        store.save("aa/x.png", Breaks(b"whole"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    store.save("aa/x.png", ContentFile(b"first"))
    store.save("aa/x.png", ContentFile(b"second"))
    assert (tmp_path / "aa" / "x.png").read_bytes() == b"second"
    assert (tmp_path / "aa" / "x.png").stat().st_mode & 0o777 == 0o644


def test_a_process_that_is_killed_while_it_writes_leaves_no_image(tmp_path: Path) -> None:
    program = (
        "import os, django; from pathlib import Path; from django.conf import settings; settings.configure();"
        "from django.core.files.base import ContentFile; from annotations.image_files import ImageFiles\n"
        "class Dies(ContentFile):\n"
        "    def chunks(self, size=None):\n"
        "        yield b'half'; os.kill(os.getpid(), 9)\n"
        f"ImageFiles(location={str(tmp_path)!r}).save('aa/x.png', Dies(b'whole'))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ}, check=False)
    assert ended.returncode == -9
    assert not (tmp_path / "aa" / "x.png").exists()
