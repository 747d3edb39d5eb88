"""Read the settings that come from the environment: typed, with `_FILE` secrets, loud on bad values."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import limits
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


def whole(name: str, default: int) -> int:
    """A whole number, 0 or more."""
    value = os.environ.get(name, "").strip() or str(default)
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ImproperlyConfigured(f"{name} is {value!r}: write a whole number, 0 or more.")
    return int(value)


def choice(name: str, choices: Sequence[str]) -> str:
    """One of these words, the first where nothing is said."""
    value = os.environ.get(name, "").strip() or choices[0]
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is {value!r}: write {' or '.join(choices)}.")
    return value


SHORTEST_TOKEN = 24


def token(name: str) -> str:
    """A secret that somebody else sends, too long to be guessed; empty where none is given."""
    value = text(name)
    if value and len(value) < SHORTEST_TOKEN:
        raise ImproperlyConfigured(f"{name} has {SHORTEST_TOKEN} characters or more: `openssl rand -hex 32` does.")
    return value


def rates(name: str, default: dict[str, str]) -> dict[str, str]:
    """How often what may happen, as in `begin:300/minute,holder:10/second`; the others as in `default`. `off`: none."""
    if text(name).strip().lower() == "off":
        return {}
    found = dict(default)
    for word in words(name):
        rule, _, rate = word.partition(":")
        try:
            limits.parse(rate)
        except ValueError:
            rule = ""
        if rule not in default:
            raise ImproperlyConfigured(
                f"{name} has {word!r}: write one of {', '.join(default)} and a rate, as in begin:300/minute, or off."
            )
        found[rule] = rate
    return found


def location(name: str) -> str:
    """A proxy's internal location, such as `/protected/`; nothing where it is unset."""
    value = text(name).strip()
    if value and not re.fullmatch("/([a-z0-9_-]+/)+", value):
        raise ImproperlyConfigured(f"{name} is {value!r}: write a path between slashes, as in /protected/.")
    return value


def amounts(name: str, default: str) -> dict[str, int]:
    """Sums of money in minor units by currency, out of words such as `GBP:6,USD:8.50`."""
    found = {}
    for word in words(name, default):
        currency, _, amount = word.partition(":")
        if not re.fullmatch(r"[A-Z]{3}", currency) or not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,2})?", amount):
            raise ImproperlyConfigured(f"{name} has {word!r}: write a currency and an amount, as in GBP:6.")
        found[currency] = round(float(amount) * 100)
    return found


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def secret_key(folder: Path) -> str:
    """`ELICIT_SECRET_KEY`, or one drawn on the first start and kept in `folder`, readable by its owner alone.

    There is no default key: two installations never share one.
    """
    return text("ELICIT_SECRET_KEY") or _drawn(folder / "secret-key")


SHORTEST_FIELD_KEY = 32


def field_keys(folder: Path) -> list[str]:
    """`ELICIT_FIELD_KEYS`, what encrypts platform ids and authenticators: long random words, separated by commas.

    The first one encrypts, all of them decrypt. Without any, one is drawn and kept as `secret_key`'s is.
    """
    keys = [key.strip() for key in text("ELICIT_FIELD_KEYS").split(",") if key.strip()]
    if any(len(key) < SHORTEST_FIELD_KEY for key in keys):
        raise ImproperlyConfigured(
            f"ELICIT_FIELD_KEYS: each key has {SHORTEST_FIELD_KEY} characters or more: `openssl rand -hex 32` does."
        )
    return keys or [_drawn(folder / "field-keys")]


def _drawn(path: Path) -> str:
    """The secret in this file, drawn now if there is none."""
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


def image_storage(folder: Path) -> dict[str, Any]:
    """Django's settings for where images lie: the bucket `ELICIT_IMAGES_S3_BUCKET`, or `folder` without one.

    The keys to the bucket come from where boto3 looks for them, first `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    """
    # Files are named by their content, so writing one again may replace it.
    if not (bucket := text("ELICIT_IMAGES_S3_BUCKET")):
        here = {"location": folder, "allow_overwrite": True}
        return {"BACKEND": "annotations.image_files.ImageFiles", "OPTIONS": here}
    if importlib.util.find_spec("storages") is None:
        raise ImproperlyConfigured("ELICIT_IMAGES_S3_BUCKET needs the package django-storages[s3]: `make s3`.")
    endpoint = text("ELICIT_IMAGES_S3_ENDPOINT")
    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": bucket,
            "endpoint_url": endpoint or None,
            "region_name": text("ELICIT_IMAGES_S3_REGION") or None,
            "location": text("ELICIT_IMAGES_S3_PREFIX").strip("/"),
            # What runs elsewhere than at Amazon has seldom a host name for each bucket.
            "addressing_style": "path" if endpoint else None,
            "file_overwrite": True,
        },
    }


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
