"""Have the proxy before the site send a file, once a view has decided that it may be had (nginx's X-Accel-Redirect).

`ELICIT_ACCEL_REDIRECT` names the internal location; docs/how-to/nginx.md shows how nginx is told. Unset, the site sends
every file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.http import parse_etags

# The folders that the proxy may read, by name: nothing else lies under the location.
RELEASES = "releases"
RENDERED = "rendered"


def is_on() -> bool:
    return bool(settings.ACCEL_REDIRECT)


def root_of(folder: str) -> Path:
    return Path({RELEASES: settings.RELEASES_ROOT, RENDERED: settings.RENDERED_ROOT}[folder])


def has_it(request: HttpRequest, etag: str) -> bool:
    """Whether the client says that it holds this very version already."""
    # Proxies that compress weaken an ETag; clients may send several.
    return etag in (each.removeprefix("W/") for each in parse_etags(request.headers.get("If-None-Match", "")))


def hand_over(folder: str, path: Path, headers: Mapping[str, str]) -> HttpResponse:
    """An answer without a body, which the proxy takes for the order to send the file. Ranges are its business then.

    Raises:
        ValueError: the file lies elsewhere than in `folder`.
    """
    inside = path.relative_to(root_of(folder)).as_posix()
    return HttpResponse(
        headers={**headers, "X-Accel-Redirect": quote(f"{settings.ACCEL_REDIRECT}{folder}/{inside}")},
    )
