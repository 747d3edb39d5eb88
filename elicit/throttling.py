"""How often somebody may ask: by network address, by session link or API token, and where a session begins.

`limits` counts: in Redis where that is the broker, so that all processes count together, else in this process. While
Redis does not answer each process counts for itself, so that nobody is kept from answering and nobody goes uncounted.
An address is kept as a keyed hash, for as long as its window lasts.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, ClassVar, TypeVar

# `limits` looks for it among what is loaded, and fails where another thread is only half way through loading it.
import redis  # noqa: F401
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter

from annotations import languages
from annotations.sealing import fingerprint
from elicit import counters

log = logging.getLogger(__name__)
T = TypeVar("T")
# A rate, and whom it is counted for.
Rated = tuple[RateLimitItem, tuple[str, ...]]

# A broken Redis is asked again after so many seconds, and waited for no longer than this.
ASK_AGAIN_SECONDS = 10.0
PATIENCE_SECONDS = 0.25
PATIENCE = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS}
# Probes of load balancers; they come from one address and have to be answered.
UNCOUNTED = {"healthz", "readyz"}
BEGINNINGS = {"study", "begin-session"}
SIGN_INS = {"login", "login-code", "two-factor", "admin/login/"}


class _Windows(FixedWindowRateLimiter):
    """`limits`' fixed windows; several are counted in one round trip."""

    def hit_all(self, rated: Sequence[Rated]) -> list[bool]:
        """Of each whether it could be taken."""
        return [self.hit(rate, *key) for rate, key in rated]


class _InRedis(RedisStorage):
    """`limits`' counters in Redis, with a script that counts several."""

    # Not to be found by an address: that finds `limits`' own.
    STORAGE_SCHEME = None  # type: ignore[assignment]
    COUNT: ClassVar[bytes] = b"""
        local counted = {}
        for number, key in ipairs(KEYS) do
            counted[number] = redis.call("incr", key)
            if counted[number] == 1 then redis.call("expire", key, ARGV[number]) end
        end
        return counted
    """

    def initialize_storage(self, uri: str) -> None:
        super().initialize_storage(uri)
        self._count = self.get_connection().register_script(self.COUNT)

    def incr_all(self, expiries: dict[str, int]) -> list[int]:
        """Each key's counter, one more than before. Raises StorageError."""
        try:
            counted: list[int] = self._count([self.prefixed_key(key) for key in expiries], list(expiries.values()))
        except self.base_exceptions as error:
            raise StorageError(error) from error
        return counted


class _SharedWindows(_Windows):
    def __init__(self, storage: _InRedis) -> None:
        super().__init__(storage)
        self._redis = storage

    def hit_all(self, rated: Sequence[Rated]) -> list[bool]:
        counted = self._redis.incr_all({rate.key_for(*key): rate.get_expiry() for rate, key in rated})
        return [number <= rate.amount for number, (rate, _) in zip(counted, rated, strict=True)]


class Counts:
    """Counters over fixed windows, shared by all processes as long as the shared storage answers.

    A window says truly for how long to wait; that twice as much may pass around its end does no harm. A storage that
    fails raises nothing: counting goes on in this process.
    """

    def __init__(self, shared: _InRedis | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = _Windows(MemoryStorage())
        self._shared = _SharedWindows(shared) if shared else None
        self._clock, self._not_before = clock, -math.inf

    def take(self, rate: RateLimitItem, *key: str) -> float:
        """Count one. 0.0, or for how many seconds there is nothing left to take."""
        return self.take_all([(rate, key)])[0]

    def take_all(self, rated: Sequence[Rated]) -> list[float]:
        """Count one of each, all of them different."""

        def attempt(limiter: _Windows) -> list[float]:
            return [
                0.0 if taken else max(1.0, limiter.get_window_stats(rate, *key).reset_time - time.time())
                for taken, (rate, key) in zip(limiter.hit_all(rated), rated, strict=True)
            ]

        return self._asking(attempt)

    def is_used_up(self, rate: RateLimitItem, *key: str) -> bool:
        """Whether there is nothing left to take. Counts nothing."""
        return self._asking(lambda limiter: not limiter.test(rate, *key))

    def forget(self, rate: RateLimitItem, *key: str) -> None:
        """Begin from nothing again."""
        self._asking(lambda limiter: limiter.clear(rate, *key))

    def _asking(self, ask: Callable[[_Windows], T]) -> T:
        if self._shared is not None and self._clock() >= self._not_before:
            try:
                return ask(self._shared)
            except StorageError as error:
                self._not_before = self._clock() + ASK_AGAIN_SECONDS
                log.warning("Requests are counted by each process for itself: %s", error)
        return ask(self._own)


def shared_storage(address: str, **options: Any) -> _InRedis:
    """The Redis at this address. Connects no sooner than it has to count; failures are StorageErrors."""
    return _InRedis(address, wrap_exceptions=True, **options)


@cache
def counts() -> Counts:
    """This process's counters; `counts.cache_clear()` begins anew."""
    return Counts(shared_storage(settings.THROTTLE_STORAGE, **PATIENCE) if settings.THROTTLE_STORAGE else None)


@lru_cache
def rate_of(text: str) -> RateLimitItem:
    """A rate as settings say it: `300/minute`."""
    return parse(text)


# --- Who asks


def address_of(request: HttpRequest) -> str:
    """The network address of whoever asks, as far as proxies can be believed; of IPv6 the network of 64 bits.

    Each of `settings.PROXIES` has appended to X-Forwarded-For whom it heard; what stands before that may be made up.
    """
    heard = [each.strip() for each in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if each.strip()]
    chain = [*heard, request.META.get("REMOTE_ADDR", "")]
    said: str = chain[max(0, len(chain) - 1 - settings.PROXIES)]
    try:
        socket.inet_pton(socket.AF_INET, said)
    except (OSError, ValueError):
        pass
    else:
        return said
    try:
        found = ipaddress.ip_address(said)
    except ValueError:
        return str(chain[-1])
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def _counted(request: HttpRequest, token: str) -> Iterator[tuple[str, str]]:
    """The rules that a request falls under, with whom each counts."""
    match = request.resolver_match
    name = (match.url_name or match.route) if match else ""
    if name in UNCOUNTED:
        return
    address = address_of(request)
    yield "address", address
    if request.method == "POST" and name in BEGINNINGS:
        yield "begin", address
    if request.method == "POST" and name in SIGN_INS:
        yield "sign-in", address
    if held := token or request.META.get("HTTP_AUTHORIZATION", ""):
        # The pages and the API know the same link.
        yield "holder", held.removeprefix("Session ").strip()


class Throttle:
    """429 with `Retry-After` for whoever asks more often than `settings.RATES` allows."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponse | None:
        if not settings.RATES:
            return None
        fallen_under = [
            (rule, who) for rule, who in _counted(request, str(kwargs.get("token", ""))) if rule in settings.RATES
        ]
        if not fallen_under:
            return None
        waits = counts().take_all(
            [
                (rate_of(settings.RATES[rule]), (rule, fingerprint(f"throttle {rule}", who)))
                for rule, who in fallen_under
            ]
        )
        for wait, (rule, _) in zip(waits, fallen_under, strict=True):
            if wait:
                counters.THROTTLED.labels(rule).inc()
                return _refuse(request, math.ceil(wait))
        return None


def _refuse(request: HttpRequest, seconds: int) -> HttpResponse:
    languages.speak(request)
    answer = render(request, "annotate/throttled.html", {"seconds": seconds}, status=429)
    answer.headers["Retry-After"] = str(seconds)
    answer.headers["Cache-Control"] = "no-store"
    return answer
