"""The client that benchmarks drive servers with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import load, serve


class Counting(BaseHTTPRequestHandler):
    """Answers 201 to bodies of some length, 400 to others, and hangs up on whoever asks for it."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, bytes]] = []
    connections: set[tuple[str, int]] = set()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, body))
        self.connections.add(self.client_address[:2])
        if self.path == "/away":
            self.close_connection = True
            return
        self.send_response(201 if body else 400)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"taken")

    def log_message(self, *told: object) -> None:
        """Nothing: the tests read what came."""


@pytest.fixture
def server() -> Iterator[str]:
    Counting.seen, Counting.connections = [], set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


def test_every_request_is_sent_once_and_each_client_keeps_its_connection(server: str) -> None:
    clients = [[load.request("PUT", f"/{client}/{number}", b"said") for number in range(5)] for client in range(3)]

    run = load.drive(server, clients)

    assert run.statuses == {201: 15}
    assert (len(run.latencies), run.broken) == (15, 0)
    assert sorted(Counting.seen) == sorted((f"/{c}/{n}", b"said") for c in range(3) for n in range(5))
    assert len(Counting.connections) == 3
    assert run.per_second > 0
    assert run.quantile(0.5) <= run.quantile(0.95)


def test_refusals_and_broken_connections_are_told_apart(server: str) -> None:
    one = [load.request("PUT", "/a", b"said"), load.request("PUT", "/away", b"said"), load.request("PUT", "/b")]

    run = load.drive(server, [one])

    assert run.statuses == {201: 1, 400: 1}
    assert run.broken == 1


def test_nothing_is_begun_after_the_time(server: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield load.request("PUT", "/", b"said")

    run = load.drive(server, [endless(), endless()], seconds=0.2)

    assert 0.2 <= run.seconds < 5
    assert sum(run.statuses.values()) == len(Counting.seen)


@pytest.mark.slow
@pytest.mark.worker
@pytest.mark.timeout(600)
def test_the_site_takes_every_answer_of_a_closed_loop_beside_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the tests' own; no site with a public address starts with it.
    monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE", raising=False)
    [found], memory = serve.measure([2], rounds=1, seconds=0.5)

    assert found.answers > 0
    assert 0 < found.share < 1
    assert set(memory) == {"web", "worker", "clock", "PostgreSQL", "Redis"}
    assert all(mb > 1 for mb in memory.values())
