from __future__ import annotations

from elicit.labels.errors import Refusal


class ExportError(Refusal):
    """A release can't be had, or not like this."""
