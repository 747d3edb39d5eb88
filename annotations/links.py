"""How pages and API tell of things: their addresses, a trial, what an answer may say."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.urls import reverse

from annotations import selectors
from annotations.models import CheckKind, Image, Study, Trial


def image_url(image: Image, study: Study) -> str:
    return _image_url(image.sha256, study.image_scale)


@lru_cache(maxsize=4096)
def _image_url(sha256: str, scale: int) -> str:
    return reverse("image", args=[sha256, scale])


def trial_json(trial: Trial, study: Study) -> dict[str, Any]:
    """What the browser needs to show a trial: neither the image's name nor its reference label, nor the trial's kind.

    A gold image looks like any other; only an attention check has something to say.
    """
    item = trial.check_item
    return {
        "id": str(trial.pk),
        "image_url": image_url(trial.image, study),
        "position": trial.position,
        "framing": trial.framing,
        "note": item.note if item is not None and item.kind == CheckKind.ATTENTION else "",
    }


def answer_json(study: Study, names: list[str], order: list[int]) -> dict[str, Any]:
    """What an answer may say: the categories in this order, and the study's rules."""
    rules = selectors.answer_rules(study, len(names))
    return {
        "categories": [{"index": index, "name": names[index]} for index in order],
        "rules": {
            "most_named": rules.most_named,
            "sum_limit": rules.sum_limit,
            "ask_impossible": rules.ask_impossible,
        },
    }
