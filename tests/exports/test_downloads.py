"""Releases on the researcher's pages and over the token API."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from knox.models import get_token_model

from annotations.models import Study
from elicit.labels import read_release
from exports.models import Release
from tests import factories as make

pytestmark = pytest.mark.django_db

DETAIL = "/releases/birds/1/"
API = "/api/releases/birds/1"


@pytest.fixture
def release(study: Study) -> Release:
    return make.make_release(study)


@pytest.fixture
def researcher() -> Client:
    client = Client()
    client.force_login(make.make_staff("researcher", "exports.view_release"))
    return client


@pytest.fixture
def stranger() -> Client:
    """Signed in, but not allowed to see releases."""
    client = Client()
    client.force_login(make.make_staff("stranger"))
    return client


@pytest.fixture
def token(researcher: Client) -> str:
    response = researcher.post("/releases/token")
    return str(response.context["token"])


class Script(Client):
    """A client that shows a token."""

    def __init__(self, token: str) -> None:
        super().__init__(headers={"Authorization": f"Token {token}"})


def content(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def pages(version: int = 1) -> list[str]:
    return ["/releases/", f"/releases/birds/{version}/", f"/releases/birds/{version}/files/release.zip"]


def endpoints() -> list[str]:
    return ["/api/releases", API, f"{API}/files/release.zip"]


# --- Who may


def test_who_is_not_signed_in_is_sent_to_sign_in(release: Release) -> None:
    for address in pages():
        response = Client().get(address)
        assert response.status_code == 302
        assert response["Location"] == f"/login/?next={address}"
    assert Client().post("/releases/token").status_code == 302
    assert not get_token_model().objects.exists()


def test_who_may_not_see_releases_is_refused(release: Release, stranger: Client) -> None:
    for address in pages():
        assert stranger.get(address).status_code == 403
    assert stranger.post("/releases/token").status_code == 403
    assert not get_token_model().objects.exists()


@pytest.mark.parametrize("authorization", ["", "Token", "Token x", "Token a b", "Basic eDp5", "Session x"])
def test_the_api_asks_for_a_token(release: Release, authorization: str) -> None:
    client = Client(headers={"Authorization": authorization} if authorization else {})
    for address in endpoints():
        response = client.get(address)
        assert response.status_code == 401
        assert set(response.json()) == {"code", "message", "fields"}
        assert response["WWW-Authenticate"] == "Token"


def test_the_api_refuses_who_may_not_see_releases(release: Release, stranger: Client) -> None:
    for address in endpoints():
        response = stranger.get(address)
        assert response.status_code == 403
        assert response.json()["code"] == "permission_denied"


# --- Tokens


def test_a_token_is_shown_once_and_kept_as_a_hash(release: Release, researcher: Client) -> None:
    response = researcher.post("/releases/token")

    token = response.context["token"]
    assert token in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    row = get_token_model().objects.get()
    assert token not in {str(value) for value in row.__dict__.values()}
    assert token not in researcher.get("/releases/").content.decode()
    assert Script(token).get(API).status_code == 200


def test_a_token_is_not_made_by_following_a_link(researcher: Client) -> None:
    assert researcher.get("/releases/token").status_code == 405
    assert not get_token_model().objects.exists()


def test_a_token_ends_after_half_a_year(release: Release, token: str) -> None:
    with time_machine.travel(release.requested_at + timedelta(days=181)):
        assert Script(token).get(API).status_code == 401


def test_a_token_ends_with_its_persons_right(release: Release, token: str) -> None:
    get_token_model().objects.get().user.user_permissions.clear()

    assert Script(token).get(API).status_code == 403


def test_a_token_opens_no_page(release: Release, token: str) -> None:
    assert Script(token).get(DETAIL).status_code == 302
    assert Script(token).get("/admin/").status_code == 302


# --- The list and the details


def test_the_list_shows_every_release_and_its_state(study: Study, researcher: Client) -> None:
    make.make_release(study)
    make.make_release(study, build=False)

    text = researcher.get("/releases/").content.decode()

    assert "Birds v1" in text
    assert "Birds v2" in text
    assert "requested" in text
    assert "ready" in text


def test_without_releases_the_list_says_so(researcher: Client) -> None:
    assert "There are no releases yet" in researcher.get("/releases/").content.decode()


def test_the_page_of_a_release_shows_its_facts_and_files(release: Release, researcher: Client) -> None:
    text = researcher.get(DETAIL).content.decode()

    assert release.digest in text
    assert "t2-clamp" in text
    for name, file in release.manifest["files"].items():
        assert name in text
        assert file["sha256"] in text


def test_a_release_under_way_is_shown_without_files(study: Study, researcher: Client) -> None:
    make.make_release(study, build=False)

    response = researcher.get(DETAIL)

    assert "A worker is building this release" in response.content.decode()
    assert "release.zip" not in response.content.decode()


def test_the_api_lists_what_is_ready_newest_first(study: Study, token: str) -> None:
    for _ in range(3):
        make.make_release(study)
    make.make_release(study, build=False)

    body = Script(token).get("/api/releases?limit=2").json()

    assert body["count"] == 3
    assert [each["version"] for each in body["results"]] == [3, 2]
    assert Script(token).get(body["next"]).json()["results"][0]["version"] == 1


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=x", "offset=9999999999999999999999", "limit=0&offset=-3", "limit=%00"]
)
def test_a_page_of_the_list_that_can_not_be_is_refused_by_name(release: Release, token: str, query: str) -> None:
    response = Script(token).get(f"/api/releases?{query}")

    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert set(response.json()["fields"]) & {"limit", "offset"}


def test_the_api_describes_a_release_with_its_files(release: Release, token: str) -> None:
    body = Script(token).get(API).json()

    assert (body["study"], body["version"], body["digest"]) == ("birds", 1, release.digest)
    assert body["counts"] == release.manifest["counts"]
    assert body["recipe"] == release.recipe
    assert [file["name"] for file in body["files"]] == ["release.zip", *sorted(release.manifest["files"])]


# --- Files


def test_every_file_that_the_api_names_can_be_downloaded_and_is_what_it_says(release: Release, token: str) -> None:
    script = Script(token)
    for file in script.get(API).json()["files"]:
        response = script.get(file["url"])
        raw = content(response)
        assert response.status_code == 200
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (file["bytes"], file["sha256"])
        assert int(response["Content-Length"]) == len(raw)
        assert response["ETag"] == f'"{file["sha256"]}"'


def test_every_file_can_be_downloaded_from_the_page(
    release: Release, researcher: Client, releases: Path, tmp_path: Path
) -> None:
    for name in [*release.manifest["files"], "manifest.json"]:
        response = researcher.get(f"{DETAIL}files/{name}")
        assert content(response) == (releases / "birds-v1" / name).read_bytes()
        assert response["Content-Disposition"] == f'attachment; filename="birds-v1-{name}"'
        assert response["Cache-Control"] == "private, no-cache"
    packed = tmp_path / "downloaded.zip"
    packed.write_bytes(content(researcher.get(f"{DETAIL}files/release.zip")))
    assert read_release(packed).manifest == release.manifest


@pytest.mark.parametrize("accept", ["*/*", "application/zip", "text/csv", "application/octet-stream", "image/png"])
def test_a_file_is_sent_whatever_the_client_says_it_accepts(release: Release, token: str, accept: str) -> None:
    response = Script(token).get(f"{API}/files/responses.csv", headers={"Accept": accept})

    assert response.status_code == 200
    assert content(response)
    assert response["Content-Type"] == "text/csv"


@pytest.mark.parametrize("api", [False, True])
def test_who_has_a_file_already_is_told_so(release: Release, researcher: Client, api: bool) -> None:
    address = f"{API if api else DETAIL.rstrip('/')}/files/release.zip"
    first = researcher.get(address)
    assert content(first)
    etag = first["ETag"]

    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        response = researcher.get(address, headers={"If-None-Match": known})
        assert (response.status_code, response.content, response["ETag"]) == (304, b"", etag)
    for unknown in ('"other"', etag.strip('"'), ""):
        assert content(researcher.get(address, headers={"If-None-Match": unknown}))


@pytest.mark.parametrize(
    "name",
    [
        "..", "../../etc/passwd", "..%2f..%2felicit.sqlite3", "%2e%2e%2fsecret-key", "..%5csecret-key", "/etc/passwd",
        "birds-v1.zip", "responses.csv%00", "%00", "responses.CSV", " responses.csv", "manifest", "release.zip.part",
    ],
)  # fmt: skip
@pytest.mark.parametrize("api", [False, True])
def test_only_the_files_of_the_release_can_be_had(release: Release, researcher: Client, name: str, api: bool) -> None:
    assert researcher.get(f"{API if api else DETAIL.rstrip('/')}/files/{name}").status_code == 404


@pytest.mark.parametrize(
    "path", ["birds/2", "nothing/1", "birds/0", "birds/99999999999999999999", "birds/-1", "birds/x"]
)
def test_a_release_that_is_not_there_is_not_found(release: Release, researcher: Client, path: str) -> None:
    for address in (f"/releases/{path}/", f"/api/releases/{path}", f"/api/releases/{path}/files/release.zip"):
        assert researcher.get(address).status_code == 404


def test_a_release_that_is_not_ready_has_no_files(study: Study, researcher: Client) -> None:
    make.make_release(study, build=False)

    for address in (*endpoints()[1:], pages()[2]):
        response = researcher.get(address)
        assert response.status_code == 404


def test_files_that_are_gone_from_the_disk_are_told_not_a_crash(
    release: Release, researcher: Client, releases: Path
) -> None:
    shutil.rmtree(releases)

    response = researcher.get(f"{API}/files/release.zip")

    assert response.status_code == 404
    assert "gone from the server's disk" in response.json()["message"]


def test_pages_and_files_answer_head(release: Release, researcher: Client) -> None:
    for address in pages():
        response = researcher.head(address)
        assert response.status_code == 200
        assert (content(response) if response.streaming else response.content) == b""


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_releases_can_only_be_read(release: Release, researcher: Client, method: str) -> None:
    for address in (*endpoints(), *pages()):
        assert getattr(researcher, method)(address).status_code == 405


def test_no_answer_names_a_person(release: Release, researcher: Client) -> None:
    for address in (*pages()[:2], *endpoints()[:2]):
        assert "PLATFORM-ID" not in researcher.get(address).content.decode()
        assert json.dumps(release.manifest).count("PLATFORM-ID") == 0


def test_addresses_are_those_that_the_documentation_names() -> None:
    assert reverse("release-file-api", args=["birds", 1, "release.zip"]) == f"{API}/files/release.zip"
    assert reverse("release", args=["birds", 1]) == DETAIL


def test_a_researcher_who_may_not_enter_the_console_signs_in_on_a_page_of_its_own(client: Client) -> None:
    researcher = User.objects.create_user("researcher", password="correct horse battery")
    researcher.user_permissions.add(Permission.objects.get(codename="view_release"))
    page = client.get("/releases/", follow=True)
    assert page.redirect_chain[-1][0] == "/login/?next=/releases/"
    answer = client.post(
        "/login/", {"username": "researcher", "password": "correct horse battery", "next": "/releases/"}, follow=True
    )
    assert answer.status_code == 200
    assert answer.redirect_chain[-1][0] == "/releases/"
    assert client.post("/logout/").status_code == 302
    assert client.get("/releases/").status_code == 302


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=5-", 5, None), ("bytes=-7", -7, None), ("bytes=10-9999999", 10, None)],
)
def test_a_broken_download_goes_on_with_the_bytes_that_are_missing(
    release: Release, researcher: Client, asked: str, first: int, last: int | None
) -> None:
    address = f"{DETAIL}files/soft_labels.csv"
    whole = content(researcher.get(address))
    response = researcher.get(address, headers={"Range": asked})
    expected = whole[first : None if last is None else last + 1]
    assert response.status_code == 206
    assert content(response) == expected
    assert response["Content-Length"] == str(len(expected))
    start = len(whole) - len(expected) if last is None else first
    assert response["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_bytes_that_the_file_has_not_are_refused(release: Release, researcher: Client, asked: str) -> None:
    response = researcher.get(f"{DETAIL}files/soft_labels.csv", headers={"Range": asked})
    assert response.status_code == 416
    assert response["Content-Range"].startswith("bytes */")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=a-b"])
def test_a_range_that_means_nothing_gets_the_whole_file(release: Release, researcher: Client, asked: str) -> None:
    address = f"{DETAIL}files/soft_labels.csv"
    response = researcher.get(address, headers={"Range": asked})
    assert response.status_code == 200
    assert content(response) == content(researcher.get(address))


def test_a_range_of_another_release_gets_the_whole_file(release: Release, researcher: Client) -> None:
    address = f"{DETAIL}files/soft_labels.csv"
    whole = researcher.get(address)
    assert len(content(researcher.get(address, headers={"Range": "bytes=0-9", "If-Range": whole["ETag"]}))) == 10
    assert content(researcher.get(address, headers={"Range": "bytes=0-9", "If-Range": '"old"'})) == content(whole)


@pytest.mark.parametrize(
    ("query", "found"),
    [("", 1), ("?study=birds", 1), ("?study=fish", 0), ("?variety=t2-clamp", 1), ("?variety=t1-none", 0)],
)
def test_the_list_of_releases_can_be_narrowed(release: Release, researcher: Client, query: str, found: int) -> None:
    assert researcher.get(f"/api/releases{query}").json()["count"] == found


@pytest.mark.parametrize("name", ["study", "variety"])
def test_a_list_narrowed_by_what_no_database_takes_is_refused_with_a_word(researcher: Client, name: str) -> None:
    answer = researcher.get(f"/api/releases?{name}=a%00b")

    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {name}
