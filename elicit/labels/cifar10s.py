"""CIFAR-10S (Collins, Bhatt & Weller 2022): its files, its authors' repairs, its labels quirk for quirk.

Three layouts. The *raw file*: a jsPsych log as CSV, one row per page seen; rows of type ``survey-html-form``
are answers. The *answers file*: ``{"<image>": [{"Most Probable Class": ..., ...}, ...]}``. The *labels file*:
``{"<image>": [[K floats], ...]}``. The entries of an image are its annotators in no particular order: two
published files list them differently, so compare them as multisets.

Repairs made by hand, applied by ``read_raw`` and listed: ``8p`` means 80, and 0 % for the most probable class
means 100. Quirks that ``published_labels`` keeps, and that ``repaired`` mends:

- A second class equal to the first *overwrites* it: the label's mass is the second percentage.
- A second class without a percentage, or of 0 %, counts as unnamed.
- A named class that is also impossible keeps its mass, and the number of free classes is taken to be
  (not impossible) - (named), which then is too small: free classes may get too much, or nothing, or, where it
  is negative, less than nothing.
- A leftover that nobody can take goes back to the named classes by the last division.
- A sum is full at exactly 1, without tolerance.

The published answers hold repeats and one person's file twice, as if by other annotators; ``first_answers``
leaves both out.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elicit.archives import CIFAR10_CATEGORIES
from elicit.labels.categories import CategorySet
from elicit.labels.cifar10h import write_whole
from elicit.labels.elicited import LEAST_PERCENTAGE, AnswerRules, Contradiction, Elicited, check
from elicit.labels.errors import Refusal
from elicit.labels.simplex import check_simplex
from elicit.labels.varieties import Depth, LabelVariety, Redistribution

Floats = NDArray[np.float64]

CATEGORIES = CategorySet(CIFAR10_CATEGORIES)

FIRST, FIRST_PERCENTAGE = "Most Probable Class", "Most Probable Class Prob"
SECOND, SECOND_PERCENTAGE = "Second Most Probable Class", "Second Most Probable Class Prob"
IMPOSSIBLE = "Impossible Class(es)"
NO_SECOND = "No"

_PAGE = "survey-html-form"
_MAIN, _REPEAT = "spec_conf", "rerun_spec_conf"
_COLUMNS = ("trial_type", "subject", "response", "task", "img_id")

_Number = TypeVar("_Number", int, float)

_SAME_CLASS = "category_named_twice"


@dataclass(frozen=True, slots=True)
class Answer:
    """An entry of the answers file. Classes are indices 0..K-1, percentages as they stand there.

    ``second`` is None for "No", ``second_percentage`` None where nothing was typed. ``impossible`` keeps the
    order of the file.
    """

    first: int
    first_percentage: float
    second: int | None
    second_percentage: float | None
    impossible: tuple[int, ...]


Answers: TypeAlias = dict[int, list[Answer]]
"""The entries of each image."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One change to what a file says: where, of which image and annotator ("" if unknown), what and why."""

    where: str
    image: int
    annotator: str
    what: str
    why: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One page of the raw file: who (``subject``), in which batch, what image, when and what; None where blank.

    ``row``: line of the answer in the table, from 1. ``position``: the page's number in the session as logged.
    ``milliseconds``: time on the page.
    """

    row: int
    subject: str
    batch: int | None
    image: int
    position: int | None
    repeat: bool
    milliseconds: float | None
    answer: Answer


# The raw file


def read_raw(path: Path | str) -> tuple[list[RawResponse], list[Repair]]:
    """The responses of the raw file in its order, read as published, and the repairs made by hand.

    Nothing is left out: repeats and the file that is there twice come too. A second percentage beside "No" is
    dropped, as published. Raises Refusal ``raw_file_unreadable`` or ``raw_answer_unreadable`` (naming the row).
    """
    path = Path(path)
    responses: list[RawResponse] = []
    repairs: list[Repair] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = csv.DictReader(text, strict=True)
            missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise Refusal("raw_file_unreadable", f"{path.name} lacks the column {missing[0]!r}.")
            for number, row in enumerate(rows, start=1):
                if row["trial_type"] == _PAGE and row["task"] in (_MAIN, _REPEAT):
                    response, mended = _read_response(number, row)
                    responses.append(response)
                    repairs += mended
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refusal("raw_file_unreadable", f"{path} can't be read: {error}.") from None
    if not responses:
        raise Refusal("raw_file_unreadable", f"{path.name} holds no answer.")
    return responses, repairs


def _read_response(number: int, row: Mapping[str, str | None]) -> tuple[RawResponse, list[Repair]]:
    def unreadable(why: str) -> Refusal:
        return Refusal("raw_answer_unreadable", f"Row {number} can't be read: {why}.")

    def number_in(column: str) -> float:
        try:
            value = float(row[column] or "")
        except ValueError:
            raise unreadable(f"{column} is {row[column]!r}, not a number") from None
        if not math.isfinite(value):
            raise unreadable(f"{column} is {row[column]!r}, not a number")
        return value

    def unless_blank(column: str, read: Callable[[str], _Number]) -> _Number | None:
        return read(column) if (row.get(column) or "").strip() else None

    def integer_in(column: str) -> int:
        value = number_in(column)
        if not value.is_integer() or value < 0:
            raise unreadable(f"{column} is {row[column]!r}, not a count")
        return int(value)

    try:
        form = json.loads(row["response"] or "")
    except (ValueError, RecursionError):
        raise unreadable("response is no JSON") from None
    if not isinstance(form, dict) or not all(isinstance(value, str) for value in form.values()):
        raise unreadable("response is not a form's values")

    subject, image = row["subject"] or "", integer_in("img_id")
    repairs: list[Repair] = []

    def mend(what: str, why: str, before: str, after: str) -> None:
        repairs.append(Repair(f"row {number}", image, subject, what, why, before, after))

    try:
        answer = _read_form(form, mend)
    except (KeyError, ValueError, Refusal) as error:
        raise unreadable(str(error)) from None
    response = RawResponse(
        row=number,
        subject=subject,
        batch=unless_blank("condition", integer_in),
        image=image,
        position=unless_blank("trial_index", integer_in),
        repeat=row["task"] == _REPEAT,
        milliseconds=unless_blank("rt", number_in),
        answer=answer,
    )
    return response, repairs


def _read_form(form: Mapping[str, str], mend: Any) -> Answer:
    first = CATEGORIES.index(form["classSelect"].removeprefix("mostProb"))
    # The button's value is unquoted HTML, "secondProbNo Alternative": browsers keep what is before the blank.
    chosen = form["classSelect2"].removeprefix("secondProb")
    impossible = tuple(
        CATEGORIES.index(key.removeprefix("improbClassSelect")) for key in form if key.startswith("improbClassSelect")
    )

    typed = form["prob"]
    percentage: float
    if typed == "8p":
        percentage = 80
        mend("percentage_typed_wrong", "p lies beside 0 on the keyboard", typed, "80")
    else:
        percentage = _typed_number(typed)
    if percentage == 0:
        percentage = 100
        mend("nothing_likely", "the most probable class can't have 0 %: taken for full certainty", typed, "100")

    if chosen.split(" ")[0] == NO_SECOND:
        return Answer(first, percentage, None, None, impossible)
    second_typed = form.get("prob2", "")
    second_percentage = None if second_typed == "" else _typed_number(second_typed)
    return Answer(first, percentage, CATEGORIES.index(chosen), second_percentage, impossible)


def _typed_number(typed: str) -> float:
    try:
        number = float(typed)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{typed!r} is no percentage")
    return number


def first_answers(responses: Iterable[RawResponse]) -> tuple[list[RawResponse], list[Repair]]:
    """The responses without repeats and without those entered twice, and a line for each that was entered twice."""
    seen: dict[tuple[str, int, bool], RawResponse] = {}
    twice: list[Repair] = []
    for response in responses:
        original = seen.setdefault((response.subject, response.image, response.repeat), response)
        if original is not response:
            twice.append(
                Repair(
                    f"row {response.row}",
                    response.image,
                    response.subject,
                    "entered_twice",
                    "one person's file is in the table twice",
                    f"rows {original.row} and {response.row}",
                    f"row {original.row}",
                )
            )
    return [response for response in seen.values() if not response.repeat], twice


def retest_pairs(responses: Iterable[RawResponse], *, published: bool = False) -> list[tuple[RawResponse, RawResponse]]:
    """(first answer, repeat) by one person of one image, each once, in the order of the repeats.

    As ``published``, a file that is there twice counts its pairs twice.
    """
    by_image: dict[tuple[str, int], list[RawResponse]] = {}
    for response in responses:
        by_image.setdefault((response.subject, response.image), []).append(response)
    pairs: list[tuple[RawResponse, RawResponse]] = []
    for those in by_image.values():
        firsts = [response for response in those if not response.repeat]
        repeats = [response for response in those if response.repeat]
        if firsts and repeats:
            pairs += [(firsts[0], repeats[0])] * (len(repeats) if published else 1)
    return sorted(pairs, key=lambda pair: pair[1].row)


def answers_of(responses: Iterable[RawResponse]) -> Answers:
    """The responses by image, ascending, each image's in the order given."""
    by_image: Answers = {}
    for response in responses:
        by_image.setdefault(response.image, []).append(response.answer)
    return dict(sorted(by_image.items()))


