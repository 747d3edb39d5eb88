"""The soak of benchmarks/soak.py in short: every part dies at least once under a crowd, and the ledger agrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import services

pytestmark = [
    pytest.mark.slow,
    pytest.mark.worker,
    pytest.mark.xdist_group("soak"),
    pytest.mark.timeout(1200),
    pytest.mark.skipif("ELICIT_TEST_DATABASE_URL" in os.environ, reason="kills a PostgreSQL of its own"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds PostgreSQL's processes by /proc"),
]


def soak(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *arguments, "--json"],
        cwd=services.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_three_minutes_in_which_everything_dies_lose_nothing_that_was_accepted() -> None:
    crowd = ("--minutes", "3", "--annotators", "40", "--think", "2")
    status, report = soak(*crowd, "--kill-every", "15", "--release-every", "15", "--seed", "2")

    assert not any(report["broken"].values()), (report["broken"], report["complaints"], report["happened"])
    assert status == 0
    assert set(report["deaths"]) == {"web", "worker", "clock", "redis", "postgres"}
    assert all(report["deaths"].values())
    assert report["answers accepted"] > 300
    assert report["sent again"] > 0
    assert report["releases requested"] > 0


def test_the_ledger_tells_where_people_forget_to_send_again() -> None:
    crowd = ("--minutes", "0.8", "--annotators", "20", "--think", "1")
    status, report = soak(*crowd, "--kill-every", "6", "--seed", "1", "--forget-outbox")

    assert report["broken"]["accepted answers lost"] > 0
    assert status == 1
