"""How the people of a study answered, measured alike for all, and rules over these measures.

Everything is worked out for a whole study at once. A measure of a session is a number with how many observations it
rests on; where there are none it is unknown, and no rule is broken by what is not known. Nothing is a correlation: of
constant, honest answers it would be undefined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.labels import diagnostics
from elicit.labels.consistency import COMPARED
from elicit.labels.diagnostics import Thresholds
from elicit.labels.scoring import Score, calibration, expected_score, leave_one_out
from elicit.labels.simplex import total_variation
from elicit.labels.varieties import Answers

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

VERSION = 1
"""Stored beside the measures; raised whenever :func:`measure` would answer differently."""

# Percentages and sums of them: nearer than this is equal.
_TOLERANCE = 1e-9


class Measure(StrEnum):
    """What is measured of a session, and what a rule may be about."""

    REPEAT_DISTANCE = "repeat_distance"
    REPEATS_CHANGED = "repeats_changed"
    ATTENTION_FAILED = "attention_failed"
    GOLD_FAILED = "gold_failed"
    GOLD_DISTANCE = "gold_distance"
    COMPREHENSION = "comprehension"
    MEDIAN_SECONDS = "median_seconds"
    FAST_SHARE = "fast_share"
    CERTAIN_SHARE = "certain_share"
    TINY_SHARE = "tiny_share"
    FIVES_SHARE = "fives_share"
    TENS_SHARE = "tens_share"
    HEAPING = "heaping"
    LONGEST_RUN = "longest_run"
    WARNINGS_KEPT = "warnings_kept"
    CHANGES = "changes"
    CROWD_DISTANCE = "crowd_distance"
    CROWD_EXCESS = "crowd_excess"
    CROWD_PERCENTILE = "crowd_percentile"
    SCORE = "score"
    CALIBRATION_ERROR = "calibration_error"
    OVERCONFIDENCE = "overconfidence"
    ALONE_SHARE = "alone_share"


@dataclass(frozen=True, slots=True)
class About:
    """What a measure is, in words. ``of``: what it is counted over, several of them; ``one``: one of them.

    ``unit``: `share` (0..1, shown in per cent), `count` (whole), `seconds`, `points` (percentage points, as a share)
    or `number`. ``high``: whether a high value is the odd one, so that rules say "at least".
    """

    title: str
    what: str
    one: str
    unit: str
    high: bool = True

    @property
    def of(self) -> str:
        return f"{self.one}s" if not self.one.endswith("y") else f"{self.one[:-1]}ies"


ABOUT = {
    Measure.REPEAT_DISTANCE: About(
        "Distance of repeats",
        "Mean total variation between an image's first answer and its repeat: 0 the same, 1 nothing in common.",
        "repeat",
        "number",
    ),
    Measure.REPEATS_CHANGED: About(
        "Repeats with another category", "Share of repeats whose most likely category changed.", "repeat", "share"
    ),
    Measure.ATTENTION_FAILED: About(
        "Attention checks failed", "Answers that did not name what the page asked for.", "attention check", "count"
    ),
    Measure.GOLD_FAILED: About(
        "Gold failed",
        "Answers to images with a known label that lie outside what is allowed.",
        "gold image",
        "count",
    ),
    Measure.GOLD_DISTANCE: About(
        "Distance from gold", "Mean total variation from the known distributions.", "gold image", "number"
    ),
    Measure.COMPREHENSION: About(
        "Comprehension attempts", "How often the comprehension check was sent.", "comprehension check", "count"
    ),
    Measure.MEDIAN_SECONDS: About(
        "Median time", "Median seconds from the painted image to the answer.", "answer", "seconds", high=False
    ),
    Measure.FAST_SHARE: About("Fast answers", "Share of answers that took less than 2 s.", "answer", "share"),
    Measure.CERTAIN_SHARE: About(
        "Answers of 100 %", "Share of first percentages that are exactly 100.", "answer", "share"
    ),
    Measure.TINY_SHARE: About(
        "Tiny percentages",
        "Share of first percentages above 0 and up to 1: perhaps meant from 0 to 1.",
        "answer",
        "share",
    ),
    Measure.FIVES_SHARE: About("Multiples of 5", "Share of all percentages.", "percentage", "share"),
    Measure.TENS_SHARE: About("Multiples of 10", "Share of all percentages.", "percentage", "share"),
    Measure.HEAPING: About(
        "Heaping index",
        "Like Whipple's, of the percentages from 3 to 97: 100 no preference for fives, 500 nothing else.",
        "percentage",
        "number",
    ),
    Measure.LONGEST_RUN: About("Longest run", "How often in a row the very same answer was given.", "answer", "count"),
    Measure.WARNINGS_KEPT: About(
        "Warnings ignored", "Answers sent unchanged although the page had asked back.", "answer", "count"
    ),
    Measure.CHANGES: About("Changes of mind", "Changes per answer before it was sent, on average.", "answer", "number"),
    Measure.CROWD_DISTANCE: About(
        "Distance from the others",
        "Mean total variation from the mean of the others' answers on the same images.",
        "image",
        "number",
    ),
    Measure.CROWD_EXCESS: About(
        "Distance beyond the images' own",
        "How much further from the others than they are from one another on the same images.",
        "image",
        "number",
    ),
    Measure.CROWD_PERCENTILE: About(
        "Rank of that distance", "Share of sessions that lie nearer to the others.", "image", "share"
    ),
    Measure.SCORE: About(
        "Score against the others",
        "Mean Brier score against the others' answers: 0 is best, -2 worst.",
        "image",
        "number",
        high=False,
    ),
    Measure.CALIBRATION_ERROR: About(
        "Calibration error",
        "How far stated percentages lie from the share of the others who agree.",
        "image",
        "points",
    ),
    Measure.OVERCONFIDENCE: About(
        "Overconfidence",
        "Stated percentage less the share of the others who agree; below 0 is underconfidence.",
        "image",
        "points",
    ),
    Measure.ALONE_SHARE: About(
        "Named by nobody else",
        "Share of images whose most likely category no other person named at all.",
        "image",
        "share",
    ),
}


@dataclass(frozen=True, slots=True)
class Sittings:
    """S sessions' R answers, as :func:`measure` takes them. Rows of one session lie in the order shown.

    ``session`` (R,): 0..S-1. ``stimulus`` (R,): whole numbers, equal where the same image was shown with the same
    question. ``main`` (R,): whether it is a first answer on one of the study's own images. ``first`` (R,): of a
    repeat the row that it repeats, else -1. ``attention`` and ``gold`` (R,): whether it answers such a check.
    ``passed`` (R,): of these, whether it passes. ``gold_distance`` (R,): total variation from the known distribution,
    NaN where there is none. ``duration_ms``, ``changes``, ``warnings_kept`` (R,). ``answers``: R of them.
    ``comprehension`` (S,): attempts, 0 where there was no check. ``voices`` (S,): whose answers count as the others'.
    """

    session: Integers
    stimulus: Integers
    main: Flags
    first: Integers
    attention: Flags
    gold: Flags
    passed: Flags
    gold_distance: Floats
    duration_ms: Integers
    changes: Integers
    warnings_kept: Integers
    answers: Answers
    comprehension: Integers
    voices: Flags


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure of S sessions: ``values`` (S,), 0 where unknown, and ``counts`` (S,), what each rests on."""

    values: Floats
    counts: Integers

    @property
    def known(self) -> Flags:
        return np.asarray(self.counts > 0)


