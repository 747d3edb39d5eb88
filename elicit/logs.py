"""What logs hold: lines for people or JSON for programs, what each is about, and nothing that they must not hold."""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from datetime import UTC, datetime

_HIDDEN = (
    # Whoever reads the token of a personal link in a log could go on in somebody's name.
    (re.compile(r"(?<!/api)(/session/)[^/\s\"'?]+"), r"\1[link]"),
    # gunicorn's own words: people's network addresses, and queries, which may hold the ids that platforms gave.
    (re.compile(r"(?<=Invalid request from ip=)\S+(?=: )"), "[address]"),
    (re.compile(r"(Error handling request (?:[A-Z]+ )?[^\s?]*)\?\S*"), r"\1"),
)


def redacted(text: str) -> str:
    """The text without the tokens of personal links, and without what gunicorn tells of whoever asked."""
    for hidden, instead in _HIDDEN:
        text = hidden.sub(instead, text)
    return text


class Redact(logging.Filter):
    """Takes them out of what is logged, its traceback included."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True


# --- What is being done


@dataclass(slots=True)
class About:
    """What a line of the log is about, as far as it is known: a request, or a job.

    `session_id` is the key of the annotator's session, which opens nothing: neither the token of its link nor an id of
    a platform. `status` and `duration_ms` are known at the end.
    """

    request_id: str = ""
    session_id: str = ""
    route: str = ""
    method: str = ""
    path: str = ""
    status: int | None = None
    duration_ms: float | None = None
    job_id: int | None = None
    job_kind: str = ""

    def known(self) -> dict[str, object]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in ("", None)}


NOTHING = About()
_now: ContextVar[About] = ContextVar("about", default=NOTHING)
# Where a request's About lies in its environ, for gunicorn, which writes its line when the request is over.
IN_ENVIRON = "elicit.about"


def present() -> About:
    """What this thread is at."""
    return _now.get()


@contextmanager
def concerning(about: About) -> Iterator[About]:
    """What is logged meanwhile is about this."""
    before = _now.set(about)
    try:
        yield about
    finally:
        _now.reset(before)


def begin(about: About = NOTHING) -> None:
    """What is logged from here on is about this, or about nothing in particular."""
    _now.set(about)


def of_session(session_id: object) -> None:
    """The present request is one of this session."""
    if (about := present()) is not NOTHING:
        about.session_id = str(session_id)


# --- How it is written


class Line(logging.Formatter):
    """For people: one line, and at its end the request or job by which others are found."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:
        about = present()
        of = f" [request {about.request_id}]" if about.request_id else f" [job {about.job_id}]" if about.job_id else ""
        return super().formatMessage(record) + of


class Json(logging.Formatter):
    """For programs: an object a line. Of a record's extras none is written, only what `About` names: Django's, for one,
    hold the request with its address."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()),
            **present().known(),
        }
        # What `Redact` left there, which is the same without tokens.
        error = record.exc_text or ("".join(traceback.format_exception(*record.exc_info)) if record.exc_info else "")
        if error:
            told["error"] = redacted(error)
        return json.dumps(told, default=str)


FORMATS = ("line", "json")


def as_json() -> bool:
    """Whether `ELICIT_LOG_FORMAT` says so; read here too because gunicorn logs before there are settings."""
    return os.environ.get("ELICIT_LOG_FORMAT") == "json"
