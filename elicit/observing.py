"""Watch each request: what its lines in the log are about, and how long it took."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from annotations import languages
from elicit import counters, logs

_SANE = re.compile(r"[A-Za-z0-9-]{1,64}")
# Load balancers and Prometheus find containers by their network addresses, which are no names of the site's. No answer
# to them is built on the name.
PROBES = {"/healthz", "/readyz", "/metrics"}


class Observe:
    """Gives every request an id, tells `elicit.logs` about it and counts it with its time.

    Stands first among the middleware, so that nothing is answered past it. Of a streamed file the time is that to its
    first byte.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        about = logs.About(given if _SANE.fullmatch(given) else secrets.token_hex(8))
        request.META[logs.IN_ENVIRON] = about
        if request.path_info in PROBES:
            request.META["HTTP_HOST"] = "localhost"
        with logs.concerning(about):
            response = self.get_response(request)
        route = about.route or ("static" if request.path_info.startswith(settings.STATIC_URL) else "none")
        # The console's many pages are one: they are for a few people.
        route = "admin" if route.startswith("admin:") else route
        took = time.perf_counter() - began
        counters.REQUESTS.labels(route, f"{response.status_code // 100}xx").observe(took)
        response.headers["X-Request-ID"] = about.request_id
        return response

    def process_view(self, request: HttpRequest, view: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if request.resolver_match is not None:
            logs.present().route = request.resolver_match.view_name


def server_error(request: HttpRequest) -> HttpResponse:
    """The page for a failure: with the number by which it is found in the log."""
    languages.speak(request)
    failed = render(request, "annotate/failed.html", {"number": logs.present().request_id}, status=500)
    failed.headers["Cache-Control"] = "no-store"
    return failed
