"""How simulated annotators answer. Pure: what they see comes in as a class, what they say goes out as an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

# How classes are taken for one another, roughly, so that careful people disagree where real ones would.
LOOKALIKES = {
    0: (8, 2),
    1: (9, 8),
    2: (0, 4),
    3: (5, 6),
    4: (7, 5),
    5: (3, 7),
    6: (2, 3),
    7: (4, 5),
    8: (0, 9),
    9: (1, 8),
}


@dataclass(frozen=True)
class Answer:
    """What goes to the server: (category, percentage) pairs, most likely first, impossible categories, and how long
    it took."""

    named: tuple[tuple[int, float], ...]
    impossible: tuple[int, ...]
    duration_ms: int


@dataclass(frozen=True)
class Character:
    """One kind of annotator.

    Attributes:
        name: as in reports.
        accuracy: chance that the most likely category is the one in the picture.
        careless: answers at random, always 100 %.
        contradicts: first tries answers that must be refused, then gives a good one.
        seconds: median time for an image.
        leaves_after: share of the trials after which they go, 1 for never.
        misunderstands: chance that they answer a question of the comprehension check at random.
        certain: always says 100 % of one category, and that all others are impossible.
        slips: chance that they take an image for its lookalike for once. The published study's people named another
            category for one repeat in fifteen, which is a slip in twenty-eight answers.
        reads: chance that they do what an attention check asks.
    """

    name: str
    accuracy: float = 0.9
    careless: bool = False
    contradicts: bool = False
    seconds: float = 12.0
    leaves_after: float = 1.0
    misunderstands: float = 0.0
    certain: bool = False
    slips: float = 0.0
    reads: float = 1.0


CAREFUL = Character("careful", slips=0.036, reads=0.98)
CARELESS = Character("careless", careless=True, seconds=4.0, misunderstands=0.6, reads=0.0)
CERTAIN = Character("certain", accuracy=0.8, certain=True, seconds=5.0, misunderstands=0.2, slips=0.05, reads=0.7)
CONTRADICTORY = Character("contradictory", contradicts=True)
HURRIED = Character("hurried", accuracy=0.7, seconds=1.2, misunderstands=0.2, slips=0.1, reads=0.5)
LEAVER = Character("leaver", leaves_after=0.5)

CHARACTERS = {c.name: c for c in (CAREFUL, CARELESS, CERTAIN, CONTRADICTORY, HURRIED, LEAVER)}
# Mostly careful people, and each of the others within the first dozen. Leavers come on top: they complete nothing.
USUAL_MIX = ("careful", "careful", "contradictory", "careful", "hurried", "certain", "careless", "careful")


def mix(count: int) -> list[Character]:
    """`count` characters in the usual mix."""
    return [CHARACTERS[USUAL_MIX[number % len(USUAL_MIX)]] for number in range(count)]


def answer(
    character: Character,
    image: str,
    seen: int | None,
    categories: int,
    person: np.random.Generator,
    seed: int,
    told: int | None = None,
) -> Answer:
    """What the character says of an image.

    Careful people have a view of each image that they hold again, nearly, when it returns: it is drawn from `seed` and
    the image; `person` adds the wobble of the moment.

    Args:
        image: what identifies the image (its URL).
        seen: the class in the picture, if known.
        categories: K, at least 2.
        told: the category that an attention check asks for.
    """
    if told is not None and person.random() < character.reads:
        return Answer(((told, 100.0),), tuple(c for c in range(categories) if c != told), _pace(character, person))
    if character.careless:
        top = int(person.integers(categories))
        return Answer(((top, 100.0),), tuple(c for c in range(categories) if c != top), _pace(character, person))
    view = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")])
    shown = int(view.integers(categories)) if seen is None else seen
    others = [c % categories for c in LOOKALIKES.get(shown, ()) if c % categories != shown]
    if not others:
        others = [(shown + 1) % categories]
    doubt = view.random()
    top, second = (shown, others[0]) if view.random() < character.accuracy else (others[0], shown)
    if character.slips and person.random() < character.slips:
        top, second = second, top
    doubt = 0.0 if character.certain else doubt
    wobble = float(person.integers(-1, 2)) * 5
    if doubt < 0.45:
        named: tuple[tuple[int, float], ...] = ((top, 100.0),)
    else:
        likely = float(np.clip(round(float(view.uniform(50, 95)) / 5) * 5 + wobble, 50, 95))
        rest = 100 - likely if view.random() < 0.6 else max(0.0, 100 - likely - 10)
        named = ((top, likely), (second, min(rest, likely)))
    spoken = {category for category, _ in named}
    unnamed = [c for c in range(categories) if c not in spoken]
    everything = doubt < 0.45 or view.random() < 0.5
    impossible = unnamed if everything else [c for c in unnamed if view.random() < 0.7]
    return Answer(named, tuple(impossible), _pace(character, person))


def asked_for(note: str, names: Sequence[str]) -> int | None:
    """The category that an attention check's note asks for: the first that it names."""
    words = note.casefold()
    found = [(words.find(name.casefold()), -len(name), index) for index, name in enumerate(names)]
    named = [each for each in found if each[0] >= 0]
    return min(named)[2] if named else None


def under_rules(said: Answer, most_named: int | None, ask_impossible: bool) -> Answer:
    """The answer, cut to what the study asks for."""
    return replace(said, named=said.named[:most_named], impossible=said.impossible if ask_impossible else ())


def contradictions(good: Answer, categories: int) -> Iterator[tuple[str, Answer]]:
    """Answers that must be refused, each with the code of the refusal."""
    (top, likely), *_ = good.named
    other = (top + 1) % categories
    yield "nothing_answered", replace(good, named=(), impossible=())
    yield "category_named_twice", replace(good, named=((top, 50.0), (top, 20.0)), impossible=())
    yield "named_and_impossible", replace(good, impossible=(*good.impossible, top))
    yield "alternative_likelier", replace(good, named=((top, 30.0), (other, 60.0)), impossible=())
    yield "percentage_out_of_range", replace(good, named=((top, likely + 101),), impossible=())


def _pace(character: Character, person: np.random.Generator) -> int:
    return int(1000 * character.seconds * person.lognormal(0, 0.35))