# The two JSON layouts


def read_answers(path: Path | str, categories: CategorySet = CATEGORIES) -> Answers:
    """The answers file. Raises Refusal ``answers_unreadable`` naming the image and the entry."""
    answers: Answers = {}
    for image, entries in _read_json(path, "answers_unreadable"):
        answers[image] = []
        for place, entry in enumerate(entries, start=1):
            try:
                answers[image].append(_read_entry(entry, categories))
            except (KeyError, TypeError, ValueError, Refusal) as error:
                why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise Refusal("answers_unreadable", f"{_entry(image, place)} can't be read: {why}") from None
    return answers


def _entry(image: int, place: int) -> str:
    return f"image {image}, entry {place}"


def _read_entry(entry: Any, categories: CategorySet) -> Answer:
    if not isinstance(entry, dict):
        raise TypeError("it is no object.")
    first, impossible = entry[FIRST], entry[IMPOSSIBLE]
    second, second_percentage = entry[SECOND], entry[SECOND_PERCENTAGE]
    if not isinstance(impossible, list):
        raise TypeError(f"{IMPOSSIBLE} is no list.")
    # A class called "No" exists in some dataset; where it does, nobody can say "none" in this layout.
    unnamed = second is None or (second == NO_SECOND and NO_SECOND not in categories.names)
    return Answer(
        categories.index(first),
        _number(entry[FIRST_PERCENTAGE]),
        None if unnamed else categories.index(second),
        None if unnamed or second_percentage is None else _number(second_percentage),
        tuple(categories.index(name) for name in impossible),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no percentage.")
    return value


def write_answers(path: Path | str, answers: Answers, categories: CategorySet = CATEGORIES) -> None:
    """Write the answers file: one line per image; complete or not at all."""
    _write_json(
        path,
        (
            (
                image,
                [
                    {
                        FIRST: categories.name(answer.first),
                        FIRST_PERCENTAGE: answer.first_percentage,
                        SECOND: NO_SECOND if answer.second is None else categories.name(answer.second),
                        SECOND_PERCENTAGE: answer.second_percentage,
                        IMPOSSIBLE: [categories.name(index) for index in answer.impossible],
                    }
                    for answer in entries
                ],
            )
            for image, entries in answers.items()
        ),
    )


def read_labels(path: Path | str) -> tuple[NDArray[np.int64], Floats]:
    """The labels file as ``images`` (R,) and ``soft_labels`` (R, K), in the file's order.

    Raises Refusal ``labels_unreadable``, also for a label off the simplex.
    """
    images: list[int] = []
    labels: list[list[float]] = []
    for image, entries in _read_json(path, "labels_unreadable"):
        for place, entry in enumerate(entries, start=1):
            numbers = isinstance(entry, list) and all(
                isinstance(value, int | float) and not isinstance(value, bool) for value in entry
            )
            if not numbers or len(entry) < 2 or (labels and len(entry) != len(labels[0])):
                raise Refusal("labels_unreadable", f"{_entry(image, place)} is no list of one number per class.")
            try:
                check_simplex(entry)
            except ValueError as error:
                raise Refusal("labels_unreadable", f"{_entry(image, place)} is no soft label: {error}") from None
            images.append(image)
            labels.append(entry)
    if not images:
        raise Refusal("labels_unreadable", f"{Path(path).name} holds no label.")
    return np.array(images, dtype=np.int64), np.array(labels, dtype=np.float64)


def write_labels(path: Path | str, images: ArrayLike, soft_labels: ArrayLike) -> None:
    """Write the labels file from ``images`` (R,) and ``soft_labels`` (R, K): every label under its image, in order.

    Raises ValueError for wrong shapes or numbers that are not finite.
    """
    rows, labels = np.asarray(images), np.asarray(soft_labels, dtype=np.float64)
    if labels.ndim != 2 or rows.shape != labels.shape[:1]:
        raise ValueError(f"images must be (R,) and soft_labels (R, K), got {rows.shape} and {labels.shape}.")
    if not np.isfinite(labels).all():
        raise ValueError("a label holds nan or infinity.")
    by_image: dict[int, list[list[float]]] = {}
    for image, label in zip(rows.tolist(), labels.tolist(), strict=True):
        by_image.setdefault(image, []).append(label)
    _write_json(path, by_image.items())


def _read_json(path: Path | str, code: str) -> Iterator[tuple[int, list[Any]]]:
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(code, f"{path} can't be read: {error}.") from None
    if not isinstance(content, dict):
        raise Refusal(code, f"{path.name} is no object of images.")
    for image, entries in content.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,17}", image):
            raise Refusal(code, f"{path.name}: {image!r} is no number of an image.")
        if not isinstance(entries, list):
            raise Refusal(code, f"{path.name}: what stands under image {image} is no list.")
        yield int(image), entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name is there twice")
    return content


