"""A connection that was used just now is believed to live."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from elicit import patience


@pytest.mark.django_db
def test_a_request_asks_after_its_connection_only_where_it_was_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [100.0], []
    database: Any = connections["default"]
    database.ensure_connection()
    monkeypatch.setattr(patience, "_clock", lambda: now[0])
    monkeypatch.setattr(database, "health_check_enabled", True)

    def lives() -> bool:
        asked.append(now[0])
        return True

    monkeypatch.setattr(database, "is_usable", lives)

    def request(at: float) -> None:
        now[0] = at
        # As Django's own receiver leaves it at each request.
        database.health_check_done = False
        patience._believe()
        with database.cursor() as cursor:
            cursor.execute("SELECT 1")
        patience._note_use()

    for at in (100.0, 100.9, 101.8, 102.9, 103.0):
        request(at)

    assert asked == [100.0, 102.9]
