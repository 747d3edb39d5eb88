"""A study's worth of simulated people at once, as arrays: what rules are tried on. Pure, and seeded.

The people see ambiguous images, so that careful ones differ. They know nothing of rules: each answers by their
character alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotations.simulation.characters import CHARACTERS, LOOKALIKES, Answer, Character, answer
from elicit.labels import Answers, Elicited
from elicit.labels.quality import Outcome, Sittings, judge_check

MIX = {"careful": 0.80, "careless": 0.10, "certain": 0.05, "hurried": 0.05}
"""Shares of the population that rules are judged by."""
CATEGORIES = 10
GOLD_TOLERANCE = 0.5


@dataclass(frozen=True)
class Design:
    """What each of the simulated sessions shows; the usual study, with two checks of each kind."""

    images: int = 25
    labels_per_image: int = 6
    repeats: int = 2
    attention: int = 2
    gold: int = 2


@dataclass(frozen=True)
class Population:
    """``characters`` (S,) names, and what they answered."""

    characters: list[str]
    sittings: Sittings

    def of(self, *names: str) -> NDArray[np.bool_]:
        """(S,) who is of one of these characters."""
        return np.asarray(np.isin(np.array(self.characters), names))


def simulate(people: int, seed: int, *, mix: Mapping[str, float] = MIX, design: Design | None = None) -> Population:
    """So many people in these shares, in random order, each through a session of this design."""
    plan = design or Design()
    random = np.random.default_rng(seed)
    characters = _drawn(people, mix, random)
    batches = max(1, people // plan.labels_per_image)
    images = batches * plan.images
    known = images + plan.attention + plan.gold
    shown = random.integers(0, CATEGORIES, known)
    # How many take an image for its lookalike: most images are clear, a few split the crowd.
    doubt = random.beta(0.6, 3.0, known)
    # What is known of a gold image has been chosen to be clear.
    doubt[images + plan.attention :] = 0.05
    asked = random.integers(0, CATEGORIES, plan.attention)

    session: list[int] = []
    stimulus: list[int] = []
    first: list[int] = []
    kinds: list[str] = []
    said: list[Answer] = []
    for number, character in enumerate(characters):
        person = np.random.default_rng([seed, 1, number])
        own = (number % batches) * plan.images + person.permutation(plan.images)
        again = person.permutation(max(1, plan.images // 2))[: plan.repeats]
        trials = [(int(image), "main", -1) for image in own]
        trials += [(int(own[place]), "repeat", int(place)) for place in again]
        checks = [(images + n, "attention", -1) for n in range(plan.attention)]
        checks += [(images + plan.attention + n, "gold", -1) for n in range(plan.gold)]
        start = len(session)
        for image, kind, repeats in [*trials, *checks]:
            views = np.random.default_rng([seed, 2, number, image])
            seen = int(shown[image])
            if views.random() < doubt[image]:
                seen = LOOKALIKES[seen][0]
            told = int(asked[image - images]) if kind == "attention" else None
            session.append(number)
            stimulus.append(image)
            first.append(-1 if repeats < 0 else start + repeats)
            kinds.append(kind)
            said.append(answer(character, str(image), seen, CATEGORIES, person, seed * 1000 + number, told))
    return Population(
        [character.name for character in characters],
        _sittings(session, stimulus, first, kinds, said, people, shown, asked, images, plan),
    )


def _drawn(people: int, mix: Mapping[str, float], random: np.random.Generator) -> list[Character]:
    counts = {name: round(share * people) for name, share in mix.items()}
    names = [name for name, count in counts.items() for _ in range(count)]
    return [CHARACTERS[names[place]] for place in random.permutation(len(names))]


def _sittings(
    session: Sequence[int],
    stimulus: Sequence[int],
    first: Sequence[int],
    kinds: Sequence[str],
    said: Sequence[Answer],
    people: int,
    shown: NDArray[np.int64],
    asked: NDArray[np.int64],
    images: int,
    plan: Design,
) -> Sittings:
    kind = np.array(kinds)
    answers = Answers.from_elicited(
        [Elicited(each.named, frozenset(each.impossible)) for each in said], categories=CATEGORIES
    )
    outcomes = [_outcome(answers, row, kinds[row], stimulus[row], shown, asked, images) for row in range(len(said))]
    return Sittings(
        session=np.array(session, dtype=np.int64),
        stimulus=2 * np.array(stimulus, dtype=np.int64),
        main=np.asarray(kind == "main"),
        first=np.array(first, dtype=np.int64),
        attention=np.asarray(kind == "attention"),
        gold=np.asarray(kind == "gold"),
        passed=np.array([outcome is not None and outcome.passed for outcome in outcomes]),
        gold_distance=np.array(
            [np.nan if outcome is None or outcome.distance is None else outcome.distance for outcome in outcomes]
        ),
        duration_ms=np.array([each.duration_ms for each in said], dtype=np.int64),
        changes=np.zeros(len(said), dtype=np.int64),
        warnings_kept=np.zeros(len(said), dtype=np.int64),
        answers=answers,
        comprehension=np.ones(people, dtype=np.int64),
        voices=np.ones(people, dtype=np.bool_),
    )


def _outcome(
    answers: Answers,
    row: int,
    kind: str,
    stimulus: int,
    shown: NDArray[np.int64],
    asked: NDArray[np.int64],
    images: int,
) -> Outcome | None:
    mine = Answers(answers.percentages[row : row + 1], answers.ranks[row : row + 1], answers.impossible[row : row + 1])
    if kind == "attention":
        return judge_check(mine, allowed=[int(asked[stimulus - images])])[0]
    if kind == "gold":
        target = np.full(CATEGORIES, 0.0)
        target[shown[stimulus]], target[LOOKALIKES[int(shown[stimulus])][0]] = 0.85, 0.15
        return judge_check(mine, target=target, tolerance=GOLD_TOLERANCE)[0]
    return None
