"""A small study for the tests of releases."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from elicit.labels import CategorySet, Elicited, Recipe, ReleasedResponse, write_release

CATEGORIES = CategorySet(("Bird", "Cat", "Dog"))


def digest(image: int) -> str:
    return hashlib.sha256(str(image).encode()).hexdigest()


def response(
    annotator: str,
    image: int,
    *named: tuple[int, float],
    impossible: set[int] | None = None,
    kind: str = "main",
    position: int = 0,
    order: tuple[int, ...] = (2, 0, 1),
    duration: int | None = 4200,
) -> ReleasedResponse:
    said = Elicited(named, frozenset(impossible or ()))
    return ReleasedResponse(annotator, image, digest(image), kind, position, said, order, duration)


def study() -> list[ReleasedResponse]:
    """Two annotators and three images; with t2-clamp, gamma .1 the labels are, worked by hand:

    - ana on 4: Bird 60, Cat 30: .6 .3 and .1 left for Dog.
    - bea on 4: Cat 100, all others impossible: 0 1 0. Pooled: .3 .65 .05.
    - ana on 11: Dog 100: .9, and .05 for Bird and Cat. bea: Dog 50, Bird impossible: 0 .5 .5.
      Pooled: .025 .275 .7.
    - ana's repeat of 4: Bird 100, all others impossible: 1 0 0.
    - attention on 7, practice on 9: never pooled.
    """
    return [
        response("ana", 9, (0, 100.0), kind="practice", position=0, duration=None),
        response("ana", 4, (0, 60.0), (1, 30.0), position=1),
        response("ana", 11, (2, 100.0), position=2),
        response("ana", 4, (0, 100.0), impossible={1, 2}, kind="repeat", position=3),
        response("bea", 11, (2, 50.0), impossible={0}, position=1, order=()),
        response("bea", 4, (1, 100.0), impossible={0, 2}, position=2, order=()),
        response("bea", 7, (1, 50.0), (2, 30.0), (0, 5.0), kind="attention", position=3, order=()),
    ]


FACTS: dict[str, Any] = {
    "study": "birds",
    "study_name": "Birds: “which?”",
    "licence": "cc-by-4.0",
    "dataset": "pictures",
    "dataset_origin": "made up",
    "framing": "what 100 people would say",
    "pay": "£2 for ten minutes",
    "recruitment": "A poster.",
    "labels_per_image_wanted": 2,
    "consent_versions": [1, 3],
    "consent_texts": {"1": "You agree.", "3": "You agree\n\nto more."},
    "sessions": 2,
    "sessions_left_out": {"not_completed": 3, "place_given_away": 0, "inconsistent": 1},
}


def write(folder: Path, **changes: Any) -> dict[str, Any]:
    """A release of the study into ``folder``, with all the facts that its words can tell; its manifest."""
    arguments: dict[str, Any] = {
        "categories": CATEGORIES,
        "responses": study(),
        "recipe": Recipe(),
        "facts": FACTS,
        "version": 1,
    }
    return write_release(folder, **{**arguments, **changes})
