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

from elicit.json_errors import envelope
from elicit.labels.elicited import Contradiction
from elicit.labels.errors import Refusal

# What was there, and is not given out any more; every other refusal is a conflict with the present state.
GONE = {"release_withheld"}


class StrictJSONParser(JSONParser):
    """JSON in UTF-8: DRF's own parser fails on deep nesting and lets the client's `charset` name any codec."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            text = stream.read().decode("utf-8")
            data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
            if "\\u" in text:  # half of a surrogate pair is no character, and no database stores it
                json.dumps(data, ensure_ascii=False).encode("utf-8")
            return data
        except RecursionError as error:
            raise exceptions.ParseError("The JSON is nested too deeply.") from error
        except ValueError as error:
            raise exceptions.ParseError(f"The body is not JSON: {error}.") from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name given twice nobody knows which value was meant."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object names something twice")
    return made


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
    return Response(envelope(code, message, fields), status)


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


# --- What the schema says of all operations

# Statuses that an operation may answer by its kind, beside those that it documents itself.
ANY = {406: "`not_acceptable`: the answer is JSON.", 429: "`throttled`: too many requests."}
SECURED = {
    401: "`not_authenticated` or `authentication_failed`.",
    403: "`permission_denied`: somebody signed in who may not.",
}
WITH_PATH = {404: "`not_found`."}
WITH_QUERY = {400: "`invalid`: a parameter is not of this form."}
WITH_BODY = {
    400: "`invalid` or `parse_error`: the body is not of this form.",
    413: "`too_large`: more than 1 MiB.",
    415: "`unsupported_media_type`: the body has to be `application/json`.",
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}

# How one operation's answer leads to the next: {operation: {status: {name: link}}}.
_TRIAL = {"trial_id": "$response.body#/next/id"}
_SAID = {"named": [{"category": 0, "percentage": 60}], "duration_ms": 900}
_RELEASE = {"study": "$response.body#/study", "version": "$response.body#/version"}
_FIRST = {"study": "$response.body#/results/0/study", "version": "$response.body#/results/0/version"}
_SAME = {"study": "$request.path.study", "version": "$request.path.version"}
LINKS: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "get_study": {
        "200": {
            "agree": {
                "operationId": "begin_session",
                "parameters": {"slug": "$response.body#/study"},
                "requestBody": {"consent_version": "$response.body#/consent/version"},
                "description": "Whoever agrees to the text begins a session.",
            }
        }
    },
    "begin_session": {
        "201": {
            "stand": {"operationId": "get_session", "description": "With `Authorization: Session {token}`."},
            "read": {"operationId": "leave_step", "requestBody": {"step": "$response.body#/status"}},
            "leave": {"operationId": "withdraw"},
        }
    },
    "get_session": {
        "200": {
            "answer": {"operationId": "put_response", "parameters": _TRIAL, "requestBody": _SAID},
            "skip": {
                "operationId": "skip_trial",
                "parameters": _TRIAL,
                "requestBody": {"reason": "image_failed"},
            },
            "go_on": {"operationId": "leave_step", "requestBody": {"step": "$response.body#/status"}},
        }
    },
    "leave_step": {"200": {"answer": {"operationId": "put_response", "parameters": _TRIAL, "requestBody": _SAID}}},
    "put_response": {
        status: {
            "next": {"operationId": "put_response", "parameters": _TRIAL, "requestBody": _SAID},
            "again": {
                "operationId": "put_response",
                "parameters": {"trial_id": "$response.body#/trial", "response_id": "$response.body#/id"},
                "requestBody": "$request.body",
                "description": "The same id with the same body changes nothing.",
            },
            "correct": {
                "operationId": "put_response",
                "parameters": {"trial_id": "$response.body#/trial"},
                "requestBody": {**_SAID, "revises": "$response.body#/id"},
                "description": "A new id, and `revises` with the old one.",
            },
            "leave": {"operationId": "withdraw"},
        }
        for status in ("200", "201")
    },
    "skip_trial": {"200": {"next": {"operationId": "put_response", "parameters": _TRIAL, "requestBody": _SAID}}},
    "releases_list": {
        "200": {
            "newest": {"operationId": "get_release", "parameters": _FIRST},
            "whole": {"operationId": "get_release_file", "parameters": {**_FIRST, "name": "release.zip"}},
        }
    },
    "get_release": {
        "200": {
            "file": {
                "operationId": "get_release_file",
                "parameters": {**_RELEASE, "name": "$response.body#/files/1/name"},
            },
            "differences": {
                "operationId": "get_release_differences",
                "parameters": {**_RELEASE, "with": "{$response.body#/study}/{$response.body#/version}"},
            },
        }
    },
    "get_release_differences": {"200": {"release": {"operationId": "get_release", "parameters": _SAME}}},
}


def document_errors(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: every operation's errors, all of one form."""
    for address, operations in result["paths"].items():
        for operation in operations.values():
            kinds = [ANY]
            kinds += [SECURED] if any(operation.get("security", [])) else []
            kinds += [WITH_PATH] if "{" in address else []
            kinds += [WITH_BODY] if "requestBody" in operation else []
            kinds += [WITH_QUERY] if any(each["in"] == "query" for each in operation.get("parameters", [])) else []
            responses = operation["responses"]
            for status, description in {status: text for kind in kinds for status, text in kind.items()}.items():
                responses.setdefault(str(status), _documented(description))
            for status in [status for status in responses if status >= "400"]:
                responses[status] = _documented(responses[status]["description"])
            responses["429"]["headers"] = RETRY_AFTER
            responses.setdefault("default", _documented("Any other status: an error."))
    return result


def _documented(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ErrorOut"}
    return {"content": {"application/json": {"schema": schema}}, "description": description}


def link_operations(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: say what an operation's answer is good for (OpenAPI's `links`), and what a path takes."""
    for operations in result["paths"].values():
        for operation in operations.values():
            for status, links in LINKS.get(operation["operationId"], {}).items():
                operation["responses"][status]["links"] = links
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"].update(PATH_FORMS.get(parameter["name"], {}))
    return result


# Of the converters in the URL patterns, which drf-spectacular leaves out.
PATH_FORMS: dict[str, dict[str, Any]] = {
    "study": {"pattern": "^[-a-zA-Z0-9_]+$"},
    "slug": {"pattern": "^[-a-zA-Z0-9_]+$"},
    "version": {"minimum": 0},
}
