"""What broken and hostile requests do to what is stored: `python -m benchmarks.fuzz`, 100,000 of them.

Takes valid requests of every route by which an annotator writes, spoils most of them, and sends them. After each batch
the rows are read and judged by rules of this file's own, which share no code with what stored them: every response is a
whole and valid answer and the one that was sent, counts grew by what was answered 201 and by nothing else, no image has
more than K labels, and nobody else's rows changed. Exits with 1 where one of it fails, a request was answered 5xx, or
/api/ answered no JSON.

Runs in this process on a PostgreSQL of its own, thrown away afterwards; the last `--over-http` requests go to gunicorn.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

IMAGES = 12
CATEGORIES = 10
LABELS_PER_IMAGE = 4
BATCH = 500
DAY_MS = 24 * 60 * 60 * 1000
DEVICES = ("", "keyboard", "mouse", "touch", "pen", "mixed")
JSON = "application/json"


@dataclass(frozen=True)
class Request:
    kind: str
    method: str
    path: str
    body: bytes
    token: str = ""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def all_headers(self) -> dict[str, str]:
        """As Python's libraries take them: UTF-8, read as Latin-1."""
        mine = {"Authorization": f"Session {self.token}"} if self.token else {}
        return {name: value.encode().decode("latin-1") for name, value in {**mine, **dict(self.headers)}.items()}


@dataclass(frozen=True)
class Answered:
    status: int
    content_type: str
    body: bytes


Send = Callable[[Request], Answered]


class WrongWrite(Exception):
    """What is stored breaks a rule."""


# --- Ways to spoil a request

STRANGE: list[Any] = [
    None, True, False, -1, 0, 1.5, 1e308, -1e308, 2**31, 2**63, -(2**63) - 1, 10**400, "", "3", "NaN", "\0", "\ud800",
    "é", "x" * 3000, [], {}, [[]], [None], {"category": 1}, 100.0000001, 99.99999999999999, -0.0, 1e-320,
]  # fmt: skip
WORDS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 5000, b'"\\ud83d"', b'"\\u0000"', b"0x10", b"01",
]  # fmt: skip
NO_TEXT = [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb\xbf"]
WHOLE = [b"", b"[" * 5000, b'{"named":' * 5000, b"null", b"[]", b'"', b"{}", b"[" * 200 + b"]" * 200]
TYPES = [
    "text/plain", "application/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "",
    "application/json; charset=utf-16", "application/json; charset=rot13", "application/json;;;", "a/b/c", "*/*",
]  # fmt: skip


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(inner, (*path, key))


def put_at(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put_at(copy[path[0]], path[1:], change)
    return copy


def _instead(strange: Any, _: Any) -> Any:
    return strange


def spoil_structure(rng: random.Random, body: bytes) -> bytes:
    try:
        data = json.loads(body)
    except ValueError:
        return body
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places_in(data)))
        match rng.randrange(5):
            case 0 | 1:
                data = put_at(data, path, partial(_instead, rng.choice(STRANGE)))
            case 2:
                data = put_at(data, path, lambda old: [old, old])
            case 3:
                data = put_at(data, path, _without_one)
            case _:
                data = put_at(data, path, lambda old: {**old, "extra": 1} if isinstance(old, dict) else {"value": old})
    return json.dumps(data).encode()


def _without_one(value: Any) -> Any:
    if isinstance(value, dict) and value:
        return dict(list(value.items())[1:])
    return value[1:] if isinstance(value, list) else None


def spoil_bytes(rng: random.Random, body: bytes) -> bytes:
    at, to = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    match rng.randrange(9):
        case 0:
            return body[:at]
        case 1:
            return body + body
        case 2:
            return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
        case 3:
            return body[:at] + body[to:]
        case 4:
            return body[:at] + rng.choice(NO_TEXT) + body[at:]
        case 5:
            return body.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"]))
        case 6:
            digits = [number for number, byte in enumerate(body) if chr(byte).isdigit()]
            cut = rng.choice(digits) if digits else at
            return body[:cut] + rng.choice(WORDS) + body[cut + 1 :]
        case 7:
            inner = body[1:-1]
            return b"{" + inner + b"," + inner + b"}" if inner else b"{}"
        case _:
            return rng.choice(WHOLE)