@dataclass(frozen=True, slots=True)
class Others:
    """First answers beside what the others said. ``rows`` (M,): which answers they are, of the R.

    ``labels``, ``crowd`` (M, K). ``others`` (M,): how many others there are. ``distance`` (M,): total variation.
    ``expected`` (M,): the mean of the others' own distances on the image. Without others all of a row is 0.
    """

    rows: Integers
    labels: Floats
    crowd: Floats
    others: Integers
    distance: Floats
    expected: Floats
    alone: Flags


def measure(sittings: Sittings) -> dict[Measure, Measured]:
    """Every measure of every session. Time grows with the answers alone."""
    labels = soft_labels(sittings.answers)
    return {**_repeats(sittings, labels), **_checks(sittings), **_process(sittings), **_crowd(sittings, labels)}


def beside_others(sittings: Sittings, labels: Floats | None = None) -> Others:
    """Each first answer on one of the study's own images beside the others' on it."""
    all_labels = soft_labels(sittings.answers) if labels is None else labels
    rows = np.flatnonzero(sittings.main)
    own, stimulus, session = all_labels[rows], sittings.stimulus[rows], sittings.session[rows]
    voices = sittings.voices[session]
    crowd, others = leave_one_out(own, stimulus, session, voices=voices)
    known = others > 0
    distance, expected = np.zeros(len(rows)), np.zeros(len(rows))
    distance[known] = total_variation(own[known], crowd[known])
    _, image = np.unique(stimulus, return_inverse=True)
    # A voice whose image has no other has no distance to be compared with.
    heard = voices & known
    size = int(image.max()) + 1 if len(image) else 0
    sums = np.bincount(image[heard], distance[heard], size)[image] - np.where(heard, distance, 0.0)
    number = np.bincount(image[heard], minlength=size)[image] - heard
    expected[number > 0] = sums[number > 0] / number[number > 0]
    ranks = sittings.answers.ranks[rows]
    named = (ranks > 0) & voices[:, np.newaxis]
    classes = ranks.shape[1]
    counts = np.zeros((size, classes), dtype=np.int64)
    row, category = np.nonzero(named)
    np.add.at(counts, (image[row], category), 1)
    top = np.argmax(ranks == 1, axis=1) if len(rows) else np.zeros(0, dtype=np.int64)
    alone = known & (counts[image, top] - voices == 0)
    return Others(rows, own, crowd, others, distance, expected, np.asarray(alone))


