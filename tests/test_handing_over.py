"""Files that the proxy sends: what the site tells nginx, and what nginx makes of it by the example of the documents."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings as site
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from annotations import image_store
from elicit import env, handing_over
from exports.models import Release
from tests import factories as make
from tests import services
from tests.pictures import picture
from tests.services import ROOT

ZIP = "/releases/birds/1/files/release.zip"
FOR_EVER = "public, max-age=31536000, immutable"


@pytest.fixture(autouse=True)
def _own_folder(settings: Settings, tmp_path: Path) -> None:
    settings.RENDERED_ROOT = tmp_path / "rendered"


@pytest.fixture
def release(transactional_db: None) -> Release:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    make.complete_session(study)
    return make.make_release(study)


def researcher() -> Client:
    client = Client()
    client.force_login(make.make_staff("researcher", "exports.view_release"))
    return client


def image_address(sha256: str, scale: int = 3) -> str:
    return f"/image/{sha256}-{scale}x.png"


# --- Without a proxy


def test_an_image_is_cached_for_ever_and_not_sent_to_whoever_has_it() -> None:
    address = image_address(image_store.put(picture(1)))
    first = Client().get(address)
    assert (first.status_code, first["Cache-Control"]) == (200, FOR_EVER)

    for told, status in ((first["ETag"], 304), (f'"x", W/{first["ETag"]}', 304), ('"x"', 200)):
        again = Client(headers={"If-None-Match": told}).get(address)
        assert (again.status_code, again["Cache-Control"], again["ETag"]) == (status, FOR_EVER, first["ETag"])
        assert bool(again.content) is (status == 200)


def test_an_image_that_is_removed_is_not_found_whatever_the_browser_has() -> None:
    sha256 = image_store.put(picture(2))
    etag = Client().get(image_address(sha256))["ETag"]
    image_store.remove(sha256)

    assert Client(headers={"If-None-Match": etag}).get(image_address(sha256)).status_code == 404


@pytest.mark.parametrize("value", ["protected", "/protected", "//", "/a b/", "/../", "https://x/"])
def test_a_location_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ELICIT_ACCEL_REDIRECT", value)

    with pytest.raises(ImproperlyConfigured, match="between slashes"):
        env.location("ELICIT_ACCEL_REDIRECT")


# --- What the proxy is told


@pytest.fixture
def proxied(settings: Settings) -> None:
    settings.ACCEL_REDIRECT = "/protected/"


def test_the_proxy_is_told_where_an_image_lies_and_how_long_it_lasts(proxied: None) -> None:
    sha256 = image_store.put(picture(3))

    response = Client().get(image_address(sha256))

    assert (response.status_code, response.content) == (200, b"")
    assert response["X-Accel-Redirect"] == f"/protected/rendered/{sha256[:2]}/{sha256}-3x.png"
    assert (response["Content-Type"], response["Cache-Control"]) == ("image/png", FOR_EVER)
    file = site.RENDERED_ROOT / sha256[:2] / f"{sha256}-3x.png"
    assert file.read_bytes() == image_store.rendered(sha256, 3)
    # nginx is another user.
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path for path in file.parent.iterdir() if path != file] == []


def test_a_rendered_file_goes_with_its_image(proxied: None) -> None:
    sha256 = image_store.put(picture(4))
    for scale in (1, 2, 10):
        assert Client().get(image_address(sha256, scale)).status_code == 200

    image_store.remove(sha256)

    assert Client().get(image_address(sha256, 2)).status_code == 404
    assert not list(site.RENDERED_ROOT.rglob("*.png"))


def test_an_image_that_is_removed_while_it_is_made_is_not_kept(proxied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = image_store.put(picture(5))
    real = image_store.rendered

    def rendered(*which: object) -> bytes:
        body = real(sha256, 2)
        image_store.remove(sha256)
        return body

    monkeypatch.setattr(image_store, "rendered", rendered)

    assert Client().get(image_address(sha256, 2)).status_code == 404
    assert not list(site.RENDERED_ROOT.rglob("*.png"))


@pytest.mark.django_db
def test_the_proxy_is_told_of_a_release_only_by_whoever_may_have_it(proxied: None, release: Release) -> None:
    stranger = Client()
    stranger.force_login(make.make_staff("stranger"))
    for client, status in ((Client(), 302), (stranger, 403)):
        refused = client.get(ZIP)
        assert refused.status_code == status
        assert "X-Accel-Redirect" not in refused

    response = researcher().get(ZIP, headers={"Range": "bytes=0-3"})

    assert (response.status_code, response.content) == (200, b"")
    assert response["X-Accel-Redirect"] == f"/protected/releases/{release.folder}/{release.name}.zip"
    assert response["Content-Disposition"] == f'attachment; filename="{release.name}.zip"'
    assert response["Cache-Control"] == "private, no-cache"


def test_a_file_elsewhere_is_never_handed_over(proxied: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="subpath"):
        handing_over.hand_over(handing_over.RELEASES, tmp_path / "secret-key", {})


# --- A real nginx, by the example


@pytest.fixture
def nginx(
    live_server: LiveServer, settings: Settings, tmp_path: Path
) -> Iterator[Callable[..., tuple[int, dict[str, str], bytes]]]:
    """nginx before the site, as docs/how-to/nginx.md has it, but for the port, the folders and https."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not on PATH")
    settings.ACCEL_REDIRECT = "/protected/"
    port = services.free_port()
    example = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/how-to/nginx.md").read_text(encoding="utf-8"), re.DOTALL)[
        0
    ]
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "server_name elicit.example.org;": "server_name localhost;",
        "/var/lib/elicit/releases/": f"{site.RELEASES_ROOT}/",
        "/var/lib/elicit/rendered/": f"{site.RENDERED_ROOT}/",
        "/var/log/nginx/": f"{tmp_path}/",
        "127.0.0.1:8000": urlsplit(live_server.url).netloc,
    }
    for old, new in changes.items():
        assert old in example
        example = example.replace(old, new)
    example = re.sub(r" *ssl_certificate.*\n", "", example)
    folders = "".join(
        f"{each}_temp_path {tmp_path}/{each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # The files of tests belong to whoever runs them.
    user = f"user {Path.home().owner()};\n"
    (tmp_path / "nginx.conf").write_text(
        f"{user}daemon off;\npid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\n"
        f"http {{\n{folders}{example}\n}}\n",
        encoding="utf-8",
    )

    def answers(_: services.Service) -> bool:
        try:
            ask("/healthz")
        except OSError:
            return False
        return True

    def ask(path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        told = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return told

    command = [program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    server = services._start(command, services.temporary_folder("elicit-nginx-"), ready=answers)
    yield ask
    server.stop()


@pytest.mark.worker
def test_nginx_sends_images_and_releases_and_nothing_that_the_site_did_not_allow(
    release: Release, nginx: Callable[..., tuple[int, dict[str, str], bytes]], tmp_path: Path
) -> None:
    sha256 = image_store.put(picture(6))
    status, told, body = nginx(image_address(sha256))
    assert (status, body) == (200, image_store.rendered(sha256, 3))
    assert (told["content-type"], told["cache-control"]) == ("image/png", FOR_EVER)
    assert told["x-content-type-options"] == "nosniff"
    assert "x-accel-redirect" not in told
    assert nginx(image_address(sha256), If_None_Match=told["etag"])[0] == 304
    status, told, part = nginx(image_address(sha256), Range="bytes=4-9")
    assert (status, part, told["content-range"]) == (206, body[4:10], f"bytes 4-9/{len(body)}")
    assert nginx(image_address("0" * 64))[0] == 404

    assert nginx(ZIP)[0] == 302
    mine = {"Cookie": f"sessionid={researcher().cookies['sessionid'].value}"}
    whole = (Path(site.RELEASES_ROOT) / release.folder / f"{release.name}.zip").read_bytes()
    status, told, body = nginx(ZIP, **mine)
    assert (status, body == whole) == (200, True)
    assert told["content-disposition"] == f'attachment; filename="{release.name}.zip"'
    assert told["cache-control"] == "private, no-cache"
    assert "sandbox" in told["content-security-policy"]
    assert nginx(ZIP, If_None_Match=told["etag"], **mine)[0] == 304
    status, _, tail = nginx(ZIP, Range="bytes=-10", If_Range=told["etag"], **mine)
    assert (status, tail) == (206, whole[-10:])
    assert nginx(ZIP, Range="bytes=0-3", If_Range='"other"', **mine)[2] == whole
    assert nginx(ZIP, Range=f"bytes={len(whole)}-", **mine)[0] == 416

    for path in (
        f"/protected/releases/{release.folder}/{release.name}.zip",
        "/protected/",
        "/protected/rendered/../secret-key",
    ):
        assert nginx(path)[0] == 404
    nginx("/session/a-token-of-somebodys/?PROLIFIC_PID=somebody")
    log = (tmp_path / "elicit.log").read_text(encoding="utf-8")
    assert "/session/[link]/" in log
    assert "somebody" not in log
