"""Tables that curators take away."""

from __future__ import annotations


def plain_cell(cell: object) -> str:
    """A cell of a CSV file as text. Words that a spreadsheet would take for a formula are quoted; numbers are none."""
    text = "" if cell is None else str(cell)
    if isinstance(cell, int | float):
        return text
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
