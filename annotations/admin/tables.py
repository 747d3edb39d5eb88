"""Tables that curators look at, and take away."""

from __future__ import annotations

from typing import Any, cast

from django.core.paginator import Paginator
from django.db.models import QuerySet


class KeysFirst(Paginator[Any]):
    """Finds a page's keys before it reads its rows: those that a deep page passes over are not read with all that goes
    with them."""

    def page(self, number: int | str) -> Any:
        page = super().page(number)
        everything, shown = cast("QuerySet[Any]", self.object_list), cast("QuerySet[Any]", page.object_list)
        page.object_list = everything.filter(pk__in=list(shown.values_list("pk", flat=True)))
        return page


def plain_cell(cell: object) -> str:
    """A cell of a CSV file as text. Words that a spreadsheet would take for a formula are quoted; numbers are none."""
    text = "" if cell is None else str(cell)
    if isinstance(cell, int | float):
        return text
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
