"""The secret keys of an installation, which are in no backup: whether those here are those with which one was made."""

from __future__ import annotations

import hmac

from django.conf import settings
from django.utils.crypto import salted_hmac

from annotations.sealing import fingerprints
from elicit.backups.archive import Backup, BackupError

PURPOSE = "elicit backup"


def fingerprint(nonce: str) -> dict[str, object]:
    """What a backup holds of the keys: keyed hashes of its own random word, which tell nothing without them."""
    return {"nonce": nonce, "secret": _by_secret_key(nonce), "field": fingerprints(PURPOSE, nonce)}


def missing(found: dict[str, object]) -> list[str]:
    """The settings that hold other keys than those with which a backup was made."""
    nonce, field = str(found.get("nonce")), found.get("field")
    here = set(fingerprints(PURPOSE, nonce))
    lacking = []
    if not hmac.compare_digest(str(found.get("secret")), _by_secret_key(nonce)):
        lacking.append("ELICIT_SECRET_KEY")
    if not isinstance(field, list) or not set(map(str, field)) <= here:
        lacking.append("ELICIT_FIELD_KEYS")
    return lacking


def signature(digest: str) -> str:
    """Of all files of a backup: who lacks the keys can't make another one that passes for it."""
    return _by_secret_key(f"files {digest}")


def check_signature(backup: Backup) -> None:
    """Raise BackupError where files or manifest were changed by somebody without the keys."""
    if not hmac.compare_digest(backup.signature, signature(backup.digest())):
        raise BackupError("The backup was changed after it was made: its signature is wrong.")


def _by_secret_key(text: str) -> str:
    return salted_hmac(PURPOSE, text, secret=settings.SECRET_KEY, algorithm="sha256").hexdigest()