def spoil_envelope(rng: random.Random, request: Request, world: World) -> Request:
    match rng.randrange(8):
        case 0:
            return replace(request, content_type=rng.choice(TYPES))
        case 1:
            return replace(request, body=gzip.compress(request.body), headers=(("Content-Encoding", "gzip"),))
        case 2:
            return replace(request, body=base64.b64encode(request.body))
        case 3:
            return replace(request, token=rng.choice(["", "x", "é" * 9, request.token[:-1], request.token.upper()]))
        case 4:
            return replace(request, path=request.path + rng.choice(["/", "//", "?x=%00", "%00", "/..", "%ff", ";a=b"]))
        case 5:
            return replace(request, method=rng.choice(["POST", "PATCH", "GET", "HEAD", "OPTIONS", "DELETE", "PUT"]))
        case 6:
            for mine in world.trials:
                request = replace(request, path=request.path.replace(mine, rng.choice(world.others)))
            return request
        case _:
            return replace(request, headers=(("Accept", rng.choice(["text/html", "image/png", "*/*;q=x", ""])),))


def spoil(rng: random.Random, request: Request, world: World) -> Request:
    if request.kind == "withdraw":
        return spoil_envelope(rng, request, world)
    chance = rng.random()
    if chance < 0.4:
        return replace(request, body=spoil_structure(rng, request.body))
    if chance < 0.7:
        return replace(request, body=spoil_bytes(rng, request.body))
    if chance < 0.705:
        return replace(request, body=request.body + b" " * (1 << 20))
    if chance < 0.71:
        return replace(request, body=json.dumps({"named": [{"category": 1, "percentage": 1}] * 25_000}).encode())
    return spoil_envelope(rng, request, world)


# --- The site under fire


@dataclass
class World:
    """A live study, the session at work in it, and somebody else's, whose rows nothing of this may touch."""

    number: int = 0
    slug: str = ""
    token: str = ""
    session: Any = None
    trials: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    said: list[tuple[str, str, bytes]] = field(default_factory=list)
    studies: list[Any] = field(default_factory=list)
    other_sessions: list[Any] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)

    def renew(self) -> None:
        """Another session; another study where this one is full."""
        from django.utils import timezone

        from annotations.errors import AnnotationError
        from tests import factories as make

        self.said = []
        while True:
            try:
                if not self.studies:
                    raise AnnotationError("study_full", "")
                self.session = make.make_session(self.studies[-1], seed=self.number, now=timezone.now())
                self.made["sessions"] += 1
                self.session = make.begin(self.session, seed=self.number, now=timezone.now())
                break
            except AnnotationError:
                self._launch()
        self.number += 1
        self.token = self.session.token
        self.trials = [str(pk) for pk in self.session.trials.order_by("position").values_list("pk", flat=True)]

    def _launch(self) -> None:
        from django.utils import timezone

        from annotations.models import Dataset
        from tests import factories as make

        dataset = Dataset.objects.filter(slug="fuzz").first() or make.make_dataset(IMAGES, slug="fuzz")
        study = make.make_study(
            dataset=dataset,
            name=f"Fuzz {len(self.studies)}",
            images_per_session=IMAGES,
            repeats_per_session=1,
            labels_per_image=LABELS_PER_IMAGE,
        )
        self.studies.append(study)
        self.slug = study.slug
        now = timezone.now()
        other = make.begin(make.make_session(study, platform_id=f"other {study.pk}", seed=1, now=now), seed=1, now=now)
        for trial in list(other.trials.order_by("position"))[:3]:
            make.respond(trial, now=now)
        self.made["sessions"] += 1
        self.made["responses"] += 3
        self.other_sessions.append(other.pk)
        self.others = [str(pk) for pk in other.trials.values_list("pk", flat=True)]

    def next_request(self, rng: random.Random) -> Request:
        """A request that is valid, or was."""
        chance = rng.random()
        if chance < 0.03:
            body = json.dumps({"consent_version": 1, "parameters": {"pid": str(rng.randrange(10**9))}}).encode()
            return Request("begin", "POST", f"/api/studies/{self.slug}/sessions", body)
        if chance < 0.05:
            form = urlencode({"agree": "on", "version": 1}).encode()
            return Request("consent", "POST", f"/study/{self.slug}/", form, "", "application/x-www-form-urlencoded")
        if chance < 0.10:
            step = rng.choice(["instructions", "practice", "comprehension", "questionnaire"])
            body = json.dumps({"step": step, "attempt": 0, "answers": {"clarity": "9", "comment": "é"}}).encode()
            return Request("step", "POST", "/api/session/step", body, self.token)
        if chance < 0.102:
            return Request("withdraw", "DELETE", "/api/session", b"", self.token)
        if chance < 0.15:
            body = b'{"reason": "image_failed"}'
            return Request("skip", "PUT", f"/api/trials/{rng.choice(self.trials)}/skip", body, self.token)
        trial, key, body = rng.choice(self.trials), str(uuid.UUID(int=rng.getrandbits(128), version=4)), answer(rng)
        if self.said and chance < 0.30:
            trial, key, body = rng.choice(self.said)
            if chance < 0.22:
                body = answer(rng)
            if chance < 0.19:
                body = json.dumps({**json.loads(answer(rng)), "revises": key}).encode()
                key = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        return Request("answer", "PUT", f"/api/trials/{trial}/responses/{key}", body, self.token)


