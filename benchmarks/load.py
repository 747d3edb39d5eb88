"""A closed loop of HTTP clients, cheap enough to drive a server on the same machine: `drive`.

Each client keeps one connection, sends its next request as soon as the last one is answered, and does nothing else. The
requests are bytes, made before the clock starts, so that the client takes about as little of the processor for one
server as for another. One process, one thread.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

WAITS_SECONDS = 60.0


@dataclass(frozen=True)
class Run:
    """What came back.

    ``statuses``: how many answers had each status. ``seconds``: from the first request to the last answer.
    ``latencies``: milliseconds of each request, in the order of their answers. ``broken``: connections that ended
    before their answer came.
    """

    statuses: dict[int, int]
    seconds: float
    latencies: list[float]
    broken: int = 0

    @property
    def per_second(self) -> float:
        return sum(self.statuses.values()) / self.seconds

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the requests did not take."""
        return float(np.quantile(self.latencies, share))


@dataclass
class _Client:
    requests: Iterator[bytes]
    socket: socket.socket | None = None
    began: float = 0.0
    unsent: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    wanted: int = -1


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as it is sent: `Content_Type="application/json"` becomes that header."""
    told = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drive(url: str, clients: Iterable[Iterable[bytes]], *, seconds: float = WAITS_SECONDS) -> Run:
    """Send every client's requests, one after the other, all clients at once; begin none after `seconds`.

    Raises:
        TimeoutError: the server was silent for a minute.
    """
    where = urlsplit(url)
    address = (where.hostname or "127.0.0.1", where.port or 80)
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    broken = 0
    with selectors.DefaultSelector() as ready:

        def begin(client: _Client) -> None:
            following = None if time.perf_counter() - started >= seconds else next(client.requests, None)
            if following is None:
                if client.socket is not None:
                    leave(client)
                return
            if client.socket is None:
                client.socket = socket.create_connection(address, timeout=WAITS_SECONDS)
                client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(client.socket, selectors.EVENT_READ, client)
            client.began, client.wanted = time.perf_counter(), -1
            client.heard.clear()
            try:
                client.socket.sendall(following)
            except OSError:
                lost(client)

        def leave(client: _Client) -> None:
            if client.socket is not None:
                ready.unregister(client.socket)
                client.socket.close()
                client.socket = None

        def lost(client: _Client) -> None:
            nonlocal broken
            broken += 1
            leave(client)
            begin(client)

        started = time.perf_counter()
        for requests in clients:
            begin(_Client(iter(requests)))
        while ready.get_map():
            events = ready.select(WAITS_SECONDS)
            if not events:
                raise TimeoutError("The server has been silent for a minute.")
            for key, _ in events:
                client: _Client = key.data
                assert client.socket is not None  # noqa: S101 (it is registered)
                try:
                    part = client.socket.recv(65_536)
                except OSError:
                    part = b""
                if not part:
                    lost(client)
                    continue
                client.heard += part
                if client.wanted < 0 and (end := client.heard.find(b"\r\n\r\n")) >= 0:
                    client.wanted = end + 4 + _length(bytes(client.heard[: end + 2]))
                if 0 <= client.wanted <= len(client.heard):
                    status = int(client.heard[9:12])
                    statuses[status] = statuses.get(status, 0) + 1
                    latencies.append((time.perf_counter() - client.began) * 1000)
                    if b"\r\nconnection: close" in bytes(client.heard[: client.wanted]).lower():
                        leave(client)
                    begin(client)
        return Run(statuses, time.perf_counter() - started, latencies, broken)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise ValueError("An answer without a length: this client reads no chunks.")
