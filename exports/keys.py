"""How an address names a release: `study/v2`."""

from __future__ import annotations

import re

from exports import selectors
from exports.models import Release

KEY = re.compile(r"([-a-zA-Z0-9_]{1,200})/v?([0-9]{1,9})")


def key(release: Release) -> str:
    """The release's name in an address."""
    return f"{release.study.slug}/v{release.version}"


def find(text: str) -> Release | None:
    """The ready release of a `key`."""
    match = KEY.fullmatch(text)
    if match is None:
        return None
    return selectors.ready_releases().filter(study__slug=match[1], version=int(match[2])).first()
