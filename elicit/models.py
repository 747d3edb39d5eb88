"""The second factor of whoever signs in: an authenticator app, whose key is sealed."""

from __future__ import annotations

import time

from django.db import models
from django_otp.models import Device, ThrottlingMixin, TimestampMixin
from django_otp.oath import TOTP

from annotations.sealing import seal, unseal


class Authenticator(TimestampMixin, ThrottlingMixin, Device):  # type: ignore[misc]  # django-otp has no types
    """An app that tells codes of six digits, a new one every 30 s (RFC 6238).

    django-otp's own device keeps its key readable, in a column that is too narrow for a sealed one.
    """

    TOLERANCE = 1

    key_sealed: models.TextField[str, str] = models.TextField()
    # By how many steps the app's clock is known to be off, and the step of the last code that was right.
    drift: models.SmallIntegerField[int, int] = models.SmallIntegerField(default=0)
    last_t: models.BigIntegerField[int, int] = models.BigIntegerField(default=-1)

    class Meta:
        verbose_name = "authenticator"

    @property
    def key(self) -> str:
        """What app and server share, in hexadecimal digits.

        Raises:
            Unreadable: the key that sealed it is no longer among `ELICIT_FIELD_KEYS`.
        """
        return unseal(self.key_sealed)

    @key.setter
    def key(self, plain: str) -> None:
        self.key_sealed = seal(plain)

    def verify_token(self, token: str) -> bool:
        """Whether the code is right and was not given before. What follows from that is stored.

        Raises:
            Unreadable: see `key`.
        """
        if not self.verify_is_allowed()[0]:
            return False
        totp = TOTP(bytes.fromhex(self.key), drift=self.drift)
        totp.time = time.time()
        if not (token.isascii() and token.isdigit()) or not totp.verify(int(token), self.TOLERANCE, self.last_t + 1):
            self.throttle_increment(commit=True)
            return False
        self.last_t, self.drift = totp.t(), totp.drift
        self.throttle_reset(commit=False)
        self.set_last_used_timestamp(commit=False)
        self.save()
        return True

    def get_throttle_factor(self) -> int:
        return 1
