"""Read the settings that come from the environment: typed, with `_FILE` secrets, loud on bad values."""

from __future__ import annotations

import math
import os
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str = "") -> str:
    """The variable, or the content of the file that `NAME_FILE` names (Docker and Kubernetes secrets)."""
    if file := os.environ.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE: {file} cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError:
            # Not chained: that error quotes the secret.
            raise ImproperlyConfigured(f"{name}_FILE: {file} cannot be read (not UTF-8).") from None
    return os.environ.get(name, default)


def flag(name: str, *, default: bool = False) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value in {"", "default"}:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} is {value!r}: write 1 or 0.")


def number(name: str, default: float) -> float:
    """A number above 0."""
    value = os.environ.get(name, "")
    try:
        found = float(value) if value else default
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ImproperlyConfigured(f"{name} is {value!r}: write a number above 0.")
    return found


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def secret_key(folder: Path) -> str:
    """`ELICIT_SECRET_KEY`, or one drawn on the first start and kept in `folder`, readable by its owner alone.

    There is no default key: two installations never share one.
    """
    if key := text("ELICIT_SECRET_KEY"):
        return key
    path = folder / "secret-key"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        # Another process may have created the file a moment ago and not have written it yet.
        for _ in range(200):
            if key := path.read_text(encoding="utf-8").strip():
                return key
            time.sleep(0.01)
        raise ImproperlyConfigured(f"{path} is empty: delete it and start again.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        key = secrets.token_urlsafe(50)
        file.write(key)
    return key


SQLITE_OPTIONS = {
    # IMMEDIATE takes the write lock at BEGIN: a transaction that reads, then writes can't meet "database is locked".
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; "
        "PRAGMA cache_size=-64000; PRAGMA mmap_size=134217728;"
    ),
}


def database(folder: Path) -> dict[str, Any]:
    """Django's settings for `ELICIT_DATABASE_URL`: postgres://user:password@host:port/name, or sqlite:///path."""
    url = text("ELICIT_DATABASE_URL")
    if not url:
        return _sqlite(str(folder.resolve() / "elicit.sqlite3"))
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        # Not chained: that error may quote the password.
        raise ImproperlyConfigured(
            "ELICIT_DATABASE_URL cannot be read: write signs such as / # @ in user and password as %2F %23 %40."
        ) from None
    if parts.scheme in {"postgres", "postgresql"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": str(port),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": dict(parse_qsl(parts.query)),
        }
    if parts.scheme == "sqlite":
        # sqlite:///relative and sqlite:////absolute, as SQLAlchemy and dj-database-url write them.
        return _sqlite(parts.path.removeprefix("/"))
    raise ImproperlyConfigured(
        f"ELICIT_DATABASE_URL starts with {parts.scheme!r}: use postgres://... or sqlite:///path."
    )


def _sqlite(name: str) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": dict(SQLITE_OPTIONS)}