def _repeats(sittings: Sittings, labels: Floats) -> dict[Measure, Measured]:
    again = np.flatnonzero(sittings.first >= 0)
    before = sittings.first[again]
    distance = total_variation(labels[again], labels[before]) if len(again) else np.zeros(0)
    tops = np.argmax(sittings.answers.ranks == 1, axis=1) if len(labels) else np.zeros(0, dtype=np.int64)
    session = sittings.session[again]
    return {
        Measure.REPEAT_DISTANCE: _mean(sittings, session, distance),
        Measure.REPEATS_CHANGED: _mean(sittings, session, tops[again] != tops[before]),
    }


def _checks(sittings: Sittings) -> dict[Measure, Measured]:
    attention, gold = np.flatnonzero(sittings.attention), np.flatnonzero(sittings.gold)
    judged = np.flatnonzero(sittings.gold & np.isfinite(sittings.gold_distance))
    return {
        Measure.ATTENTION_FAILED: _sum(sittings, sittings.session[attention], ~sittings.passed[attention]),
        Measure.GOLD_FAILED: _sum(sittings, sittings.session[gold], ~sittings.passed[gold]),
        Measure.GOLD_DISTANCE: _mean(sittings, sittings.session[judged], sittings.gold_distance[judged]),
        Measure.COMPREHENSION: Measured(
            sittings.comprehension.astype(np.float64), (sittings.comprehension > 0).astype(np.int64)
        ),
    }


def _process(sittings: Sittings) -> dict[Measure, Measured]:
    """How the scale was used and how long it took; checks that say what to answer tell nothing of either."""
    limits = Thresholds()
    sessions = len(sittings.voices)
    rows = np.flatnonzero(~sittings.attention)
    order = rows[np.argsort(sittings.session[rows], kind="stable")]
    starts = np.searchsorted(sittings.session[order], np.arange(sessions + 1))
    values: dict[Measure, list[tuple[float, int]]] = {}
    answers = sittings.answers
    firsts = (answers.percentages * (answers.ranks == 1)).sum(axis=1)
    for low, high in pairwise(starts.tolist()):
        mine = order[low:high]
        said = answers.percentages[mine][answers.ranks[mine] > 0]
        heaps = diagnostics.heaping(said, most_round=limits.most_round)
        certain = diagnostics.certainty(firsts[mine], most_certain=limits.most_certain)
        tiny = diagnostics.tiny_percentages(firsts[mine], most_tiny=limits.most_tiny)
        pace = diagnostics.speed(
            sittings.duration_ms[mine].tolist(), fastest_ms=limits.fastest_ms, most_fast=limits.most_fast
        )
        # The second of two questions about one image may well have the same answer as the first.
        runs = diagnostics.same_answers(_said(answers, _without_doubles(sittings, mine)), longest_run=0)
        for name, pair in (
            (Measure.MEDIAN_SECONDS, ((pace.median_ms or 0.0) / 1000.0, pace.count)),
            (Measure.FAST_SHARE, (pace.share, pace.count)),
            (Measure.CERTAIN_SHARE, (certain.share, certain.count)),
            (Measure.TINY_SHARE, (tiny.share, tiny.count)),
            (Measure.FIVES_SHARE, (heaps.fives_share, heaps.count)),
            (Measure.TENS_SHARE, (heaps.tens_share, heaps.count)),
            (Measure.HEAPING, (heaps.index or 0.0, 0 if heaps.index is None else heaps.count)),
            (Measure.LONGEST_RUN, (float(runs.longest), runs.count)),
        ):
            values.setdefault(name, []).append(pair)
    found = {
        name: Measured(np.array([value for value, _ in pairs]), np.array([count for _, count in pairs], np.int64))
        for name, pairs in values.items()
    }
    session = sittings.session[rows]
    found[Measure.WARNINGS_KEPT] = _sum(sittings, session, sittings.warnings_kept[rows])
    found[Measure.CHANGES] = _mean(sittings, session, sittings.changes[rows])
    return found