def _write_json(path: Path | str, entries: Iterable[tuple[int, object]]) -> None:
    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as out:
            opening = "{\n"
            for image, those in entries:
                out.write(f'{opening}"{image}": {json.dumps(those, ensure_ascii=False, allow_nan=False)}')
                opening = ",\n"
            out.write("{}\n" if opening == "{\n" else "\n}\n")

    write_whole(Path(path), write)


def write_repairs(path: Path | str, repairs: Iterable[Repair]) -> None:
    """Write the repairs as CSV with the columns where, image, annotator, what, why, before, after."""

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as out:
            rows = csv.writer(out, lineterminator="\n")
            rows.writerow(Repair.__slots__)
            rows.writerows([getattr(repair, name) for name in Repair.__slots__] for repair in repairs)

    write_whole(Path(path), write)


# From answers to labels


def published_labels(
    answers: Sequence[Answer], variety: LabelVariety | None = None, *, categories: int = len(CATEGORIES)
) -> Floats:
    """(R, K) float64: the labels of the authors' code, quirks and all, bit for bit.

    ``variety`` is ``t2-clamp`` with gamma 0.1 by default; Refusal ``not_published`` for depth ``tall`` or a
    spread below 1, which that code has not. A row whose percentages are all 0 and find no free class is nan.
    """
    variety = variety or LabelVariety()
    if variety.depth is Depth.TALL or variety.spread != 1:
        raise Refusal("not_published", f"{variety.slug} is not among the published varieties.")
    rows = len(answers)
    label = np.zeros((rows, categories))
    possible = np.ones((rows, categories), dtype=np.bool_)
    for row, answer in enumerate(answers):
        label[row, answer.first] = answer.first_percentage
        if variety.depth is Depth.T2 and answer.second is not None and answer.second_percentage is not None:
            label[row, answer.second] = answer.second_percentage
        possible[row, list(answer.impossible)] = False

    label /= 100
    mass = label.sum(axis=1)
    full = ~(mass < 1)
    label[full] /= mass[full, np.newaxis]
    named = (label > 0.0).sum(axis=1)
    if variety.redistribution is Redistribution.CLAMP:
        believed_free = possible.sum(axis=1) - named
        receive = possible & (label == 0.0) & (believed_free != 0)[:, np.newaxis]
        given = np.where(full, variety.gamma, 1 - mass)
        label[full & (believed_free != 0)] *= 1 - variety.gamma
        share = given / np.where(believed_free == 0, 1, believed_free)
        label += np.where(receive, share[:, np.newaxis], 0.0)
    elif variety.redistribution is Redistribution.UNIFORM:
        share = np.where(full, 0, 1 - mass) / np.maximum(categories - named, 1)
        label = np.where(label == 0.0, share[:, np.newaxis], label)
    with np.errstate(invalid="ignore"):
        label /= label.sum(axis=1)[:, np.newaxis]
    return label


