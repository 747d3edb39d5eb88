"""Send a release's files: whole, by range, or not at all where the client has them."""

from __future__ import annotations

import mimetypes
import re
from pathlib import Path
from typing import BinaryIO, cast

from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.utils.http import content_disposition_header

from elicit import handing_over
from elicit.handing_over import has_it
from exports import selectors
from exports.errors import ExportError
from exports.models import Release


def file_response(request: HttpRequest, release: Release, name: str) -> HttpResponseBase:
    """The file `name` of a ready release; `release.zip` is all of it.

    Only names of the manifest are looked up, so no path can lead elsewhere.
    """
    refuse_withheld(release)
    if name == "release.zip":
        path, sha256, as_name = selectors.archive(release), release.zip_sha256, f"{release.name}.zip"
    elif name in selectors.file_names(release):
        entry = release.manifest["files"].get(name)
        path = selectors.folder(release) / name
        sha256, as_name = entry["sha256"] if entry else release.digest, f"{release.name}-{name}"
    else:
        raise Http404("This release has no such file.")
    etag = f'"{sha256}"'
    if has_it(request, etag):
        return HttpResponseNotModified(headers={"ETag": etag})
    return _send(request, path, as_name, etag)


def refuse_withheld(release: Release) -> None:
    """Raise ExportError ``release_withheld`` where nothing of a release may be given out any more."""
    if release.withheld:
        raise ExportError("release_withheld", f"{release.superseded_reason} {_successor(release)}")


def _successor(release: Release) -> str:
    if release.superseded_by is None:
        return "This release is not given out any more."
    return f"{release.superseded_by.name} takes the place of this release."


def _send(request: HttpRequest, path: Path, as_name: str, etag: str) -> HttpResponseBase:
    kind = mimetypes.guess_type(as_name)[0] or "application/octet-stream"
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise Http404("The file is gone from the server's disk: ask the curator to build it again.") from error
    if handing_over.is_on():
        with file:
            return _hand_over(path, as_name, kind)
    size = path.stat().st_size
    wanted = _wanted_range(request, size, etag)
    if wanted is not None and not wanted:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}", "ETag": etag})
    body: BinaryIO = file if wanted is None else cast("BinaryIO", _Part(file, wanted))
    response = FileResponse(body, as_attachment=True, filename=as_name, content_type=kind)
    if wanted is not None:
        response.status_code = 206
        response["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        response["Content-Length"] = str(len(wanted))
    response["Accept-Ranges"] = "bytes"
    response["Cache-Control"] = ASK_EACH_TIME
    response["ETag"] = etag
    return response


# A release never changes, but who may see it can.
ASK_EACH_TIME = "private, no-cache"


def _hand_over(path: Path, as_name: str, kind: str) -> HttpResponse:
    disposition = content_disposition_header(as_attachment=True, filename=as_name) or "attachment"
    headers = {"Content-Type": kind, "Content-Disposition": disposition, "Cache-Control": ASK_EACH_TIME}
    return handing_over.hand_over(handing_over.RELEASES, path, headers)


RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


def _wanted_range(request: HttpRequest, size: int, etag: str) -> range | None:
    """The bytes asked for (RFC 9110, 14.2): None for all of them, an empty range where the file has none of them.

    Several ranges at once, other units and what can't be read are ignored, as the standard allows: the whole file
    answers them.
    """
    match = RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = match[1], match[2]
    if first:
        wanted = range(int(first), min(int(last or size - 1), size - 1) + 1)
        return None if last and int(last) < int(first) else wanted
    # bytes=-n: the last n.
    return range(max(0, size - int(last)), size) if last else None


class _Part:
    """Some bytes of an open file, as `FileResponse` reads them."""

    def __init__(self, file: BinaryIO, wanted: range) -> None:
        self.file = file
        self.left = len(wanted)
        file.seek(wanted.start)

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(chunk)
        return chunk

    def close(self) -> None:
        self.file.close()