def answer(rng: random.Random) -> bytes:
    """A valid answer, with everything that a browser sends."""
    order = rng.sample(range(CATEGORIES), CATEGORIES)
    named, ruled_out = order[: rng.randint(1, 4)], order[4 : 4 + rng.randrange(5)]
    percentages = sorted((rng.randint(1, 100) for _ in named), reverse=True)
    times = {"field": "top", "category": named[0], "first_ms": 5, "last_ms": 9, "changes": 1, "input": "mouse"}
    return json.dumps(
        {
            "named": [{"category": c, "percentage": p} for c, p in zip(named, percentages, strict=True)],
            "impossible": ruled_out,
            "duration_ms": rng.randint(0, 60_000),
            "hidden_ms": rng.choice([0, 900]),
            "process": {
                "input": rng.choice(DEVICES[1:]),
                "first_touch_ms": rng.choice([None, 400]),
                "changes": rng.randrange(9),
                "fields": [times],
                "warnings": [{"code": "too_fast", "ms": 7, "kept": True}],
            },
        }
    ).encode()


# --- What is stored, judged independently


def judge_rows(since: datetime) -> int:
    """Look at every response that came since; returns how many there are.

    Raises:
        WrongWrite: one of them is none that a person could have given.
    """
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT r.id, r.named, r.impossible, r.top_category, r.top_percentage, r.sum_percentage, r.duration_ms,
                      r.hidden_ms, r.input_device, r.first_touch_ms, r.changes, r.process
               FROM annotations_response r WHERE r.received_at >= %s""",
            [since],
        )
        rows = cursor.fetchall()
    for row in rows:
        key, named, ruled_out, top, top_share, total, duration, hidden, device, touched, changes, process = (
            json.loads(each) if isinstance(each, str) and each[:1] in ("[", "{") else each for each in row
        )
        categories, shares = [pair[0] for pair in named], [pair[1] for pair in named]
        right = (
            named
            and all(type(each) is int and 0 <= each < CATEGORIES for each in (*categories, *ruled_out))
            and len(set(categories)) == len(categories)
            and len(set(ruled_out)) == len(ruled_out)
            and not set(categories) & set(ruled_out)
            and all(type(each) in (int, float) and 0 <= each <= 100 for each in shares)
            and shares == sorted(shares, reverse=True)
            and (top, top_share) == (categories[0], shares[0])
            and top_share > 0
            and abs(total - sum(shares)) < 1e-9
            and 0 <= duration <= DAY_MS
            and 0 <= hidden < 2**31
            and device in DEVICES
            and (touched is None or 0 <= touched <= DAY_MS)
            and 0 <= changes <= 10_000
            and set(process) <= {"fields", "warnings"}
            and len(json.dumps(process)) < 1 << 20
        )
        if not right:
            raise WrongWrite(f"response {key} is no valid answer: {row}")
    return len(rows)


def judge_receipts(receipts: dict[str, bytes]) -> None:
    """What is stored under these ids is what was sent, not something that can be made of it.

    Raises:
        WrongWrite: it is not.
    """
    from annotations.models import Response

    stored = Response.objects.filter(pk__in=receipts).values_list(
        "pk", "named", "impossible", "duration_ms", "hidden_ms"
    )
    for key, named, impossible, duration, hidden in stored:
        sent = json.loads(receipts[str(key)].decode("utf-8"))
        # As the schema says, less than a millionth of a per cent is none.
        shares = [(each["category"], float(each["percentage"])) for each in sent["named"]]
        said = [[category, share if share >= 1e-6 else 0.0] for category, share in shares]
        # Whole numbers may come as text. What was erased since is not looked for.
        times = float(sent["duration_ms"]), float(sent.get("hidden_ms", 0))
        same = said == [[category, float(percentage)] for category, percentage in named]
        if not same or sorted(sent.get("impossible", [])) != sorted(impossible) or times != (duration, hidden):
            raise WrongWrite(f"response {key}: {sent} was sent, {named}, {impossible}, {duration}, {hidden} is stored")


RULES = {
    "a trial's revisions are 1, 2, ... and the last is the current one": """
        SELECT trial_id FROM annotations_response GROUP BY trial_id
        HAVING max(revision) <> count(*) OR sum(CASE WHEN current THEN 1 ELSE 0 END) <> 1
            OR max(CASE WHEN current THEN revision ELSE 0 END) <> max(revision)""",
    "K places on every batch": """
        SELECT batch_id FROM annotations_place JOIN annotations_study s ON s.id = study_id
        GROUP BY batch_id, s.labels_per_image HAVING count(*) <> s.labels_per_image""",
    "no image has more than K labels that count": """
        SELECT s.study_id, t.image_id FROM annotations_response r
        JOIN annotations_trial t ON t.id = r.trial_id JOIN annotations_session s ON s.id = t.session_id
        JOIN annotations_study y ON y.id = s.study_id
        WHERE r.current AND t.place_id IS NOT NULL GROUP BY s.study_id, t.image_id, t.framing, y.labels_per_image
        HAVING count(*) > y.labels_per_image""",
    "a trial counts in a place of its own session": """
        SELECT t.id FROM annotations_trial t JOIN annotations_place p ON p.id = t.place_id
        WHERE p.session_id IS NOT NULL AND p.session_id <> t.session_id""",
    "nothing is left of who withdrew": """
        SELECT r.id FROM annotations_response r JOIN annotations_trial t ON t.id = r.trial_id
        JOIN annotations_session s ON s.id = t.session_id WHERE s.status = 'withdrawn'""",
}  # fmt: skip


def judge_rules() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        for rule, query in RULES.items():
            cursor.execute(query)
            if broken := cursor.fetchall():
                raise WrongWrite(f"{rule}: not so for {broken[:3]}")


def of_others(sessions: list[Any]) -> str:
    """A hash over every row of these sessions, whose links nobody here has."""
    from annotations.models import Response, Session, Trial

    digest = hashlib.sha256()
    for rows in (
        Session.objects.filter(pk__in=sessions),
        Trial.objects.filter(session__in=sessions),
        Response.objects.filter(trial__session__in=sessions),
    ):
        digest.update(repr(list(rows.order_by("pk").values_list())).encode())
    return digest.hexdigest()


# --- Under fire


@dataclass
class Outcome:
    """How many requests were answered how, by kind; and how long it all took."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: float = 0.0
    stored: int = 0

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())