def _without_doubles(sittings: Sittings, mine: Integers) -> Integers:
    """Those of a session's main answers whose stimulus differs in more than the question from the one before.

    With two questions on each image, stimuli of one image are neighbours: 2 i and 2 i + 1.
    """
    image = sittings.stimulus[mine] // 2
    return mine[np.append(True, image[1:] != image[:-1])] if len(mine) else mine


def _said(answers: Answers, rows: Integers) -> Iterable[object]:
    percentages, ranks, impossible = answers.percentages[rows], answers.ranks[rows], answers.impossible[rows]
    return [(p.tobytes(), r.tobytes(), i.tobytes()) for p, r, i in zip(percentages, ranks, impossible, strict=True)]


def _crowd(sittings: Sittings, labels: Floats) -> dict[Measure, Measured]:
    found = beside_others(sittings, labels)
    known = np.flatnonzero(found.others > 0)
    session = sittings.session[found.rows[known]]
    own, crowd = found.labels[known], found.crowd[known]
    # Two others at the least: their own distances say how much people differ on an image.
    compared = np.flatnonzero(found.others > 1)
    excess = _mean(
        sittings, sittings.session[found.rows[compared]], found.distance[compared] - found.expected[compared]
    )
    brier = expected_score(own, crowd, score=Score.BRIER) if len(known) else np.zeros(0)
    errors, signed = _calibration(sittings, found.rows[known], crowd)
    return {
        Measure.CROWD_DISTANCE: _mean(sittings, session, found.distance[known]),
        Measure.CROWD_EXCESS: excess,
        Measure.CROWD_PERCENTILE: Measured(_percentiles(excess), excess.counts),
        Measure.SCORE: _mean(sittings, session, brier),
        Measure.CALIBRATION_ERROR: errors,
        Measure.OVERCONFIDENCE: signed,
        Measure.ALONE_SHARE: _mean(sittings, sittings.session[found.rows[compared]], found.alone[compared]),
    }


def _calibration(sittings: Sittings, rows: Integers, crowd: Floats) -> tuple[Measured, Measured]:
    answers, session = sittings.answers, sittings.session[rows]
    tops = np.argmax(answers.ranks[rows] == 1, axis=1) if len(rows) else np.zeros(0, dtype=np.int64)
    stated = answers.percentages[rows, tops]
    order = np.argsort(session, kind="stable")
    starts = np.searchsorted(session[order], np.arange(len(sittings.voices) + 1))
    errors, signed, counts = [], [], []
    for low, high in pairwise(starts.tolist()):
        mine = order[low:high]
        found = calibration(stated[mine], tops[mine], crowd[mine]) if len(mine) else None
        errors.append(found.error if found else 0.0)
        signed.append(found.stated - found.observed if found else 0.0)
        counts.append(len(mine))
    number = np.array(counts, dtype=np.int64)
    return Measured(np.array(errors), number), Measured(np.array(signed), number)


def _percentiles(measured: Measured) -> Floats:
    """(S,) the share of the other known values that lie below, ties half, 0 where it is not known."""
    known = measured.known
    values = np.sort(measured.values[known])
    ranks = np.zeros(len(measured.values))
    if len(values) > 1:
        mine = measured.values[known]
        below, to = np.searchsorted(values, mine, "left"), np.searchsorted(values, mine, "right")
        ranks[known] = (below + 0.5 * (to - below - 1)) / (len(values) - 1)
    return ranks


def ranked_among(measured: Measured, others: Floats) -> Measured:
    """Each known value's share of the sorted `others`, (M,), that lie below it, ties half; 0 where it is not known."""
    below, to = np.searchsorted(others, measured.values, "left"), np.searchsorted(others, measured.values, "right")
    ranks = np.where(measured.known, 0.5 * (below + to) / max(1, len(others)), 0.0)
    return Measured(ranks, measured.counts)


