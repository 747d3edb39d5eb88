"""What annotators notice of a Redis that is away: `python -m benchmarks.broker`, about two minutes.

On a real site (PostgreSQL, gunicorn, requests counted as by default) sessions of three answers and a questionnaire are
answered over the HTTP API, one after the other: with Redis at work, killed, and frozen, so that it takes connections
and says nothing. Prints what an answer took, and the last page, which rings for a worker.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.real_input import installation
from tests import services

# The client of the same checkout.
sys.path.insert(0, str(services.ROOT / "client"))
from elicit_client import Sitting

ANSWERS = 3
STATES = ("at work", "killed", "frozen")
# What one Redis leaves behind, a process's breaker say, is over by then.
A_WHILE = 11.0


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what came."""
    began = time.perf_counter()
    found = what()
    return 1000 * (time.perf_counter() - began), found


def sit(url: str, token: str) -> tuple[list[float], float]:
    """Milliseconds of each answer, and of the last page."""
    answers = []
    with Sitting(url, token) as sitting:
        following = sitting.standing()["next"]
        while following is not None:
            took, reply = timed(partial(sitting.respond, following["id"], [(3, 80)], duration_ms=900))
            answers.append(took)
            following = reply["next"]
        said = {"clarity": "9", "difficulty": "3"}
        last, standing = timed(partial(sitting.leave_step, "questionnaire", answers=said))
        if standing["status"] != "completed":
            raise SystemExit(f"A session ended at {standing['status']}.")
    return answers, last


def measure(sessions: int) -> list[dict[str, Any]]:
    found = []
    with installation() as place:
        redis = services.forgetful_redis()
        environment = {**place.environment, "ELICIT_BROKER_URL": redis.url, "ELICIT_RATES": ""}
        place.manage("migrate", "--verbosity", "0")
        place.manage("collectstatic", "--noinput", "--verbosity", "0")
        command = [sys.executable, "-m", "benchmarks.faults", "populate", str(sessions * len(STATES)), str(ANSWERS)]
        made = subprocess.run(
            command, cwd=services.ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True
        )
        tokens = json.loads(made.stdout)
        with services.web(environment) as web:
            for number, state in enumerate(STATES):
                match state:
                    case "killed":
                        redis.kill()
                    case "frozen":
                        redis.start_again()
                        time.sleep(A_WHILE)
                        sit(web.url, tokens.pop())
                        redis.signal(signal.SIGSTOP)
                mine = tokens[number * (sessions - 1) : (number + 1) * (sessions - 1)]
                sat = [sit(web.url, token) for token in mine]
                answers = np.array([took for own, _ in sat for took in own])
                last = np.array([took for _, took in sat])
                found.append(
                    {
                        "Redis": state,
                        "answers": len(answers),
                        "answer, median ms": round(float(np.median(answers)), 1),
                        "answer, longest ms": round(float(answers.max()), 1),
                        "last page, median ms": round(float(np.median(last)), 1),
                        "last page, longest ms": round(float(last.max()), 1),
                    }
                )
        redis.signal(signal.SIGCONT)
        redis.service.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100, help="in each state of Redis")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.sessions)
    if options.json:
        print(json.dumps(found))
        return
    for row in [dict(zip(found[0], found[0], strict=True)), *found]:
        print("".join(f"{row[name]!s:>{max(12, len(name) + 2)}}" for name in found[0]))


if __name__ == "__main__":
    main()
