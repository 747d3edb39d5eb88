from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import hypothesis
import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.commands import flush
from django.db import connection, connections
from playwright.sync_api import ConsoleMessage, Page, expect
from pytest_django.live_server_helper import LiveServer

from elicit import append_only
from tests import services

hypothesis.settings.register_profile("elicit", derandomize=True, deadline=None)
hypothesis.settings.load_profile("elicit")
# A page that is asked for while other tests take both cores may be slow, which is no fault of its own.
expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the published study's files, which are not ours to ship."""
    shared = os.environ.get("ELICIT_SHARED") or services.ROOT.parent / "shared"
    folder = Path(shared) / "data"
    if not folder.is_dir():
        pytest.skip("the published study's files are not here: ELICIT_SHARED may name the folder that holds data/")
    return folder


@pytest.fixture(autouse=True, scope="session")
def empty_the_audit_log_too() -> Iterator[None]:
    """After a test that commits, Django empties every table; the audit log's own triggers would not have it."""
    empty = flush.Command.handle

    def handle(self: flush.Command, **options: Any) -> None:
        here = connections[options["database"]]
        append_only.unprotect(here)
        empty(self, **options)
        append_only.protect(here)

    with mock.patch.object(flush.Command, "handle", handle):
        yield


@pytest.fixture
def server_environment(transactional_db: None) -> dict[str, str]:
    """What makes a worker or a web process share this test's database, broker and files."""
    here = connection.settings_dict
    user = f"{quote(here['USER'])}:{quote(here['PASSWORD'])}"
    return {
        "ELICIT_DATABASE_URL": f"postgres://{user}@{here['HOST']}:{here['PORT']}/{here['NAME']}",
        "ELICIT_BROKER_URL": settings.CELERY_BROKER_URL,
        "ELICIT_VAR": str(settings.VAR),
    }


# --- The browser


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, object]) -> dict[str, object]:
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--disable-sync",
        "--no-first-run",
    ]
    chosen = {**browser_type_launch_args, "args": quiet}
    if path := services.chromium():
        chosen["executable_path"] = path
    return chosen


@pytest.fixture(scope="session")
def collected() -> Path:
    """The folder of static files, collected as for production."""
    call_command("collectstatic", interactive=False, verbosity=0)
    return Path(settings.STATIC_ROOT)


@pytest.fixture(scope="session")
def live_server(collected: Path, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """The site on a port of its own, with static files from WhiteNoise as in production.

    pytest-django's own fixture would serve them from the source folders, where nothing is collected.
    """
    address = request.config.getoption("--liveserver") or "localhost"
    with mock.patch("django.contrib.staticfiles.handlers.StaticFilesHandler", lambda application: application):
        server = LiveServer(address)
    yield server
    server.stop()


@pytest.fixture
def console_errors(page: Page) -> list[str]:
    """What the page has complained of so far; a test that expects a complaint asserts it and clears it."""
    errors: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("console", hear)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


@pytest.fixture
def no_console_errors(page: Page, console_errors: list[str]) -> Iterator[Page]:
    """The page; the test fails if its console holds an error at the end."""
    yield page
    assert console_errors == []
