"""What the whole HTTP API has in common: the form of an error, and which status a refusal gets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404
from rest_framework import exceptions
from rest_framework.parsers import JSONParser
from rest_framework.response import Response
from rest_framework.views import exception_handler

from elicit.labels.elicited import Contradiction
from elicit.labels.errors import Refusal

# What was there, and is not given out any more; every other refusal is a conflict with the present state.
GONE = {"release_withheld"}


class StrictJSONParser(JSONParser):
    """JSON in UTF-8: DRF's own parser fails on deep nesting and lets the client's `charset` name any codec."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            return json.loads(stream.read().decode("utf-8"), parse_constant=_no_constant)
        except RecursionError as error:
            raise exceptions.ParseError("The JSON is nested too deeply.") from error
        except ValueError as error:
            raise exceptions.ParseError(f"The body is not JSON: {error}.") from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """`{code, message, fields}` for every error that an API view raises; None lets Django answer 500."""
    if isinstance(error, Contradiction):
        return _envelope(HTTPStatus.UNPROCESSABLE_ENTITY, error.code, error.message, error.fields)
    if isinstance(error, Refusal):
        status = HTTPStatus.GONE if error.code in GONE else HTTPStatus.CONFLICT
        return _envelope(status, error.code, error.message, error.fields)
    if isinstance(error, RequestDataTooBig):
        return _envelope(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "The body is too large.")
    response = exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, exceptions.ValidationError):
        fields = dict(_flatten(error.get_full_details()))
        body = _envelope(response.status_code, "invalid", "The request is not of the documented form.", fields)
    else:
        code = {Http404: "not_found", PermissionDenied: "permission_denied"}.get(type(error), "")
        detail = getattr(error, "detail", None)
        code = code or getattr(detail, "code", "error")
        body = _envelope(response.status_code, code, str(detail or error) or HTTPStatus(response.status_code).phrase)
    for name in ("WWW-Authenticate", "Retry-After"):
        if name in response:
            body[name] = response[name]
    return body


def _envelope(status: int, code: str, message: str, fields: dict[str, str] | None = None) -> Response:
    return Response({"code": code, "message": message, "fields": fields or {}}, status)


def _flatten(details: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """DRF's nested error details as dotted field names: `named.0.percentage`."""
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        yield path or "body", str(details["message"])
    elif isinstance(details, dict):
        for name, inner in details.items():
            yield from _flatten(inner, path if name == "non_field_errors" else f"{path}.{name}".lstrip("."))
    elif isinstance(details, list):
        leaf = all(isinstance(inner, dict) and set(inner) == {"message", "code"} for inner in details)
        if leaf:
            yield path or "body", " ".join(str(inner["message"]) for inner in details)
        else:
            for number, inner in enumerate(details):
                yield from _flatten(inner, f"{path}.{number}".lstrip("."))


def document_errors(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: say of every operation that whatever else it answers is an error of the one form."""
    schema = {"$ref": "#/components/schemas/ErrorOut"}
    error = {"content": {"application/json": {"schema": schema}}, "description": "Any other status: an error."}
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", error)
    return result
