"""Where a study may send its annotators when they are done."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from django.conf import settings

# Nothing that browsers and Python could read differently: no user, no backslash, no space.
_PLAIN = re.compile(r"https://(?P<host>[a-z0-9.-]+)(:443)?([/?#][!-\[\]-~]*)?")


def return_url_problem(url: str) -> str:
    """Why a study can't lead there, in words; empty where it can."""
    if not _PLAIN.fullmatch(url):
        return "The link has to begin with https:// and a host in small letters, and hold no spaces or backslashes."
    host = urlsplit(url).hostname or ""
    if not any(fnmatchcase(host, allowed) for allowed in settings.RETURN_HOSTS):
        return (
            f"{host} is none of the hosts that annotators may be sent to: {', '.join(settings.RETURN_HOSTS)}. "
            "Whoever runs the server can add it to ELICIT_RETURN_HOSTS."
        )
    return ""
