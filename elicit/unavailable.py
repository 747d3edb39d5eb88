"""503 where the database, or the disk, can't do now what it can do again later: to people a page, to programs an error.

Anything else that fails is a defect, and stays 500.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from annotations import languages
from elicit import observing
from jobs.services import is_full

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
# SQLSTATE of whoever writes to a standby, or to a database that was set to be read only.
READ_ONLY = "25006"
# SQLite's name for what is wrong with a statement, where others say ProgrammingError.
WRONG_STATEMENT = "SQLITE_ERROR"


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: no connection, no room, a time limit, a deadlock, read only."""
    cause = error.__cause__
    if isinstance(error, OperationalError):
        return getattr(cause, "sqlite_errorname", "") != WRONG_STATEMENT
    if isinstance(error, InterfaceError):
        return "closed" in str(error)
    if isinstance(error, InternalError):
        return getattr(cause, "pgcode", "") == READ_ONLY
    return is_full(error)


class Unavailable:
    """Answers for a view that failed on what passes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return _told(request, exception) if is_passing(exception) else None


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's handler500: what failed outside of any view, in signing in or in a session's cookie, passes as well."""
    error = sys.exc_info()[1]
    return _told(request, error) if error and is_passing(error) else observing.server_error(request)


def _told(request: HttpRequest, error: BaseException) -> HttpResponse:
    # One line: who is away, and not a trace for each of those who asked meanwhile.
    log.error("503 %s: %s: %s", request.path, type(error).__name__, str(error).strip().partition("\n")[0])
    if request.path_info.startswith("/api/"):
        answer = HttpResponse(status=503)  # elicit/json_errors.py has its words
    else:
        languages.speak(request)
        answer = render(request, "annotate/unavailable.html", {"here": request.get_full_path()}, status=503)
    answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    answer.headers["Cache-Control"] = "no-store"
    return answer