def two_votes(answers: Sequence[Answer], *, categories: int = len(CATEGORIES), published: bool = False) -> Floats:
    """(R, K) float64: half a vote for each named class, a whole one where there is no second.

    As ``published``, a second class equal to the first leaves half a vote missing.
    """
    label = np.zeros((len(answers), categories))
    for row, answer in enumerate(answers):
        alone = answer.second is None or (answer.second == answer.first and not published)
        label[row, answer.first] = 1.0 if alone else 0.5
        if answer.second is not None and not alone:
            label[row, answer.second] = 0.5
    return label


def strict(answers: Answers, *, categories: int = len(CATEGORIES)) -> dict[int, list[Elicited]]:
    """The answers as ``elicit.labels.check`` accepts them.

    Raises Contradiction over the whole file: ``code`` is the first problem's, ``codes`` and ``fields`` have
    keys such as ``2061.3.named.1.percentage`` for image 2061, entry 3.
    """
    rules = AnswerRules(categories, most_named=2)
    accepted: dict[int, list[Elicited]] = {}
    fields: dict[str, str] = {}
    codes: dict[str, str] = {}
    refused: list[tuple[str, str]] = []
    for image, entries in answers.items():
        accepted[image] = []
        for place, answer in enumerate(entries, start=1):
            try:
                accepted[image].append(check(_named(answer), answer.impossible, rules))
            except Contradiction as problem:
                refused.append((_entry(image, place), problem.code))
                fields |= {f"{image}.{place}.{where}": sentence for where, sentence in problem.fields.items()}
                codes |= {f"{image}.{place}.{where}": code for where, code in problem.codes.items()}
    if refused:
        (where, code), count = refused[0], len(refused)
        answers_are = "1 answer contradicts itself" if count == 1 else f"{count} answers contradict themselves"
        raise Contradiction(code, f"{answers_are}, first {where}: {code}.", fields, codes)
    return accepted


