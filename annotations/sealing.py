"""Keep what names a person, or lets one in, unreadable at rest, and still find it again.

Both rest on `settings.FIELD_KEYS`: the first one seals and fingerprints, all of them unseal and are looked for.
"""

from __future__ import annotations

import base64
import hmac
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Unreadable(Exception):
    """No key of this installation opens it."""


def seal(text: str) -> str:
    """`text`, encrypted and signed (Fernet: AES-128-CBC, HMAC-SHA256). Nothing stays nothing. Never twice the same."""
    return _box(_keys()).encrypt(text.encode()).decode() if text else ""


def unseal(sealed: str) -> str:
    """What was sealed.

    Raises:
        Unreadable: it was changed, or its key is no longer among `ELICIT_FIELD_KEYS`.
    """
    try:
        return _box(_keys()).decrypt(sealed.encode()).decode() if sealed else ""
    except InvalidToken:
        raise Unreadable("ELICIT_FIELD_KEYS holds no key that opens this.") from None


def fingerprint(purpose: str, *parts: str) -> str:
    """A keyed hash (HMAC-SHA256, 64 hexadecimal digits): equal for equal parts, and telling nothing without the key.

    `purpose` keeps the fingerprints of one kind of thing from matching another's.
    """
    return fingerprints(purpose, *parts)[0]


def fingerprints(purpose: str, *parts: str) -> list[str]:
    """The fingerprint by every key, the newest first: look for `__in` these, and a rotation loses nobody."""
    # The lengths keep ("a", "bc") and ("ab", "c") apart.
    message = "".join(f"{len(part)}:{part}" for part in (purpose, *parts)).encode()
    return [hmac.digest(_derived(key, "fingerprint"), message, "sha256").hex() for key in _keys()]


def sealed_by_the_first_key(sealed: str) -> bool:
    """Whether it needs no new seal, as far as the keys go."""
    try:
        _box(_keys()[:1]).decrypt(sealed.encode())
    except InvalidToken:
        return False
    return True


def _keys() -> tuple[str, ...]:
    return tuple(settings.FIELD_KEYS)


@lru_cache(maxsize=8)
def _box(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derived(key, "seal"))) for key in keys])


@lru_cache(maxsize=32)
def _derived(key: str, use: str) -> bytes:
    """32 bytes for one use: what is sealed and what is fingerprinted share no key."""
    return HKDF(SHA256(), length=32, salt=None, info=f"elicit {use}".encode()).derive(key.encode())
