from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery
from celery._state import get_current_app

KIND = "tests.work"


class Broker:
    """The messages that wait at a broker of this test's own."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def messages(self) -> list[tuple[str, list[int]]]:
        """Take out what was rung: task names and arguments, in order."""
        found: list[tuple[str, list[int]]] = []
        with self.app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    return found
                found.append((message.headers["task"], message.payload[0]))
                message.ack()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker in memory, empty, which nobody else listens to."""
    with ringing("memory://") as app:
        broker = Broker(app)
        broker.messages()
        yield broker


@pytest.fixture
def broker_away() -> Iterator[None]:
    """A broker at a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with ringing(f"redis://127.0.0.1:{taken.getsockname()[1]}/0"):
            yield


@contextmanager
def ringing(url: str) -> Iterator[Celery]:
    """An application with this broker, the current one meanwhile. It is as impatient as the product's own."""
    before = get_current_app()
    app = Celery("tests", broker=url, set_as_current=False)
    app.conf.broker_transport_options = {"max_retries": 0, "socket_connect_timeout": 2}
    app.set_current()
    try:
        yield app
    finally:
        before.set_current()
        app.close()
