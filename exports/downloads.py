"""Send a release's files: whole, or not at all where the client has them."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from django.http import FileResponse, Http404, HttpRequest, HttpResponseBase, HttpResponseNotModified
from django.utils.http import parse_etags

from exports import selectors
from exports.models import Release


def file_response(request: HttpRequest, release: Release, name: str) -> HttpResponseBase:
    """The file `name` of a ready release; `release.zip` is all of it.

    Only names of the manifest are looked up, so no path can lead elsewhere.
    """
    if name == "release.zip":
        path, sha256, as_name = selectors.archive(release), release.zip_sha256, f"{release.name}.zip"
    elif name in selectors.file_names(release):
        entry = release.manifest["files"].get(name)
        path = selectors.folder(release) / name
        sha256, as_name = entry["sha256"] if entry else release.digest, f"{release.name}-{name}"
    else:
        raise Http404("This release has no such file.")
    etag = f'"{sha256}"'
    # Proxies that compress weaken an ETag; clients may send several.
    if etag in (each.removeprefix("W/") for each in parse_etags(request.headers.get("If-None-Match", ""))):
        return HttpResponseNotModified(headers={"ETag": etag})
    return _send(path, as_name, etag)


def _send(path: Path, as_name: str, etag: str) -> FileResponse:
    kind = mimetypes.guess_type(as_name)[0] or "application/octet-stream"
    try:
        response = FileResponse(path.open("rb"), as_attachment=True, filename=as_name, content_type=kind)
    except FileNotFoundError as error:
        raise Http404("The file is gone from the server's disk: ask the curator to build it again.") from error
    # A release never changes, but who may see it can: the browser asks each time.
    response["Cache-Control"] = "private, no-cache"
    response["ETag"] = etag
    return response