def fuzz(requests: int, seed: int, send: Send, *, batch: int = BATCH) -> Outcome:
    """Send so many requests, two thirds of them spoilt, and judge what is stored after each batch.

    Raises:
        WrongWrite: a rule is broken, with the seed and the number of the batch.
    """
    from django.utils import timezone

    from annotations.models import Response, Session

    rng, world, outcome = random.Random(seed), World(), Outcome()
    world.renew()
    while outcome.requests < requests:
        world.made.clear()
        since, begun = timezone.now(), time.perf_counter()
        stored, begins, erased = Response.objects.count(), 0, 0
        sessions, others = Session.objects.count(), of_others(world.other_sessions)
        watched = list(world.other_sessions)
        answers: list[tuple[Request, Answered]] = []
        # An id may be stored again after a withdrawal, so that there may be fewer receipts.
        created, receipts = 0, dict[str, bytes]()
        size = min(batch, requests - outcome.requests)
        for _ in range(size):
            request = world.next_request(rng)
            if rng.random() < 2 / 3:
                request = spoil(rng, request, world)
            held = Response.objects.filter(trial__session=world.session).count() if request.method == "DELETE" else 0
            answered = send(request)
            answers.append((request, answered))
            outcome.statuses[request.kind, answered.status] += 1
            begins += (request.kind, answered.status) in (("begin", 201), ("consent", 302))
            if request.kind == "answer" and answered.status == 201:
                _, _, _, trial, _, key = request.path.partition("?")[0].split("/")
                world.said.append((trial, key, request.body))
                receipts[key] = request.body
                created += 1
            if answered.status == 204:
                erased += held
            if answered.status == 204 or _is_over(answered):
                world.renew()
        outcome.seconds += time.perf_counter() - begun
        where = f"seed {seed}, batch ending at {outcome.requests}"
        for request, answered in answers:
            judge_answer(request, answered, where)
        grown, due = Response.objects.count() - stored, created + world.made["responses"] - erased
        if grown != due:
            raise WrongWrite(f"{where}: {grown} more responses, and not {due}: {created} were answered 201")
        grown, due = Session.objects.count() - sessions, begins + world.made["sessions"]
        if grown != due:
            raise WrongWrite(f"{where}: {grown} more sessions, and not {due}")
        if of_others(watched) != others:
            raise WrongWrite(f"{where}: somebody else's rows changed")
        outcome.stored += judge_rows(since)
        judge_receipts(receipts)
        judge_rules()
    return outcome


