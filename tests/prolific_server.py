"""A Prolific of the tests' own: a small HTTP server that speaks as much of the documented API as is used here.

It keeps submissions and bonuses, and counts what it paid. It can be told to fail: answer with a status, or act and
then not answer, which is the case that matters for money. It sends signed webhooks, duplicates and forgeries alike,
when asked; a lost event is one that nobody asks for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-tests"
SECRET = "secret-of-the-tests"
STUDY = "5f3a00000000000000000abc"


def an_id(number: int) -> str:
    """24 hexadecimal digits, as Prolific's ids have."""
    return f"{number:024x}"


@dataclass
class Failure:
    """What happens to the next requests whose `method path` matches `pattern`."""

    pattern: str
    status: int = 500
    times: int = 1
    acts: bool = False  # do what was asked, and answer badly all the same
    hangs: float = 0.0  # seconds before the answer, if any: longer than the client's patience is a time-out
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """A submission."""

    id: str
    study: str
    person: str
    status: str = "ACTIVE"
    entered_code: str = ""
    bonuses: list[int] = field(default_factory=list)
    return_requested: str | None = None
    rejection: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "study_id": self.study,
            "participant": self.person,
            "status": self.status,
            "started_at": "2026-01-01T12:00:00Z",
            "completed_at": None,
            "entered_code": self.entered_code or None,
            "bonus_payments": self.bonuses,
            "return_requested": self.return_requested,
        }


class FakeProlific:
    """The server's state, and the levers of a test."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.submissions: dict[str, Row] = {}
        self.bulks: dict[str, tuple[str, int]] = {}
        self.failures: list[Failure] = []
        self.requests: list[str] = []
        self.approvals = 0
        self.url = ""

    # --- Levers

    def add(self, number: int, *, status: str = "ACTIVE", study: str = STUDY) -> Row:
        """Submission `number` of person 1000 + `number`."""
        row = Row(an_id(number), study, an_id(1000 + number), status)
        self.submissions[row.id] = row
        return row

    def fail(self, pattern: str, **how: Any) -> None:
        self.failures.append(Failure(pattern, **how))

    def paid_minor(self) -> int:
        """All bonuses that ever went out."""
        return sum(sum(row.bonuses) for row in self.submissions.values())

    def event(
        self, row: Row, *, event_id: str = "", at: float | None = None, secret: str = SECRET
    ) -> tuple[bytes, dict[str, str]]:
        """The body and headers of a webhook about a submission, signed as documented."""
        body = json.dumps(
            {
                "resource_id": row.id,
                "event_type": "submission.status.change",
                "participant_id": row.person,
                "status": row.status,
            }
        ).encode()
        timestamp = str(int(time.time() if at is None else at))
        digest = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).digest()
        return body, {
            "X-Prolific-Request-Signature": base64.b64encode(digest).decode(),
            "X-Prolific-Request-Timestamp": timestamp,
            "X-Event-ID": event_id or uuid.uuid4().hex,
        }

    # --- The API

    def answer(self, method: str, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        path = parts.path.removeprefix("/api/v1/")
        with self.lock:
            match (method, path.strip("/").split("/")):
                case ("GET", ["submissions"]):
                    return self._list(parse_qs(parts.query))
                case ("GET", ["submissions", pk]):
                    return self._one(pk, lambda row: None)
                case ("POST", ["submissions", "bonus-payments"]):
                    return self._set_up(body)
                case ("POST", ["submissions", pk, "transition"]):
                    return self._transition(pk, body)
                case ("POST", ["submissions", pk, "request-return"]):
                    return self._one(pk, lambda row: setattr(row, "return_requested", "2026-01-01T13:00:00Z"))
                case ("POST", ["bulk-bonus-payments", pk, "pay"]):
                    return self._pay(pk)
        return 404, {"error": {"detail": "no such endpoint"}}

    def _one(self, pk: str, change: Any) -> tuple[int, dict[str, Any]]:
        row = self.submissions.get(pk)
        if row is None:
            return 404, {"error": {"detail": "not found"}}
        change(row)
        return 200, row.body()

    def _list(self, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        page, size = int(query.get("page", ["1"])[0]), int(query.get("page_size", ["20"])[0])
        rows = [row for row in self.submissions.values() if row.study == query["study"][0]]
        some = rows[(page - 1) * size : page * size]
        results = [
            {"id": row.id, "participant_id": row.person, "status": row.status, "study_code": row.entered_code or None}
            for row in some
        ]
        return 200, {"results": results}

    def _transition(self, pk: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        def change(row: Row) -> None:
            action = body.get("action")
            if action == "APPROVE" and row.status != "APPROVED":
                row.status = "APPROVED"
                self.approvals += 1
            elif action == "REJECT":
                row.status = "REJECTED"
                row.rejection = {"message": body["message"], "category": body["rejection_category"]}
            elif action == "COMPLETE":
                row.status, row.entered_code = "SCREENED OUT", body["completion_code"]

        if body.get("action") == "REJECT" and len(body.get("message", "")) < 100:
            return 400, {"error": {"detail": "message too short"}}
        return self._one(pk, change)

    def _set_up(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        submission, amount = body["csv_bonuses"].split(",")
        row = self.submissions.get(submission)
        if row is None or row.study != body["study_id"]:
            return 400, {"error": {"detail": "unknown ids"}}
        assert re.fullmatch(r"\d+\.\d\d", amount), amount
        bulk = uuid.uuid4().hex
        self.bulks[bulk] = (submission, round(float(amount) * 100))
        return 201, {"id": bulk, "amount": float(amount) * 100}

    def _pay(self, bulk: str) -> tuple[int, dict[str, Any]]:
        """Not idempotent, as its documentation warns: each request pays."""
        if bulk not in self.bulks:
            return 404, {"error": {"detail": "not found"}}
        submission, amount = self.bulks[bulk]
        self.submissions[submission].bonuses.append(amount)
        return 202, {"message": "ok"}


def _handler(state: FakeProlific) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def _serve(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            with state.lock:
                state.requests.append(f"{method} {self.path}")
                failure = next(
                    (f for f in state.failures if f.times > 0 and re.search(f.pattern, f"{method} {self.path}")), None
                )
                if failure is not None:
                    failure.times -= 1
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                return self._send(401, {"error": {"detail": "token"}}, {})
            if failure is None:
                return self._send(*state.answer(method, self.path, body), {})
            if failure.acts:
                state.answer(method, self.path, body)
            time.sleep(failure.hangs)
            self._send(failure.status, {"error": {"detail": "told to fail"}}, failure.headers)

        def _send(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
            data = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client lost patience

    return Handler


@contextmanager
def fake_prolific() -> Iterator[FakeProlific]:
    """The server, on a port of its own, for as long as the block lasts."""
    state = FakeProlific()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
