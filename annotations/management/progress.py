"""What a command shows while it works."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class Bar:
    """A progress bar that appears with the first news and says nothing on a log file's behalf."""

    def __init__(self, what: str, unit: str) -> None:
        self.bar: tqdm[Any] = tqdm(desc=what, unit=unit, unit_scale=unit == "B", disable=None, delay=0.5, leave=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, done: int, total: int | None) -> None:
        self.bar.total = total
        self.count(done)

    def count(self, done: int) -> None:
        self.bar.update(done - self.bar.n)
