"""What a researcher does: list releases, fetch and check their files, compare them, watch a study."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import quote

import requests

from elicit_client.calling import Caller, Calls, ElicitError, study_address
from elicit_client.types import DashboardOut, DifferencesOut, FileOut, PaginatedReleaseOutList, ReleaseOut

CHUNK = 1 << 20
WHOLE = "release.zip"


class Elicit(Calls):
    """A researcher at an installation. `token` is made on its page `/releases/`."""

    def __init__(self, url: str, token: str, **options: Any) -> None:
        """`options`: `timeout` in seconds, `http` (a `requests.Session`), `sleep`, as `calling.Caller` takes them."""
        super().__init__(Caller(url, f"Token {token}", **options))

    def releases(self, *, study: str = "", variety: str = "") -> Iterator[ReleaseOut]:
        """Every release that is ready, newest first, page by page; of one study, or of one label variety."""
        query: dict[str, object] = {"limit": 100, "offset": 0}
        query |= {name: value for name, value in (("study", study), ("variety", variety)) if value}
        while True:
            page = cast("PaginatedReleaseOutList", self.caller.send("GET", "/api/releases", query=query).json())
            yield from page["results"]
            query["offset"] = cast("int", query["offset"]) + len(page["results"])
            if not page.get("next") or not page["results"]:
                return

    def release(self, study: str, version: int) -> ReleaseOut:
        """One release, with its files and their hashes."""
        return cast("ReleaseOut", self.caller.send("GET", _address(study, version)).json())

    def differences(self, study: str, version: int, other: int | str, *, limit: int = 50) -> DifferencesOut:
        """What changed from a release to another: a version of the same study, or `study/2`."""
        query = {"with": str(other), "limit": limit}
        return cast(
            "DifferencesOut", self.caller.send("GET", _address(study, version) + "/differences", query=query).json()
        )

    def dashboard(self, study: str) -> DashboardOut:
        """How a study stands just now, for whoever may see studies: people by step, coverage, cost, alarms."""
        return cast("DashboardOut", self.caller.send("GET", study_address(study, "/dashboard")).json())

    def download(self, study: str, version: int, folder: Path | str, name: str = WHOLE) -> Path:
        """Fetch one file of a release into `folder`; `release.zip` is all of it. Returns where it lies.

        A file that lies there whole is not fetched again; a broken download is gone on with. The file takes its name
        only once its sha256 is right.

        Raises:
            ElicitError: refused; `wrong_hash` where what came is not what the release lists, `not_found` for a name
                that it does not list.
        """
        listed = {file["name"]: file for file in self.release(study, version)["files"]}
        if name not in listed:
            raise ElicitError(404, "not_found", f"{study}/{version} has no file {name}.", {})
        return self._fetch(listed[name], study, version, Path(folder))

    def download_all(self, study: str, version: int, folder: Path | str) -> list[Path]:
        """Fetch every file of a release into `folder`, as `download` does each."""
        files = self.release(study, version)["files"]
        return [self._fetch(file, study, version, Path(folder)) for file in files if file["name"] != WHOLE]

    def _fetch(self, file: FileOut, study: str, version: int, folder: Path) -> Path:
        inside = PurePosixPath(file["name"])
        if inside.is_absolute() or ".." in inside.parts:
            raise ElicitError(502, "wrong_name", f"{file['name']} is no name of a file in a release.", {})
        target = folder / inside
        if target.is_file() and _sha256(target) == file["sha256"]:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{file['sha256'][:16]}.part")
        address = f"{_address(study, version)}/files/{quote(file['name'])}"
        for tries in range(5, 0, -1):
            try:
                self._go_on(address, part, file)
                break
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout):
                if tries == 1:
                    raise
        if _sha256(part) != file["sha256"]:
            part.unlink()
            raise ElicitError(502, "wrong_hash", f"{file['name']} came with another sha256 than the release lists.", {})
        part.replace(target)
        return target

    def _go_on(self, address: str, part: Path, file: FileOut) -> None:
        """Fetch what is missing of a file."""
        have = part.stat().st_size if part.exists() else 0
        if have > file["bytes"]:
            part.unlink()
            have = 0
        if have == file["bytes"] and part.exists():
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{file["sha256"]}"'}
        answer = self.caller.send("GET", address, headers=headers, stream=True)
        with answer, part.open("ab" if answer.status_code == 206 else "wb") as out:
            for chunk in answer.iter_content(CHUNK):
                out.write(chunk)
        if part.stat().st_size < file["bytes"]:
            raise requests.ConnectionError(f"{file['name']} broke off.")


def _address(study: str, version: int) -> str:
    return f"/api/releases/{quote(study, safe='')}/{version:d}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
