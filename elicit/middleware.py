"""Headers that every response carries."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class ContentSecurityPolicy:
    """Nothing inline and nothing from elsewhere, on every page. Django 6.0 has this built in; 5.2 has not."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response


class NulInAddress:
    """400 instead of a failure where a NUL in the address came as far as PostgreSQL, which takes none in any text.

    Pages that know what their parameters look like answer in words of their own before that.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        holds = "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", "")
        if holds and isinstance(exception, ValueError):
            return HttpResponseBadRequest("The address holds a NUL character.", content_type="text/plain")
        return None
