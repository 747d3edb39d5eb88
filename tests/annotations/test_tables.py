from __future__ import annotations

import pytest

from annotations.admin.tables import plain_cell


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_words_that_a_spreadsheet_would_run_are_quoted(cell: str) -> None:
    assert plain_cell(cell) == f"'{cell}"


@pytest.mark.parametrize(("cell", "text"), [(-1.5, "-1.5"), (-3, "-3"), (None, ""), ("a-b", "a-b"), (True, "True")])
def test_numbers_and_other_words_stay_as_they_are(cell: object, text: str) -> None:
    assert plain_cell(cell) == text
