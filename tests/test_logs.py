"""What comes into a log, and which sites gunicorn starts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from elicit.logs import Redact, redacted
from tests import services
from tests.services import ROOT

TOKEN = "2bjsUsVKMHjWXi-CotlULu61vIdfDwtb"


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (f"/session/{TOKEN}/", "/session/[link]/"),
        (f"/session/{TOKEN}", "/session/[link]"),
        (f"Not Found: /session/{TOKEN}/withdraw", "Not Found: /session/[link]/withdraw"),
        (f"https://x.example/session/{TOKEN}/?x=1 and more", "https://x.example/session/[link]/?x=1 and more"),
        ("/api/session/step", "/api/session/step"),
        ("/study/animals/", "/study/animals/"),
    ],
)  # fmt: skip
def test_no_token_of_a_personal_link_stays_in_a_text(said: str, logged: str) -> None:
    assert redacted(said) == logged


def test_a_log_record_loses_tokens_from_its_words_and_its_traceback() -> None:
    try:
        raise ValueError(f"/session/{TOKEN}/ failed")
    except ValueError:
        record = logging.LogRecord("x", 40, "", 0, "at %s", (f"/session/{TOKEN}/",), sys.exc_info())
    Redact().filter(record)

    text = logging.Formatter().format(record)
    assert TOKEN not in text
    assert "at /session/[link]/" in text
    assert "ValueError: /session/[link]/ failed" in text


@pytest.mark.worker
def test_a_site_in_service_logs_no_token(server_environment: dict[str, str]) -> None:
    with services.web(server_environment) as web:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{web.url}/session/{TOKEN}/", timeout=30)  # noqa: S310 (our own address)
        # The line is written after the answer.
        for _ in range(100):
            log = web.output()
            if "/session/" in log:
                break
            time.sleep(0.05)

    assert '"GET /session/[link]/ HTTP/1.1" 404' in log
    assert TOKEN not in log


# --- Which sites start


def start(told: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What gunicorn does before it listens."""
    look = "import runpy; runpy.run_path('gunicorn.conf.py')['on_starting'](None)"
    # Playwright's, of the tests.
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_ALLOW_ASYNC_UNSAFE"}
    return subprocess.run(
        [sys.executable, "-c", look],
        cwd=ROOT,
        env={**environment, "ELICIT_VAR": str(folder), **told},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"ELICIT_PUBLIC_URL": "https://elicit.example.org"},
        {"ELICIT_PUBLIC_URL": "http://localhost:8000"},
        {"ELICIT_PUBLIC_URL": "http://lab.example.org", "ELICIT_ALLOW_HTTP": "1"},
    ],
    ids=["at home", "https", "this machine", "http on purpose"],
)
def test_a_site_that_is_safe_starts(told: dict[str, str], tmp_path: Path) -> None:
    done = start(told, tmp_path)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"ELICIT_PUBLIC_URL": "http://lab.example.org"}, "security.W012"),
        ({"ELICIT_PUBLIC_URL": "https://elicit.example.org", "ELICIT_DEBUG": "1"}, "security.W018"),
        ({"ELICIT_PUBLIC_URL": "https://elicit.example.org", "ELICIT_SECRET_KEY": "short"}, "security.W009"),
    ],
    ids=["no https", "debugging", "a weak key"],
)
def test_a_public_site_that_is_unsafe_does_not_start_and_says_why(
    told: dict[str, str], why: str, tmp_path: Path
) -> None:
    done = start(told, tmp_path)

    assert done.returncode == 1
    assert why in done.stderr
    assert "does not start" in done.stderr
