"""A backup to read: a file, or what comes in by a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from elicit.backups.archive import BackupError


@contextmanager
def opened(source: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """The stream, and its size where that is known; `-` is standard input.

    Raises:
        BackupError: there is no such file.
    """
    if source == "-":
        yield sys.stdin.buffer, None
        return
    try:
        stream = Path(source).open("rb")  # noqa: SIM115
    except OSError as error:
        raise BackupError(f"{source} can't be read ({error.strerror}).") from error
    with stream:
        yield stream, Path(source).stat().st_size
