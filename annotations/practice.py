"""Practice before the trials: images with something to tell about them, described as data on the study.

A practice is a list of objects: `image` (index in the dataset), `feedback` (Markdown, shown once it is answered) and
optional `expected` (category name -> percentage), shown beside the annotator's own answer.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError

MOST_PRACTICE = 50
KNOWN = {"image", "feedback", "expected"}


def validate_practice(items: object) -> None:
    """Raise ValidationError, saying which item is wrong and how."""
    if not isinstance(items, list) or len(items) > MOST_PRACTICE:
        raise ValidationError(f"The practice is a list of at most {MOST_PRACTICE} images.")
    for place, problem in practice_problems(items).items():
        raise ValidationError(f"Practice image {place + 1}: {problem}")


def practice_problems(items: list[Any]) -> dict[int, str]:
    """What is wrong with which item, by its place from 0."""
    found = {place: _problem(item) for place, item in enumerate(items)}
    return {place: problem for place, problem in found.items() if problem}


def _problem(item: Any) -> str:
    if not isinstance(item, dict):
        return "it must be an object."
    if unknown := sorted(set(item) - KNOWN):
        return f"{unknown[0]} is not known here."
    if type(item.get("image")) is not int or not 0 <= item["image"] < 2**31:
        return "image must be the number of an image in the dataset."
    if not isinstance(item.get("feedback", ""), str):
        return "feedback must be text."
    expected = item.get("expected", {})
    if not isinstance(expected, dict) or not all(
        type(percentage) in {int, float} and 0 <= percentage <= 100 for percentage in expected.values()
    ):
        return "expected must give percentages from 0 to 100 by category."
    if sum(expected.values()) > 100:
        return "the expected percentages add up to more than 100."
    return ""
