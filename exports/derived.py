"""What follows from a release's files: made when somebody first looks, and kept beside the releases.

All of it may be deleted at any time. A release never changes, so neither does what is kept under its digest; of one
that is withheld nothing is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings

from elicit.labels.overview import Overview
from elicit.labels.release_files import OpenRelease, describe
from exports import figures, selectors
from exports.downloads import refuse_withheld
from exports.models import Release

VERSION = 1
"""Raised whenever `figures`, `elicit.plots`, `Overview` or `describe` would make something else of the same files."""

MOST_CHANGED = 200
"""Images whose labels a difference holds; the command line gives more."""


def opened(release: Release) -> OpenRelease:
    """A ready release's files.

    Raises:
        Refusal: ``release_withheld``; ``release_not_found`` where they are gone from the disk; or as `OpenRelease`.
    """
    refuse_withheld(release)
    return OpenRelease(selectors.folder(release))


def overview(release: Release) -> Overview:
    """The release as a whole; Refusal as `opened`."""
    files = opened(release)
    return Overview.from_bytes(_kept("overview.npz", lambda: Overview.of(files).to_bytes(), release))


def figure(release: Release, name: str) -> bytes:
    """The SVG of one of `figures.NAMES`; Refusal as `opened`."""
    # Whoever took the files away wants no picture of them either.
    categories = opened(release).categories
    return _kept(f"{name}.svg", lambda: figures.BY_NAME[name](overview(release), categories).svg(), release)


def difference(older: Release, newer: Release) -> dict[str, Any]:
    """`describe` of two releases; Refusal as `opened`, or ``categories_differ``."""
    a, b = opened(older), opened(newer)
    made = _kept(
        f"since-{older.digest}.json", lambda: json.dumps(describe(a, b, most=MOST_CHANGED)).encode(), newer, older
    )
    found: dict[str, Any] = json.loads(made)
    return found


def difference_figure(older: Release, newer: Release) -> bytes:
    """The SVG of `figures.moved`; Refusal as `difference`."""
    found = difference(older, newer)
    return _kept(f"since-{older.digest}.svg", lambda: figures.moved(found).svg(), newer, older)


def tag(*parts: str) -> str:
    """The ETag of what follows from releases with these digests."""
    return f'"{"-".join([*parts, str(VERSION)])}"'


def forget(release: Release) -> None:
    """Remove all that was kept of a release, also of its differences from others."""
    root = _root()
    for folder in root.glob(f"{release.digest}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in root.glob(f"*/*{release.digest}*"):
        path.unlink(missing_ok=True)


def _root() -> Path:
    return Path(settings.RELEASES_ROOT) / ".derived"


def _kept(name: str, make: Callable[[], bytes], *releases: Release) -> bytes:
    """What is kept under the name, with the first of the releases that it is made from."""
    path = _root() / f"{releases[0].digest}-{VERSION}" / name
    with suppress(OSError):
        return path.read_bytes()
    body = make()
    # Two may make it at once: each in a file of its own, and both the same.
    part = path.with_name(f".{uuid4().hex}-{name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(body)
        part.replace(path)
    except OSError:
        # A full disk is no reason to show nothing.
        with suppress(OSError):
            part.unlink(missing_ok=True)
    # Withheld while this was made: whoever removed the files has looked here before there was something.
    for release in Release.objects.filter(pk__in=[each.pk for each in releases], withheld=True):
        forget(release)
    return body
