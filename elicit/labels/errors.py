"""The one exception that the pure core raises for bad input from outside."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """Input that is refused: a machine ``code``, a sentence, and a sentence per field.

    Wrong arguments from our own code (shapes, types) raise ``ValueError`` instead.
    """

    def __init__(self, code: str, message: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields: dict[str, str] = dict(fields or {})

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, str, dict[str, str]]]:
        # Without this, copying between processes would call __init__ with the message alone.
        return (type(self), (self.code, self.message, self.fields))
