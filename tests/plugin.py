"""Gives Django its environment before pytest-django reads the settings: a conftest would come too late.

The database is a PostgreSQL of the tests' own; with `ELICIT_TEST_DB=sqlite` it is SQLite, with the queue of
files that goes with it. The processes of pytest-xdist inherit what the first one started; each gets a folder
and a Redis database to itself, and pytest-django gives each a test database.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.test import TestCase, TransactionTestCase

from tests import services

ON_SQLITE = os.environ.get("ELICIT_TEST_DB", "postgres") == "sqlite"
# What the tests themselves read; every other ELICIT_ variable belongs to somebody's installation.
OURS = ("ELICIT_TEST_", "ELICIT_SHARED")
# As many processes as cores are at work already: threads of linear algebra would only wait for one another.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, object, object]:
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's synchronous API runs an event loop
    if process := os.environ.get("PYTEST_XDIST_WORKER"):
        _move_into_own_corner(process)
    else:
        _start()
    # WhiteNoise complains of a folder of static files that is not there yet.
    (Path(os.environ["ELICIT_VAR"]) / "static").mkdir(parents=True, exist_ok=True)
    return (yield)


def _start() -> None:
    for name in [name for name in os.environ if name.startswith("ELICIT_") and not name.startswith(OURS)]:
        del os.environ[name]
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.environ["ELICIT_VAR"] = str(services.temporary_folder("elicit-tests-"))
    # Crowds of made-up people come from one address; tests/test_throttling.py has its own rates.
    os.environ["ELICIT_RATES"] = "off"
    os.environ["ELICIT_SECRET_KEY"] = "for the tests alone, and long enough for every check of Django"
    if not ON_SQLITE:
        os.environ["ELICIT_DATABASE_URL"] = services.postgres()
        os.environ["ELICIT_BROKER_URL"] = services.redis()


def _move_into_own_corner(process: str) -> None:
    os.environ["ELICIT_VAR"] = str(Path(os.environ["ELICIT_VAR"]) / process)
    if broker := os.environ.get("ELICIT_BROKER_URL"):
        number = int(process.removeprefix("gw")) + 1
        os.environ["ELICIT_BROKER_URL"] = urlsplit(broker)._replace(path=f"/{number}").geturl()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Mark tests by what they use, and skip on SQLite those that say they need more."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        is_django = issubclass(getattr(item, "cls", None) or object, (TestCase, TransactionTestCase))
        if is_django or item.get_closest_marker("django_db") or fixtures & {"db", "transactional_db"}:
            item.add_marker("database")
        if fixtures & {"page", "browser"}:
            item.add_marker("browser")
        if "shared_data" in fixtures:
            item.add_marker("shared_data")
        for marker in ("postgres", "worker"):
            if ON_SQLITE and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason="needs PostgreSQL: run without ELICIT_TEST_DB=sqlite"))
