"""How long a web process waits for the database and the broker, so that no fault of theirs holds all its threads.

Workers have time: a build reads for minutes. Docs: decision 30.
"""

from __future__ import annotations

import math
import select
import time
from weakref import WeakKeyDictionary

import psycopg2
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import extensions

# After its own time limit for statements has passed, the database is granted so long to say so.
GRACE_SECONDS = 5.0
# Whoever holds locks and asks nothing more is gone.
IDLE_IN_TRANSACTION_SECONDS = 60.0
# Somebody waits for the page that rings; the sweep makes up for it.
BROKER_SECONDS = 0.25
# So soon after a request the next one believes that its thread's connection lives, and does not ask it first. Where it
# was cut in between, that request is told to come again, as it would be while the database is away.
BELIEVED_SECONDS = 1.0
# What psycopg2 says of a connection that is made; while it is being made its status has no name.
CONNECTED = (extensions.STATUS_READY, extensions.STATUS_BEGIN, extensions.STATUS_PREPARED)


def be_impatient() -> None:
    """Set the limits in this process. To be called before Django connects to anything."""
    settings.CELERY_BROKER_TRANSPORT_OPTIONS.update(
        {
            name: BROKER_SECONDS
            for name in ("socket_timeout", "socket_connect_timeout")
            if name in settings.CELERY_BROKER_TRANSPORT_OPTIONS
        }
    )
    database = settings.DATABASES["default"]
    if database["ENGINE"] != "django.db.backends.postgresql":
        return
    limits = {
        "statement_timeout": settings.DATABASE_STATEMENT_SECONDS,
        "lock_timeout": settings.DATABASE_LOCK_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECONDS,
    }
    options = database["OPTIONS"]
    # What the address says itself comes last, and so holds.
    told = [f"-c {name}={int(1000 * seconds)}" for name, seconds in limits.items()]
    options["options"] = " ".join([*told, options.get("options", "")]).strip()
    extensions.set_wait_callback(_wait)
    # After Django's own receivers, which ask for a check at each request.
    request_started.connect(_believe, dispatch_uid="elicit.believe")
    request_finished.connect(_note_use, dispatch_uid="elicit.note_use")


_used: WeakKeyDictionary[BaseDatabaseWrapper, float] = WeakKeyDictionary()
_clock = time.monotonic


def _believe(**_: object) -> None:
    connection = connections[DEFAULT_DB_ALIAS]
    if _clock() - _used.get(connection, -math.inf) < BELIEVED_SECONDS:
        connection.health_check_done = True  # type: ignore[attr-defined]


def _note_use(**_: object) -> None:
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.connection is not None:
        _used[connection] = _clock()


def _wait(connection: extensions.connection) -> None:
    """Wait until the database has answered, as psycopg2 does by itself, but not for ever: one that is frozen, or cut
    off, sends no error. psycopg2 closes the connection when this raises."""
    while (state := connection.poll()) != extensions.POLL_OK:
        silence = settings.DATABASE_STATEMENT_SECONDS + GRACE_SECONDS
        seconds = silence if connection.status in CONNECTED else settings.DATABASE_CONNECT_SECONDS
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        if not poll.poll(1000 * seconds):
            raise psycopg2.OperationalError(f"the database was silent for {seconds:g} seconds")
