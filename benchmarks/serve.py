"""How many answers a second the site takes in: `python -m benchmarks.serve`, some two minutes.

Closed loops of clients (8, then 32) send answers as annotators' browsers do, each the next of its session: authorised
by the session's link, checked, stored once however often it is sent, and answered with the next trial. The site runs as
in docker-compose.yml: its command for the web server, PostgreSQL that survives a power cut, Redis, https behind a
proxy, requests counted, an access log. Beside it, in turns, the floor (`benchmarks/floor.py`): the same server and the
same database server, one SELECT and one INSERT a request, driven by the same client. Server, databases and client share
the machine.

Then everything that docker-compose.yml starts is started, and left alone: its memory, shared pages counted once.

Exits with 1 where the site does less than 40 % of the floor, where the 95th percentile of an answer reaches 50 ms for 8
clients or 150 ms for 32, or where the stack takes 400 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2
import yaml

from benchmarks import apart, load
from tests import services

LEAST_OF_FLOOR = 0.4
MOST_P95_MS = {8: 50.0, 32: 150.0}
MOST_STACK_MB = 400.0
IDLE_SECONDS = 20.0
HOST = "elicit.example.org"
RATES = "address:100000000/minute,begin:100000000/minute,sign-in:30/minute,holder:100000000/minute"


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds; `share` is that of two runs one after the other. `load`: of the machine before it."""

    clients: int
    answers_per_second: float
    p50_ms: float
    p95_ms: float
    floor_per_second: float
    floor_p95_ms: float
    share: float
    least_share: float
    answers: int
    load: float

    @property
    def falls_short(self) -> bool:
        return self.share < LEAST_OF_FLOOR or self.p95_ms >= MOST_P95_MS.get(self.clients, float("inf"))


