"""The recipes that people ask for by name."""

from __future__ import annotations

from dataclasses import replace

from elicit.labels.aggregation import RECOMMENDED_POOL
from elicit.labels.release_files import Recipe
from elicit.labels.varieties import RECOMMENDED, LabelVariety

NAMED = {
    # docs/decisions/0008-recommended-labels.md
    "recommended": (RECOMMENDED, RECOMMENDED_POOL),
    # Collins, Bhatt and Weller (2022)
    "published": (LabelVariety(), "mean"),
}


def recipe(
    name: str,
    *,
    gamma: float | None = None,
    pool: str | None = None,
    include_repeats: bool = False,
    leave_out_inconsistent: bool = False,
    framing: str = "",
    arm: str = "",
) -> Recipe:
    """`recommended`, `published`, or the slug of a variety, which is pooled by mean; gamma and pool may be others.

    Raises:
        Refusal: there is no such variety or pool, or gamma is out of range.
    """
    variety, usual_pool = NAMED.get(name) or (LabelVariety.from_slug(name), "mean")
    return Recipe(
        variety=variety if gamma is None else replace(variety, gamma=gamma),
        pool=pool or usual_pool,
        include_repeats=include_repeats,
        leave_out_inconsistent=leave_out_inconsistent,
        framing=framing,
        arm=arm,
    )
