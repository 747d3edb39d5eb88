"""Do things at the same moment, each on a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

T = TypeVar("T")
# A barrier that waits longer than this shows that the race did not happen.
PATIENCE = 60.0


def together(actions: Iterable[Callable[[], T]]) -> list[T | Exception]:
    """Start all actions at once, wait for all, and give what each returned or raised, in order."""
    todo = list(actions)
    start = threading.Barrier(len(todo))

    def act(action: Callable[[], T]) -> T:
        try:
            # Connected before the start, so that the start is the same for all.
            connections["default"].ensure_connection()
            start.wait(PATIENCE)
            return action()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(todo)) as pool:
        futures = [pool.submit(act, action) for action in todo]
    return [_outcome(future.exception(), future.result) for future in futures]


def _outcome(error: BaseException | None, result: Callable[[], T]) -> T | Exception:
    if error is None:
        return result()
    if isinstance(error, Exception):
        return error
    raise error


def meanwhile(action: Callable[[], T]) -> T:
    """Do it on another connection, and wait for it: what somebody else does between two of our statements."""
    [outcome] = together([action])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