def _named(answer: Answer) -> list[tuple[object, object]]:
    named: list[tuple[object, object]] = [(answer.first, answer.first_percentage)]
    if answer.second is not None:
        named.append((answer.second, answer.second_percentage))
    return named


def repaired(answers: Answers, categories: CategorySet = CATEGORIES) -> tuple[dict[int, list[Elicited]], list[Repair]]:
    """The answers with their contradictions mended, and every repair, in the order of the file.

    In this order, under the codes of ``elicit.labels.check`` where it has one:

    - ``category_named_twice``: the class keeps its first percentage, or the second if the first is 0.
    - ``percentage_missing``: a second class without a percentage counts as unnamed.
    - ``nothing_likely``: where no class has more than 0 %, the first gets 100, as the authors did by hand.
    - ``alternative_likelier``: the likelier class comes first.
    - ``named_and_impossible``: the class stays named and is no longer impossible.

    A percentage outside 0..100 has no such rule: Contradiction ``percentage_out_of_range``.
    """
    rules = AnswerRules(len(categories), most_named=2)
    mended: dict[int, list[Elicited]] = {}
    repairs: list[Repair] = []
    for image, entries in answers.items():
        mended[image] = []
        for place, answer in enumerate(entries, start=1):
            where = _entry(image, place)
            named, impossible, changes = _mend(answer, categories)
            try:
                mended[image].append(check(named, impossible, rules))
            except Contradiction as problem:
                raise Contradiction(
                    problem.code,
                    f"{where}: {problem.message}",
                    {f"{image}.{place}.{key}": sentence for key, sentence in problem.fields.items()},
                    {f"{image}.{place}.{key}": code for key, code in problem.codes.items()},
                ) from None
            repairs += [Repair(where, image, "", *change) for change in changes]
    return mended, repairs


def _mend(
    answer: Answer, categories: CategorySet
) -> tuple[list[tuple[int, float]], tuple[int, ...], list[tuple[str, str, str, str]]]:
    changes: list[tuple[str, str, str, str]] = []
    named = [(answer.first, answer.first_percentage)]

    def say(these: Sequence[tuple[int, float]]) -> str:
        return ", ".join(f"{categories.name(category)} {percentage:g} %" for category, percentage in these)

    if answer.second is not None and answer.second_percentage is None:
        changes.append(
            (
                _SAME_CLASS if answer.second == answer.first else "percentage_missing",
                "a second class without a percentage counts as unnamed",
                f"{say(named)}, {categories.name(answer.second)} without a percentage",
                say(named),
            )
        )
    elif answer.second is not None and answer.second_percentage is not None:
        named.append((answer.second, answer.second_percentage))
        if answer.second == answer.first:
            before = say(named)
            named = [named[0] if named[0][1] >= LEAST_PERCENTAGE else named[1]]
            changes.append((_SAME_CLASS, "the class keeps the percentage it was given first", before, say(named)))
    if all(0 <= percentage < LEAST_PERCENTAGE for _, percentage in named):
        before, named = say(named), [(answer.first, 100.0)]
        changes.append(("nothing_likely", "0 % was taken for full certainty by the authors", before, say(named)))
    if len(named) == 2 and named[1][1] > named[0][1]:
        before, named = say(named), named[::-1]
        changes.append(("alternative_likelier", "the likelier class comes first", before, say(named)))

    # A class of 0 % behind another is no more than unnamed: it may well be impossible.
    if len(named) == 2 and named[1][1] < LEAST_PERCENTAGE and named[1][0] in answer.impossible:
        before, named = say(named), named[:1]
        changes.append(("named_and_impossible", "a class of 0 % stays impossible", before, say(named)))
    claimed = {category for category, _ in named}
    impossible = tuple(category for category in answer.impossible if category not in claimed)
    if len(impossible) != len(answer.impossible):
        struck = ", ".join(categories.name(category) for category in answer.impossible if category in claimed)
        changes.append(("named_and_impossible", "what was named is possible", f"impossible: {struck}", "possible"))
    return named, impossible, changes
