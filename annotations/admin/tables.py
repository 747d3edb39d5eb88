"""Tables that curators take away."""

from __future__ import annotations


def plain_cell(cell: object) -> str:
    """A cell of a CSV file as text. One that a spreadsheet would take for a formula is quoted."""
    text = str(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
