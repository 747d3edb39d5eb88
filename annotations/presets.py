"""Ready-made settings of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils.translation import gettext, override
from django.utils.translation import gettext_noop as _


@dataclass(frozen=True)
class Preset:
    """`settings` are values of `Study`'s fields; `consent` is the first version of the consent text (Markdown)."""

    key: str
    name: str
    summary: str
    consent: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def in_language(self, language: str) -> Preset:
        """The preset with its texts in a language of the annotator's pages; empty leaves them in English."""
        with override(language or "en"):
            texts: dict[str, Any] = {
                name: gettext(self.settings[name])
                for name in ("instructions", "time_estimate")
                if name in self.settings
            }
            texts["questionnaire"] = [
                {**question, **{name: gettext(question[name]) for name in ("question", "help") if name in question}}
                for question in self.settings.get("questionnaire", [])
            ]
            return replace(
                self, consent=gettext(self.consent), settings={**self.settings, **texts, "language": language}
            )


CONSENT = _(
    """\
You are invited to label images for research on how machines can learn from people's uncertainty.

- **What you do.** You look at small pictures and say what they may show, and how likely that is.
- **What is kept.** Your answers, how they came about (times, corrections, whether by mouse, touch or keyboard), and the
  order in which things were shown. We ask for no name and no contact; an id that a recruiting platform passes on is
  kept apart from the answers.
- **What becomes of it.** The answers are published for research under a random pseudonym.
- **You are free.** Taking part is voluntary. You may stop at any time, without giving a reason, and have your answers
  erased: each page has a link for it.
"""
)

INSTRUCTIONS = _(
    """\
Imagine that **100 other people** label each picture, each choosing one category. You say what they would choose.

1. **Most likely.** Pick the category that most of them would choose, and with the slider how many of the 100.
2. **Plausible.** Add any other category that some of them would choose, each with its own slider.
3. **Impossible.** Tick the categories that nobody would choose.

The percentages need not add up to 100: what is left counts for the categories that you neither named nor ruled out.
The pictures are small, and some are hard to make out: let your percentages say so.

Everything can be done with the mouse, by touch or by keyboard; press **?** at any picture to see the keys.
"""
)

QUESTIONNAIRE: list[dict[str, Any]] = [
    {
        "name": "clarity",
        "question": _("How clear were the instructions?"),
        "kind": "scale",
        "low": 1,
        "high": 10,
        "help": _("1 is not clear at all, 10 is perfectly clear."),
    },
    {
        "name": "difficulty",
        "question": _("How hard was it to give percentages?"),
        "kind": "scale",
        "low": 1,
        "high": 10,
        "help": _("1 is very easy, 10 is very hard."),
    },
    {"name": "remarks", "question": _("Is there anything that you would like to tell us?"), "kind": "text"},
]

CIFAR10S = Preset(
    key="cifar10s",
    name="CIFAR-10S protocol",
    summary="Collins, Bhatt and Weller (HCOMP 2022): 25 images a session and 2 repeats, 6 annotators an image, what "
    "100 others would say, alternatives and impossible categories, percentages free to exceed 100 in all.",
    consent=CONSENT,
    settings={
        "labels_per_image": 6,
        "images_per_session": 25,
        "repeats_per_session": 2,
        "image_scale": 5,
        "shuffle_categories": True,
        "framing": "others",
        "most_named": None,
        "sum_limit": None,
        "ask_impossible": True,
        "instructions": INSTRUCTIONS,
        "time_estimate": _("about 20 minutes"),
        "questionnaire": QUESTIONNAIRE,
    },
)

PRESETS = {preset.key: preset for preset in (CIFAR10S,)}