def web_command() -> list[str]:
    """What docker-compose.yml starts, without the address that it listens at."""
    command: list[str] = _compose()["services"]["web"]["command"]
    where = command.index("--bind")
    return command[:where] + command[where + 2 :]


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((services.ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


def environment(server: str, broker: str, folder: Path) -> dict[str, str]:
    """An installation with a public address, a database of its own on this server, and nothing in it."""
    return {
        "ELICIT_VAR": str(folder),
        "ELICIT_DATABASE_URL": services.new_database(server),
        "ELICIT_BROKER_URL": broker,
        "ELICIT_PUBLIC_URL": f"https://{HOST}",
        "ELICIT_SECRET_KEY": secrets.token_hex(32),
        "ELICIT_FIELD_KEYS": secrets.token_hex(32),
        "ELICIT_RATES": RATES,
    }


def analyze(database: str) -> None:
    """As autovacuum does: a table that is told to be empty has its plans made for that, and kept while it fills."""
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > 0")
            for (table,) in cursor.fetchall():
                cursor.execute(f"ANALYZE {table}")


# --- Parts that run in the site's settings


def sessions(number: int) -> list[dict[str, Any]]:
    """A live study and so many sessions at their first trial: the token of each, and its trials."""
    import django

    django.setup()
    from django.core.management import call_command

    from annotations import selectors
    from tests import factories as make

    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    per_session = 25
    labels = number * per_session // 1000 + 1
    study = make.make_study(dataset=make.make_dataset(1000), images_per_session=per_session, labels_per_image=labels)
    begun = []
    for seed in range(number):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        begun.append({"token": session.token, "trials": [str(t.pk) for t in selectors.open_trials(session)]})
    return begun


def floor_rows() -> None:
    from benchmarks import floor

    floor.prepare(1000)


# --- Requests


def answers(session: dict[str, Any], draw: random.Random) -> Iterator[bytes]:
    """What a browser sends for each of the session's trials, in order."""
    for trial in session["trials"]:
        yield answer(session["token"], trial, draw)


def answer(token: str, trial: str, draw: random.Random) -> bytes:
    """One answer: two categories, three ruled out, and how it came about."""
    first, second, *others = draw.sample(range(10), 5)
    percentage = draw.randint(50, 95)
    times = [
        {"field": field, "category": category, "first_ms": at, "last_ms": at + 300, "changes": 0, "input": "keyboard"}
        for field, category, at in (
            ("top", first, 900),
            ("percentage", first, 1400),
            ("plausible", second, 2300),
            ("percentage", second, 2900),
            ("impossible", others[0], 3600),
        )
    ]
    body = {
        "named": [
            {"category": first, "percentage": percentage},
            {"category": second, "percentage": 100 - percentage},
        ],
        "impossible": others,
        "duration_ms": draw.randint(3000, 9000),
        "hidden_ms": 0,
        "revises": None,
        "process": {"input": "keyboard", "first_touch_ms": 900, "changes": 0, "fields": times, "warnings": []},
    }
    return load.request(
        "PUT",
        f"/api/trials/{trial}/responses/{uuid.UUID(int=draw.getrandbits(128), version=4)}",
        json.dumps(body).encode(),
        Host=HOST,
        X_Forwarded_Proto="https",
        X_Forwarded_For="192.0.2.1",
        Content_Type="application/json",
        Accept="application/json",
        Accept_Language="en",
        Authorization=f"Session {token}",
    )


def floor_answers(draw: random.Random) -> Iterator[bytes]:
    """The same bodies, for the floor."""
    body = answer("", "", draw).partition(b"\r\n\r\n")[2]
    while True:
        yield load.request("POST", f"/answer/item-{draw.randrange(1000)}", body, Content_Type="application/json")


# --- Measuring


def measure(clients: list[int], rounds: int, seconds: float) -> tuple[list[Figures], dict[str, float]]:
    draw = random.Random(1)
    database, redis = services.own_postgres(durable=True), services.forgetful_redis()
    server, broker = database.url, redis.url
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elicit-serve-")))
        site = environment(server, broker, folder)
        # Sessions enough for 600 answers a second.
        enough = int(rounds * len(clients) * seconds * 600 / 27) + sum(clients)
        begun = apart.run("serve", {**os.environ, **site}, "sessions", enough)
        waiting = iter(begun)
        bare = {"ELICIT_DATABASE_URL": services.new_database(server)}
        apart.run("serve", {**os.environ, **bare}, "floor")
        ours = stack.enter_context(services.gunicorn(web_command(), site))
        floor = stack.enter_context(
            services.gunicorn(["benchmarks.floor" if word == "elicit.wsgi" else word for word in web_command()], bare)
        )

        def of_sessions() -> Iterator[bytes]:
            for session in waiting:
                yield from answers(session, draw)

        found = []
        for number in clients:
            busy = os.getloadavg()[0]
            runs: list[tuple[load.Run, load.Run]] = []
            for turn in range(rounds + 1):
                # The first turn warms both up, and has the planner know the tables: autovacuum's work, once a minute.
                lasts = seconds if turn else 1.0
                below = load.drive(floor.url, [floor_answers(draw) for _ in range(number)], seconds=lasts)
                run = load.drive(ours.url, [of_sessions() for _ in range(number)], seconds=lasts)
                if set(run.statuses) != {201} or set(below.statuses) != {201} or run.broken or below.broken:
                    said = ours.output()[-4000:]
                    raise SystemExit(f"{said}\nNot every answer was taken: {run.statuses}, floor {below.statuses}.")
                runs += [(run, below)] * bool(turn)
                if not turn:
                    analyze(site["ELICIT_DATABASE_URL"])
                    analyze(bare["ELICIT_DATABASE_URL"])
            shares = [run.per_second / below.per_second for run, below in runs]
            found.append(
                Figures(
                    clients=number,
                    answers_per_second=median(run.per_second for run, _ in runs),
                    p50_ms=median(run.quantile(0.5) for run, _ in runs),
                    p95_ms=median(run.quantile(0.95) for run, _ in runs),
                    floor_per_second=median(below.per_second for _, below in runs),
                    floor_p95_ms=median(below.quantile(0.95) for _, below in runs),
                    share=median(shares),
                    least_share=min(shares),
                    answers=sum(sum(run.statuses.values()) for run, _ in runs),
                    load=busy,
                )
            )
    # What is left of the crowd goes, and what Compose starts is started anew.
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elicit-serve-")))
        site = environment(server, broker, folder)
        apart.run("serve", {**os.environ, **site}, "sessions", 1)
        parts = {
            "web": stack.enter_context(services.gunicorn(web_command(), site)),
            "worker": stack.enter_context(services.worker(site, "--queues", "celery")),
            "clock": stack.enter_context(services.beat(site)),
            "PostgreSQL": database.service,
            "Redis": redis.service,
        }
        time.sleep(IDLE_SECONDS)
        return found, {name: sum(map(own_mb, services.family(part.pid))) for name, part in parts.items()}


def own_mb(pid: int) -> float:
    """What a process takes, each page shared with others counted in part (PSS), in MB of 2**20 bytes."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return int(told.partition("Pss:")[2].split()[0]) / 1024


def tell(found: Figures) -> None:
    print(
        f"{found.clients:>3} clients: {found.answers_per_second:.0f} answers a second, p50 {found.p50_ms:.1f} ms, "
        f"p95 {found.p95_ms:.1f} ms; floor {found.floor_per_second:.0f} a second, p95 {found.floor_p95_ms:.1f} ms: "
        f"{100 * found.share:.0f} % of it (least {100 * found.least_share:.0f} %); {found.answers} answers, "
        f"load {found.load:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32], metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    apart.forget_settings()
    began = time.perf_counter()
    found, memory = measure(options.clients, options.rounds, options.seconds)
    if options.json:
        print(json.dumps({"serve": [asdict(each) for each in found], "memory_mb": memory}))
    else:
        for each in found:
            tell(each)
        told = ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items())
        print(f"at rest {sum(memory.values()):.0f} MB: {told}; {time.perf_counter() - began:.0f} s in all")
    raise SystemExit(any(each.falls_short for each in found) or sum(memory.values()) >= MOST_STACK_MB)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sessions", number]:
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
            print(json.dumps(sessions(int(number))))
        case ["floor"]:
            floor_rows()
            print("null")
        case _:
            main()
