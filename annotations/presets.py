"""Ready-made settings of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils.translation import gettext, override
from django.utils.translation import gettext_noop as _


@dataclass(frozen=True)
class Preset:
    """`settings` are values of `Study`'s fields; `consent` is the first version of the consent text (Markdown).

    `images`: how many of the dataset's images it takes, drawn at random; None: all. `practice`: how many others to
    practise on first.
    """

    key: str
    name: str
    summary: str
    consent: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    practice: int = 0

    def in_language(self, language: str) -> Preset:
        """The preset with its texts in a language of the annotator's pages; empty leaves them in English."""
        with override(language or "en"):
            texts: dict[str, Any] = {
                name: gettext(self.settings[name])
                for name in ("instructions", "time_estimate")
                if name in self.settings
            }
            for part in ("questionnaire", "comprehension"):
                if part in self.settings:
                    texts[part] = [_translated(question) for question in self.settings[part]]
            return replace(
                self, consent=gettext(self.consent), settings={**self.settings, **texts, "language": language}
            )


def _translated(question: Mapping[str, Any]) -> dict[str, Any]:
    texts = [name for name in ("question", "help", "answer") if name in question]
    said: dict[str, Any] = {name: gettext(question[name]) for name in texts}
    if "choices" in question:
        said["choices"] = [gettext(choice) for choice in question["choices"]]
    return {**question, **said}


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

TOP1_INSTRUCTIONS = _(
    """\
Imagine that **100 other people** label each picture, each choosing one category.

1. **Most likely.** Pick the category that most of them would choose.
2. **How many.** Say how many of the 100 would choose it.

What is left counts for the other categories. The pictures are small, and some are hard to make out: let your
percentage say so. Everything can be done with the mouse, by touch or by keyboard; press **?** at any picture to see
the keys.
"""
)

TOP1 = Preset(
    key="top1",
    name="Top 1, quick and cheap",
    summary="The most likely category and its percentage, no alternatives and nothing ruled out: 40 images a session "
    "and 2 repeats, 4 annotators an image. Less is learned from each answer, in less than half the time.",
    consent=CONSENT,
    settings={
        "labels_per_image": 4,
        "images_per_session": 40,
        "repeats_per_session": 2,
        "image_scale": 5,
        "shuffle_categories": True,
        "framing": "others",
        "most_named": 1,
        "sum_limit": None,
        "ask_impossible": False,
        "instructions": TOP1_INSTRUCTIONS,
        "time_estimate": _("about 8 minutes"),
        "questionnaire": QUESTIONNAIRE,
    },
)

COMPREHENSION: list[dict[str, Any]] = [
    {
        "name": "whose_choice",
        "question": _("Whose choices do your percentages describe?"),
        "kind": "choice",
        "choices": [_("Those of 100 other people"), _("Only my own"), _("Those of a computer")],
        "answer": _("Those of 100 other people"),
    },
    {
        "name": "leftover",
        "question": _("May your percentages add up to less than 100?"),
        "kind": "choice",
        "choices": [
            _("Yes: what is left counts for the categories that I neither named nor ruled out"),
            _("No, they must add up to 100"),
        ],
        "answer": _("Yes: what is left counts for the categories that I neither named nor ruled out"),
    },
]

PILOT = Preset(
    key="pilot",
    name="Pilot of 10 people",
    summary="Ten people on the same 20 images, drawn at random, after 3 to practise on and 2 questions of "
    "understanding; 5 repeats. Tells what an answer takes and how far people differ: what the planner reads.",
    consent=CONSENT,
    settings={
        **CIFAR10S.settings,
        "labels_per_image": 10,
        "images_per_session": 20,
        "repeats_per_session": 5,
        "comprehension": COMPREHENSION,
    },
    images=20,
    practice=3,
)

PRESETS = {preset.key: preset for preset in (CIFAR10S, TOP1, PILOT)}
