"""What logs must not hold."""

from __future__ import annotations

import logging
import re

_LINK = re.compile(r"(?<!/api)(/session/)[^/\s\"'?]+")


def redacted(text: str) -> str:
    """The text without the tokens of personal links: whoever reads a log could go on in somebody's name."""
    return _LINK.sub(r"\1[link]", text)


class Redact(logging.Filter):
    """Takes them out of what is logged, its traceback included."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True
