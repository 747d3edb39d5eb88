"""How responses become a release's labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from elicit.labels.aggregation import POOLS
from elicit.labels.errors import Refusal
from elicit.labels.release_files.common import JSON, canonical
from elicit.labels.varieties import LabelVariety


@dataclass(frozen=True, slots=True)
class Recipe:
    """How responses become a release's labels.

    ``pool``: a name of ``aggregation.POOLS``. ``include_repeats``: whether repeats of an image by the same
    annotator count; practice and attention trials never do. ``leave_out_inconsistent``: whether whoever collects
    the responses left out the sessions that their repeats call inconsistent. ``framing``: where a study asks two
    questions about an image, which one's answers these are (``others`` or ``self``); empty where it asks one.
    ``arm``: where a study has arms, the one whose answers these are; empty: all of them.
    Raises Refusal ``unknown_pool``.
    """

    variety: LabelVariety = field(default_factory=LabelVariety)
    pool: str = "mean"
    include_repeats: bool = False
    leave_out_inconsistent: bool = False
    framing: str = ""
    arm: str = ""

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise Refusal("unknown_pool", f"There is no pool {self.pool!r}; choose one of {', '.join(POOLS)}.")

    @property
    def pooled_kinds(self) -> tuple[str, ...]:
        """The kinds of trials whose answers are pooled."""
        return ("main", "repeat") if self.include_repeats else ("main",)

    def to_dict(self) -> dict[str, JSON]:
        """Plain JSON, as in the manifest."""
        return {
            "variety": {"slug": self.variety.slug, "gamma": float(self.variety.gamma)},
            "pool": self.pool,
            "include_repeats": self.include_repeats,
            "leave_out_inconsistent": self.leave_out_inconsistent,
            **({"framing": self.framing} if self.framing else {}),
            **({"arm": self.arm} if self.arm else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The recipe of ``to_dict``; Refusal ``recipe_invalid``, ``unknown_variety`` or ``unknown_pool``."""
        try:
            slug, gamma = data["variety"]["slug"], data["variety"]["gamma"]
            pool, repeats, leave_out = data["pool"], data["include_repeats"], data["leave_out_inconsistent"]
            framing, arm = data.get("framing", ""), data.get("arm", "")
        except (KeyError, TypeError):
            raise Refusal("recipe_invalid", "The recipe lacks a part; it has what Recipe.to_dict gives.") from None
        number = isinstance(gamma, int | float) and not isinstance(gamma, bool)
        flags = isinstance(repeats, bool) and isinstance(leave_out, bool)
        words = all(isinstance(word, str) for word in (slug, pool, framing, arm))
        if not (words and number and flags):
            raise Refusal("recipe_invalid", "The recipe has a value of the wrong type.")
        return cls(LabelVariety.from_slug(slug, float(gamma)), pool, repeats, leave_out, framing, arm)

    @property
    def digest(self) -> str:
        """sha256 of the recipe's canonical JSON, as hex."""
        return hashlib.sha256(canonical(self.to_dict()).encode()).hexdigest()
