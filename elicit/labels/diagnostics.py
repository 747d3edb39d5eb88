"""How an annotator uses the scale: signs that a curator may want to look at.

Each function looks at one annotator's answers, or at everybody's, and returns counts, whether they pass a
threshold that the caller gives (``notable``), and a plain sentence (``says``). They judge nobody: a notable
finding is a reason to look, and nothing is left out because of it. Percentages are 0..100; without any answer
every count is 0 and nothing is notable.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels.elicited import AnswerRules, Contradiction, Elicited, check

Floats = NDArray[np.float64]

SaidAnswer: TypeAlias = tuple[Sequence[tuple[object, object]], Iterable[object]]
"""An answer as it was said, unchecked: (category, percentage) pairs and impossible categories."""

# Of the 95 whole numbers 3..97 exactly a fifth are multiples of 5, as of Whipple's ages 23..62. Outside lie the
# ends of the scale, where 0 and 100 may be meant as they are.
_WHIPPLE_RANGE = (3.0, 97.0)


class Finding(Protocol):
    """What every diagnostic has."""

    @property
    def notable(self) -> bool:
        """Whether it passes the caller's threshold."""

    @property
    def says(self) -> str:
        """A sentence for a curator."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Beyond what a finding is notable; shares are 0..1.

    ``most_round``: the share of multiples of 5. Three of four people of the published study used nothing
    else between 3 and 97, so that by default no share is notable. ``most_tiny``: of first percentages of 1
    or less. ``most_certain``: of first percentages of 100. ``longest_run``: how often in a row the same answer
    may come; in the published study it came up to 3 times. ``fastest_ms`` and ``most_fast``: the share of
    answers that may take less time; a single click among ten classes took people about 2.5 s (CIFAR-10H).
    ``most_refused``: of answers that contradict themselves.
    """

    most_round: float = 1.0
    most_tiny: float = 0.2
    most_certain: float = 0.95
    longest_run: int = 3
    fastest_ms: float = 2000.0
    most_fast: float = 0.1
    most_refused: float = 0.1


@dataclass(frozen=True, slots=True)
class Heaping:
    """Round numbers among ``count`` percentages: multiples of 5, and of 10 among them.

    ``index`` is like Whipple's (Shryock & Siegel 1976): 5 times the percentage of multiples of 5 among those
    from 3 to 97: 100 without a preference, 500 for nothing else; None if there are none in that range.
    """

    count: int
    fives: int
    tens: int
    index: float | None
    notable: bool

    @property
    def fives_share(self) -> float:
        """0..1."""
        return _share(self.fives, self.count)

    @property
    def tens_share(self) -> float:
        """0..1."""
        return _share(self.tens, self.count)

    @property
    def says(self) -> str:
        if not self.count:
            return _NOTHING
        sentence = f"{_of(self.fives, self.count, 'percentage')} are multiples of 5, {self.tens} of 10"
        if self.index is None:
            return f"{sentence}."
        return f"{sentence}; heaping index {self.index:.0f} (100: no preference, 500: nothing but multiples of 5)."


def heaping(percentages: ArrayLike, *, most_round: float) -> Heaping:
    """``percentages`` (n,) in 0..100; notable if more than the share ``most_round`` are multiples of 5."""
    values = _percentages(percentages)
    fives = values % 5 == 0
    inside = (values >= _WHIPPLE_RANGE[0]) & (values <= _WHIPPLE_RANGE[1])
    count, round_ones = len(values), int(fives.sum())
    return Heaping(
        count=count,
        fives=round_ones,
        tens=int((values % 10 == 0).sum()),
        index=500.0 * float(fives[inside].mean()) if inside.any() else None,
        notable=_share(round_ones, count) > most_round,
    )


@dataclass(frozen=True, slots=True)
class TinyPercentages:
    """``tiny`` of ``count`` percentages are above 0 and at most 1: perhaps meant on a scale from 0 to 1."""

    count: int
    tiny: int
    notable: bool

    @property
    def share(self) -> float:
        """0..1."""
        return _share(self.tiny, self.count)

    @property
    def says(self) -> str:
        if not self.count:
            return _NOTHING
        sentence = f"{_of(self.tiny, self.count, 'percentage')} are 1 or less"
        return f"{sentence}, perhaps meant on a scale from 0 to 1." if self.tiny else f"{sentence}."


def tiny_percentages(percentages: ArrayLike, *, most_tiny: float) -> TinyPercentages:
    """``percentages`` (n,) of the classes named *first*: of an alternative, 1 % is an honest answer.

    Notable if more than the share ``most_tiny`` lie above 0 and at 1 or below.
    """
    values = _percentages(percentages)
    tiny = int(((values > 0) & (values <= 1)).sum())
    return TinyPercentages(len(values), tiny, _share(tiny, len(values)) > most_tiny)


@dataclass(frozen=True, slots=True)
class Certainty:
    """``certain`` of ``count`` first percentages are exactly 100."""

    count: int
    certain: int
    notable: bool

    @property
    def share(self) -> float:
        """0..1."""
        return _share(self.certain, self.count)

    @property
    def says(self) -> str:
        return f"{_of(self.certain, self.count, 'first percentage')} are 100." if self.count else _NOTHING


