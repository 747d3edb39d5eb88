"""What one annotator said of one image, and the only rule of what a valid answer is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real

from elicit.labels.errors import Refusal

LEAST_PERCENTAGE = 1e-6
"""A smaller percentage is taken as 0: nobody means it, and divisions by it would overflow."""

# Percentages typed with decimals, say 33.3 + 66.7, may add up to a hair more than their decimal sum.
_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Elicited:
    """One answer. Category indices are 0..K-1, percentages 0..100.

    ``named``: (category, percentage) pairs, most likely first; ``impossible``: categories ruled out.
    Answers from outside come through :func:`check`, which refuses contradictions.
    """

    named: tuple[tuple[int, float], ...]
    impossible: frozenset[int]


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """What a study accepts.

    ``categories``: K. ``most_named``: how many categories may be named (None: all K). ``sum_limit``: the most
    that the percentages may add up to (None: no limit, as in CIFAR-10S). ``ask_impossible``: whether the
    study asks which categories are impossible.
    """

    categories: int
    most_named: int | None = None
    sum_limit: float | None = None
    ask_impossible: bool = True

    def __post_init__(self) -> None:
        if self.categories < 2:
            raise ValueError(f"categories must be at least 2, got {self.categories}.")
        if self.most_named is not None and self.most_named < 1:
            raise ValueError(f"most_named must be at least 1 or None, got {self.most_named}.")
        if self.sum_limit is not None and not (math.isfinite(self.sum_limit) and self.sum_limit > 0):
            raise ValueError(f"sum_limit must be a positive number or None, got {self.sum_limit}.")


class Contradiction(Refusal):
    """An answer that can't be taken as it is; lists every problem, not just the first.

    ``code`` is the first problem's code, ``fields`` maps each field to a sentence, ``codes`` to its code.
    """

    def __init__(
        self,
        code: str,
        message: str,
        fields: Mapping[str, str] | None = None,
        codes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, fields)
        self.codes: dict[str, str] = dict(codes or {})

    def __reduce__(self) -> tuple[type[Contradiction], tuple[str, str, dict[str, str], dict[str, str]]]:  # type: ignore[override]
        return (type(self), (self.code, self.message, self.fields, self.codes))


@dataclass
class _Problems:
    """Sentences and codes by field; the first problem of a field is the one that is shown."""

    fields: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, code: str, sentence: str) -> None:
        if where not in self.fields:
            self.fields[where] = sentence
            self.codes[where] = code

    def raise_if_any(self) -> None:
        if self.fields:
            code = next(iter(self.codes.values()))
            raise Contradiction(code, " ".join(dict.fromkeys(self.fields.values())), self.fields, self.codes)


def check(named: Sequence[tuple[object, object]], impossible: Iterable[object], rules: AnswerRules) -> Elicited:
    """The answer, if it is valid under ``rules``; otherwise Contradiction with all its problems.

    Categories are integers 0..K-1; percentages are ints, floats or Decimals in 0..100 (never text, never
    True) and taken as 0 below 1e-6. Codes: nothing_answered, unknown_category, category_named_twice,
    named_and_impossible, percentage_missing, percentage_not_a_number, percentage_out_of_range,
    alternative_likelier, nothing_likely, sum_over_limit, too_many_named, impossible_not_asked.

    Fields: ``named``, ``named.<i>.category``, ``named.<i>.percentage``, ``impossible``,
    ``impossible.<category>``, ``sum``.
    """
    problems = _Problems()
    if not named:
        problems.add("named", "nothing_answered", "Name the category that is most likely.")
    most = min(rules.most_named or rules.categories, rules.categories)
    if len(named) > most:
        problems.add("named", "too_many_named", f"Name {_count(most)} at most.")

    categories = _check_categories(named[: rules.categories], rules, problems)
    percentages = _check_percentages(named[: rules.categories], rules, problems)
    ruled_out = _check_impossible(impossible, set(categories), rules, problems)

    problems.raise_if_any()
    return Elicited(tuple(zip(categories, percentages, strict=True)), frozenset(ruled_out))


def _count(categories: int) -> str:
    return "1 category" if categories == 1 else f"{categories} categories"


def _as_category(value: object, categories: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    index = int(value)
    return index if 0 <= index < categories else None


def _check_categories(named: Sequence[tuple[object, object]], rules: AnswerRules, problems: _Problems) -> list[int]:
    known: list[int] = []
    for place, (value, _) in enumerate(named):
        category = _as_category(value, rules.categories)
        if category is None:
            problems.add(f"named.{place}.category", "unknown_category", "Choose one of the categories.")
        elif category in known:
            problems.add(f"named.{place}.category", "category_named_twice", "This category is already named above.")
        else:
            known.append(category)
    return known


def _as_number(value: object) -> float | None:
    """A finite float, infinity for an int too large for one, None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    except ValueError:  # a signalling Decimal NaN
        return None
    return number if math.isfinite(number) else None


def _check_percentages(named: Sequence[tuple[object, object]], rules: AnswerRules, problems: _Problems) -> list[float]:
    valid: list[float] = []
    for place, (_, value) in enumerate(named):
        where = f"named.{place}.percentage"
        if value is None:
            problems.add(where, "percentage_missing", "Say how likely this category is.")
            continue
        number = _as_number(value)
        if number is None:
            problems.add(where, "percentage_not_a_number", "The percentage has to be a number.")
        elif not 0 <= number <= 100:
            problems.add(where, "percentage_out_of_range", "The percentage has to lie between 0 and 100.")
        else:
            number = number if number >= LEAST_PERCENTAGE else 0.0
            if valid and number > valid[-1]:
                problems.add(
                    where,
                    "alternative_likelier",
                    "This is given as likelier than the category above it: put the likelier one first.",
                )
            valid.append(number)
    if named and len(valid) == len(named) and not any(valid):
        problems.add("named.0.percentage", "nothing_likely", "The most likely category needs more than 0 %.")
    if rules.sum_limit is not None and sum(valid) > rules.sum_limit + _SUM_TOLERANCE:
        problems.add("sum", "sum_over_limit", f"The percentages may add up to {rules.sum_limit:g} % at most.")
    return valid


def _check_impossible(
    impossible: Iterable[object], named: set[int], rules: AnswerRules, problems: _Problems
) -> set[int]:
    ruled_out: set[int] = set()
    for value in impossible:
        if not rules.ask_impossible:
            problems.add("impossible", "impossible_not_asked", "This study does not ask for impossible categories.")
            break
        category = _as_category(value, rules.categories)
        if category is None:
            problems.add("impossible", "unknown_category", "An impossible category is not in the list.")
        elif category in named:
            problems.add(
                f"impossible.{category}",
                "named_and_impossible",
                "This category is named as likely and marked as impossible.",
            )
        else:
            ruled_out.add(category)
    return ruled_out
