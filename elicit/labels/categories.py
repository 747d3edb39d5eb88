"""Ordered class names and their indices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from elicit.labels.errors import Refusal


@dataclass(frozen=True, slots=True)
class CategorySet:
    """The classes of a dataset, in order: a class's index is its place in ``names``.

    Raises Refusal: ``categories_too_few`` (fewer than two), ``category_name_invalid`` (empty, padded with
    blanks, or with a control character), ``category_name_repeated``.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise Refusal("categories_too_few", "A set of categories needs at least two names.")
        seen: set[str] = set()
        for name in self.names:
            if not name or name != name.strip() or not name.isprintable():
                raise Refusal(
                    "category_name_invalid",
                    f"{name!r} is no category name: it has to be visible text without blanks around it.",
                )
            if name in seen:
                raise Refusal("category_name_repeated", f"The category {name!r} is listed twice.")
            seen.add(name)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def index(self, name: str) -> int:
        """The place of a name; Refusal ``unknown_category`` for a name that is not in the set."""
        try:
            return self.names.index(name)
        except ValueError:
            raise Refusal("unknown_category", f"There is no category named {name!r}.") from None

    def name(self, index: int) -> str:
        """The name at a place; Refusal ``unknown_category`` outside 0..len-1."""
        if not 0 <= index < len(self.names):
            raise Refusal("unknown_category", f"There is no category number {index}.")
        return self.names[index]
