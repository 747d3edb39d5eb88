"""Errors under /api/ that no API view raised. Apart from `elicit.api`, which REST framework's own views import."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from elicit import logs

# Where nobody said anything better.
PLAIN = {
    400: ("bad_request", "The request can't be read."),
    403: ("permission_denied", "This is not allowed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take that method."),
    406: ("not_acceptable", "The answer can't be given in that form."),
    413: ("too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body has to be application/json."),
    416: ("range_not_satisfiable", "The file has none of these bytes."),
    429: ("throttled", "Too many requests: try again later."),
    500: ("server_error", "The server failed. The request can be sent again."),
    503: ("unavailable", "The server can't answer now. The request can be sent again."),
}


def envelope(code: str, message: str, fields: Mapping[str, str] | None = None) -> dict[str, object]:
    """The body of every error."""
    return {"code": code, "message": message, "fields": dict(fields or {})}


class JsonErrors:
    """Under /api/ an error is JSON also where no API view raised it: no such address, a refused host, a failure.

    Stands before the other middleware, so that it sees what all of them answer; their headers stay.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if not isinstance(response, HttpResponse):  # a file, and so no error
            return response
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if not request.path_info.startswith("/api/") or response.status_code < 400 or kind == "application/json":
            return response
        if settings.DEBUG and response.status_code >= 500:
            return response  # Django's own page tells a developer more
        code, message = PLAIN.get(response.status_code, ("error", HTTPStatus(response.status_code).phrase + "."))
        if response.status_code >= 500 and (number := logs.present().request_id):
            message = f"{message} Its number in the log is {number}."
        response.content = json.dumps(envelope(code, message)).encode()
        response.headers["Content-Type"] = "application/json"
        response.headers["Content-Length"] = str(len(response.content))
        return response