def _sum(sittings: Sittings, session: Integers, values: ArrayLike) -> Measured:
    sessions = len(sittings.voices)
    sums = np.bincount(session, np.asarray(values, dtype=np.float64), sessions).astype(np.float64)
    return Measured(sums, np.bincount(session, minlength=sessions))


def _mean(sittings: Sittings, session: Integers, values: ArrayLike) -> Measured:
    summed = _sum(sittings, session, values)
    return Measured(summed.values / np.maximum(summed.counts, 1), summed.counts)


# --- Images whose answer is known


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an answer passes a check; ``distance``: total variation from the target, None without one."""

    passed: bool
    distance: float | None


def judge_check(
    answers: Answers, *, allowed: Sequence[int] = (), target: ArrayLike | None = None, tolerance: float = 0.0
) -> list[Outcome]:
    """Answers against what is known of one image: a most likely class of ``allowed``, or a soft label at most
    ``tolerance`` (total variation, 0..1) from ``target`` (K,) on the simplex. Exactly one of both is given.
    """
    if (target is None) == (not allowed):
        raise ValueError("a check has either allowed classes or a target.")
    if target is None:
        tops = np.argmax(answers.ranks == 1, axis=1)
        return [Outcome(bool(passed), None) for passed in np.isin(tops, list(allowed))]
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must lie in 0..1, got {tolerance}.")
    distances = total_variation(COMPARED.soft_labels(answers), np.asarray(target, dtype=np.float64)).tolist()
    return [Outcome(distance <= tolerance + _TOLERANCE, distance) for distance in distances]


# --- Rules


@dataclass(frozen=True, slots=True)
class Rule:
    """Broken by a session whose ``measure`` rests on ``least`` observations or more and reaches ``threshold``:
    from above where ``at_least``, from below otherwise.
    """

    measure: Measure
    threshold: float
    at_least: bool = True
    least: int = 1

    def broken(self, measured: Measured) -> Flags:
        """(S,) by these values of its measure."""
        beyond = (
            measured.values >= self.threshold - _TOLERANCE
            if self.at_least
            else measured.values <= self.threshold + _TOLERANCE
        )
        return np.asarray(beyond & (measured.counts >= max(1, self.least)))

    @property
    def says(self) -> str:
        """The rule as a sentence without its full stop."""
        about = ABOUT[self.measure]
        amount = in_words(self.measure, self.threshold)
        if self.measure in _FAILED:
            words = f"failed {'at least' if self.at_least else 'at most'} {amount}"
            of = f" of at least {self.least}" if self.least > max(1.0, self.threshold) else ""
            return f"{words}{of} {about.of if of or self.threshold != 1 else about.one}"
        beyond = f"at {'least' if self.at_least else 'most'} {amount}"
        enough = f", over at least {self.least} {about.of}" if self.least > 1 else ""
        return f"{about.title.lower()} {beyond}{enough}"


_FAILED = {Measure.ATTENTION_FAILED, Measure.GOLD_FAILED}

RECOMMENDED = (
    Rule(Measure.ATTENTION_FAILED, 2, least=2),
    Rule(Measure.REPEAT_DISTANCE, 0.6, least=2),
    Rule(Measure.MEDIAN_SECONDS, 2.5, at_least=False, least=10),
    Rule(Measure.CERTAIN_SHARE, 0.99, least=10),
    Rule(Measure.CROWD_EXCESS, 0.25, least=10),
)
"""Chosen on simulated people and the published study: docs/decisions."""


def in_words(name: Measure, value: float) -> str:
    """A value of the measure as people read it."""
    match ABOUT[name].unit:
        case "share":
            return f"{100 * value:.3g}\N{NO-BREAK SPACE}%"
        case "count":
            return f"{value:g}"
        case "seconds":
            return f"{value:.1f}\N{NO-BREAK SPACE}s"
        case "points":
            return f"{100 * value:.0f}\N{NO-BREAK SPACE}points"
    return f"{value:.0f}" if name is Measure.HEAPING else f"{value:.2f}"


def broken_rules(found: dict[Measure, Measured], rules: Sequence[Rule]) -> Flags:
    """(S, number of rules) which session breaks which rule."""
    sessions = len(next(iter(found.values())).values) if found else 0
    columns = [rule.broken(found[rule.measure]) for rule in rules]
    return np.stack(columns, axis=1) if columns else np.zeros((sessions, 0), dtype=np.bool_)


def soft_labels(answers: Answers) -> Floats:
    """(R, K) the labels that all of this module compares."""
    return COMPARED.soft_labels(answers)