def certainty(percentages: ArrayLike, *, most_certain: float) -> Certainty:
    """``percentages`` (n,) of the classes named first; notable if more than ``most_certain`` of them are 100."""
    values = _percentages(percentages)
    certain = int((values == 100).sum())
    return Certainty(len(values), certain, _share(certain, len(values)) > most_certain)


@dataclass(frozen=True, slots=True)
class SameAnswers:
    """The ``longest`` run of one answer among ``count`` answers in the order given; 1 if no two follow."""

    count: int
    longest: int
    notable: bool

    @property
    def says(self) -> str:
        if not self.count:
            return _NOTHING
        if self.longest == 1:
            return "No answer came twice in a row."
        return f"The same answer came up to {self.longest} times in a row."


def same_answers(answers: Iterable[object], *, longest_run: int) -> SameAnswers:
    """``answers`` in the order given, compared by ``==``; notable if a run is longer than ``longest_run``."""
    runs = [sum(1 for _ in run) for _, run in groupby(answers)]
    longest = max(runs, default=0)
    return SameAnswers(sum(runs), longest, longest > longest_run)


@dataclass(frozen=True, slots=True)
class Speed:
    """``fast`` of ``count`` answers took less than ``fastest_ms``; their median is None without any."""

    count: int
    fast: int
    fastest_ms: float
    median_ms: float | None
    notable: bool

    @property
    def share(self) -> float:
        """0..1."""
        return _share(self.fast, self.count)

    @property
    def says(self) -> str:
        if self.median_ms is None:
            return "No answer has a duration."
        return (
            f"{_of(self.fast, self.count, 'answer')} took less than {self.fastest_ms / 1000:g} s; "
            f"the median is {self.median_ms / 1000:.1f} s."
        )


def speed(durations_ms: Iterable[float | None], *, fastest_ms: float, most_fast: float) -> Speed:
    """Durations in milliseconds, None where unknown (left out).

    Notable if more than the share ``most_fast`` took less than ``fastest_ms``. ValueError for a duration that
    is negative or not finite.
    """
    known = [float(duration) for duration in durations_ms if duration is not None]
    if not all(0 <= duration < float("inf") for duration in known):
        raise ValueError("durations must be finite and at least 0.")
    fast = sum(duration < fastest_ms for duration in known)
    median = statistics.median(known) if known else None
    return Speed(len(known), fast, fastest_ms, median, _share(fast, len(known)) > most_fast)


@dataclass(frozen=True, slots=True)
class Contradictions:
    """``refused`` of ``count`` answers would be refused; ``codes``: how many by each code, the most first.

    An answer with several problems counts under each of their codes.
    """

    count: int
    refused: int
    codes: Mapping[str, int]
    notable: bool

    @property
    def share(self) -> float:
        """0..1."""
        return _share(self.refused, self.count)

    @property
    def says(self) -> str:
        if not self.count:
            return _NOTHING
        sentence = f"{_of(self.refused, self.count, 'answer')} would be refused"
        reasons = ", ".join(f"{code.replace('_', ' ')} ({number})" for code, number in self.codes.items())
        return f"{sentence}: {reasons}." if reasons else f"{sentence}."


def contradictions(answers: Iterable[SaidAnswer], rules: AnswerRules, *, most_refused: float) -> Contradictions:
    """Answers as they were said, by :func:`elicit.labels.elicited.check`; for answers from elsewhere.

    Notable if more than the share ``most_refused`` would be refused.
    """
    count = refused = 0
    codes: Counter[str] = Counter()
    for named, impossible in answers:
        count += 1
        try:
            check(named, impossible, rules)
        except Contradiction as problem:
            refused += 1
            codes.update(set(problem.codes.values()))
    ranked = dict(sorted(codes.items(), key=lambda item: (-item[1], item[0])))
    return Contradictions(count, refused, ranked, _share(refused, count) > most_refused)


def diagnose(
    answers: Sequence[Elicited],
    durations_ms: Iterable[float | None] = (),
    thresholds: Thresholds | None = None,
) -> tuple[Finding, ...]:
    """One annotator's accepted answers in the order given: heaping, tiny percentages, certainty, same answers, speed.

    Heaping looks at every named percentage, tiny percentages and certainty at the first of each answer.
    """
    limits = thresholds or Thresholds()
    everything = [percentage for answer in answers for _, percentage in answer.named]
    firsts = [answer.named[0][1] for answer in answers]
    return (
        heaping(everything, most_round=limits.most_round),
        tiny_percentages(firsts, most_tiny=limits.most_tiny),
        certainty(firsts, most_certain=limits.most_certain),
        same_answers(answers, longest_run=limits.longest_run),
        speed(durations_ms, fastest_ms=limits.fastest_ms, most_fast=limits.most_fast),
    )


_NOTHING = "There is no answer yet."


def _percentages(values: ArrayLike) -> Floats:
    percentages = np.asarray(values, dtype=np.float64)
    if percentages.ndim != 1:
        raise ValueError(f"percentages must be (n,), got {percentages.shape}.")
    if not ((percentages >= 0) & (percentages <= 100)).all():
        raise ValueError("percentages must be finite and lie in 0..100.")
    return percentages


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _of(part: int, whole: int, noun: str) -> str:
    return f"{part} of {whole} {noun}s ({100 * _share(part, whole):.0f} %)"