def _is_over(answered: Answered) -> bool:
    """Whether the session has nothing more to answer; now and then a finished one is asked on."""
    return answered.status == 409 and b"session_not_at_trials" in answered.body


def judge_answer(request: Request, answered: Answered, where: str) -> None:
    """What every answer has to be, whatever was asked.

    Raises:
        WrongWrite: a failure of the server, or an error under /api/ that is not of the one form.
    """
    told = f"{where}: {request.method} {request.path} ({request.content_type}) {request.body[:300]!r}"
    if answered.status >= 500:
        raise WrongWrite(f"{told} was answered {answered.status}: {answered.body[-2000:]!r}")
    if request.path.startswith("/api/") and answered.status >= 400 and request.method != "HEAD":
        try:
            body = json.loads(answered.body)
        except ValueError:
            body = None
        if not isinstance(body, dict) or set(body) != {"code", "message", "fields"} or not body["code"]:
            raise WrongWrite(f"{told} was answered {answered.status}: {answered.body[:300]!r}")


def in_process() -> Send:
    """Django's own client: the whole chain of middleware, and no network."""
    from django.test import Client

    client = Client(raise_request_exception=False)

    def send(request: Request) -> Answered:
        client.cookies.clear()
        headers = request.all_headers
        response = client.generic(request.method, request.path, request.body, request.content_type, headers=headers)
        body = b"".join(response) if response.streaming else response.content
        return Answered(response.status_code, response.get("Content-Type", ""), body)

    return send


def over_http(url: str) -> Send:
    """A server, a connection for each request: that one breaks is the fault of this request alone.

    Raises:
        WrongWrite: the server hung up on a body that is not too large.
    """
    address = urlsplit(url)

    def send(request: Request) -> Answered:
        headers = request.all_headers
        headers |= {"Content-Type": request.content_type} if request.content_type else {}
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            return Answered(response.status, response.headers.get("Content-Type", ""), response.read())
        except (http.client.HTTPException, ConnectionError) as error:
            # A server may close the door on a body that is too large before all of it came.
            if len(request.body) < 1 << 20:
                raise WrongWrite(f"no answer to {request.method} {request.path}: {error!r}") from error
            return Answered(413, JSON, b'{"code": "closed", "message": "", "fields": {}}')
        finally:
            connection.close()

    return send


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--over-http", type=int, default=5_000, help="so many more, to gunicorn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    from tests import services

    folder = services.temporary_folder("elicit-fuzz-")
    (folder / "static").mkdir()
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "elicit.settings",
        "ELICIT_DATABASE_URL": services.postgres(),
        "ELICIT_VAR": str(folder),
        "ELICIT_LOG_LEVEL": "CRITICAL",
        "ELICIT_RATES": "off",
        "ELICIT_SECRET_KEY": "for this benchmark alone, and long enough for every check of Django",
    }
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    settings.ALLOWED_HOSTS.append("testserver")
    call_command("migrate", verbosity=0)
    figures = []
    with contextlib.ExitStack() as stack:
        runs: list[tuple[str, int, Callable[[], Send]]] = [("in process", arguments.requests, in_process)]
        if arguments.over_http:
            url = stack.enter_context(services.web(dict(os.environ))).url
            runs.append(("over HTTP", arguments.over_http, lambda: over_http(url)))
        for name, requests, sender in runs:
            try:
                outcome = fuzz(requests, arguments.seed, sender())
            except WrongWrite as error:
                sys.exit(f"{name}: {error}")
            by_status: Counter[int] = Counter()
            for (_, status), count in outcome.statuses.items():
                by_status[status] += count
            figures.append(
                {
                    "how": name,
                    "requests": outcome.requests,
                    "seconds": round(outcome.seconds, 1),
                    "a_second": round(outcome.requests / outcome.seconds, 1),
                    "responses_stored": outcome.stored,
                    "statuses": dict(sorted(by_status.items())),
                }
            )
            if not arguments.json:
                print(*(f"{key}: {value}" for key, value in figures[-1].items()), sep="\n", flush=True)
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
