"""Choose the images of a draft: by a list, by class, by ambiguity or at random. What was drawn can be drawn again: the
study keeps how, with its seed."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
from django.core.exceptions import ValidationError
from django.db import transaction

from annotations.errors import refuse
from annotations.models import Dataset, Study, StudyStatus
from annotations.selectors import choosing as read
from annotations.services import studies

MOST_PROBLEMS = 10
STRATA = 10
# What a first line may call its columns.
HEADS = {"index", "image", "images", "file", "file_name", "filename", "name"}


def new_seed() -> int:
    return secrets.randbelow(2**31)


def from_list(dataset: Dataset, text: str) -> list[int]:
    """The indices that a text names: an index or a file name on each line, alone or as the first column of a CSV.

    Raises:
        ValidationError: what is wrong, line by line; ten lines at most.
    """
    known = set(dataset.images.values_list("index", flat=True))
    names = read.file_names(dataset)
    chosen: dict[int, int] = {}
    problems: list[str] = []
    for number, row in enumerate(csv.reader(text.removeprefix("\ufeff").splitlines()), 1):
        word = row[0].strip() if row else ""
        if not word or (number == 1 and word.lower() in HEADS):
            continue
        found = names.get(word, [])
        if word.isascii() and word.isdigit() and len(word) < 10:
            found = [int(word)] if int(word) in known else []
        if len(found) > 1:
            problems.append(f"Line {number}: {len(found)} images are called “{word}”: give the index.")
        elif not found:
            problems.append(f"Line {number}: the dataset has no image “{word[:80]}”.")
        elif found[0] in chosen:
            problems.append(f"Line {number}: image “{word[:80]}” stands in line {chosen[found[0]]} already.")
        else:
            chosen[found[0]] = number
    if not chosen and not problems:
        problems.append("The list names no image.")
    if problems:
        more = len(problems) - MOST_PROBLEMS
        raise ValidationError(problems[:MOST_PROBLEMS] + ([f"And {more:,} more lines."] if more > 0 else []))
    return list(chosen)


def parse_quota(dataset: Dataset, text: str) -> dict[int, int]:
    """How many images of each class: one number for all, or “cat: 50, dog: 20”. Class index -> number.

    Raises:
        ValidationError: it is neither, a class is not known or named twice, or nothing is asked for.
    """
    named = {name: index for index, name in dataset.categories.values_list("index", "name")}
    # “cat” is “Cat”, unless there are both.
    categories = {name.casefold(): index for name, index in named.items()} | named
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 8:
        quota = dict.fromkeys(named.values(), int(text))
    else:
        quota = {}
        for part in filter(None, (each.strip() for each in text.replace("\n", ",").split(","))):
            name, _, number = part.rpartition(":")
            name, number = name.strip(), number.strip()
            name = name if name in named else name.casefold()
            if name not in categories or not (number.isascii() and number.isdigit() and len(number) < 8):
                raise ValidationError(f"“{part[:80]}” is not a class and a number, such as “cat: 50”.")
            if categories[name] in quota:
                raise ValidationError(f"The class “{name}” is named twice.")
            quota[categories[name]] = int(number)
    if not any(quota.values()):
        raise ValidationError("Say how many images of each class: 100, or “cat: 50, dog: 20”.")
    return quota


def by_class(dataset: Dataset, quota: Mapping[int, int], rng: np.random.Generator) -> list[int]:
    """So many images of each class, by their reference labels, drawn at random.

    Raises:
        ValidationError: a class has fewer.
    """
    images = read.references(dataset)
    names = dict(dataset.categories.values_list("index", "name"))
    short = [
        f"“{names[index]}” has {len(images.get(index, []))}, not {number}"
        for index, number in quota.items()
        if len(images.get(index, [])) < number
    ]
    if short:
        raise ValidationError(f"There are too few images with a reference label: {'; '.join(short[:MOST_PROBLEMS])}.")
    return [
        int(index)
        for category, number in sorted(quota.items())
        if number
        for index in rng.choice(images[category], number, replace=False)
    ]


def by_ambiguity(
    entropies: Mapping[int, float], number: int, rng: np.random.Generator, *, stratified: bool
) -> list[int]:
    """The `number` images of highest entropy, ties drawn; or as many from each tenth of the ranking.

    Args:
        entropies: index -> entropy.

    Raises:
        ValidationError: fewer images have one.
    """
    if len(entropies) < number:
        raise ValidationError(f"Of {len(entropies):,} images it is known how ambiguous they are, not of {number:,}.")
    shuffled = rng.permutation(np.array(sorted(entropies), dtype=np.int64))
    ranked = sorted(shuffled.tolist(), key=lambda index: -entropies[index])
    if not stratified:
        return ranked[:number]
    strata = [part.tolist() for part in np.array_split(np.array(ranked, dtype=np.int64), min(STRATA, len(ranked)))]
    drawn: list[int] = []
    waiting = [list(rng.permutation(part)) for part in strata]
    while len(drawn) < number:
        for part in waiting:
            if part and len(drawn) < number:
                drawn.append(int(part.pop()))
    return drawn


def at_random(dataset: Dataset, number: int, rng: np.random.Generator) -> list[int]:
    """So many images of the dataset, drawn at random. ValidationError where it has fewer."""
    indices = studies.images_of(dataset)
    if len(indices) < number:
        raise ValidationError(f"The dataset has {len(indices):,} images, not {number:,}.")
    return [int(index) for index in rng.choice(indices, number, replace=False)]


@transaction.atomic
def choose(study: Study, indices: list[int] | None, how: Mapping[str, Any], seed: int) -> int:
    """Deal these images (None: all) into batches, and note how they were chosen. Returns and raises as
    `studies.choose_images`."""
    if Study.objects.select_for_update(of=("self",)).get(pk=study.pk).status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    # Images to practise on are known before the trials.
    practised = {item["image"] for item in study.practice}
    if indices is None and practised:
        indices = [index for index in studies.images_of(study.dataset) if index not in practised]
    number = studies.choose_images(study, indices, np.random.default_rng([seed, 1]))
    study.choice = {**how, "seed": seed, "images": number}
    study.save(update_fields=["choice"])
    return number


@transaction.atomic
def choose_batches(study: Study, batches: list[list[int]], seed: int) -> int:
    """As `choose`, in batches as they are given; where images are handed out one by one, each by itself."""
    if Study.objects.select_for_update(of=("self",)).get(pk=study.pk).status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    flat = [[index] for batch in batches for index in batch] if study.one_by_one else batches
    number = studies.choose_batches(study, flat)
    study.choice = {"by": "batches", "seed": seed, "images": number}
    study.save(update_fields=["choice"])
    return number


@transaction.atomic
def choose_practice(study: Study, number: int, rng: np.random.Generator) -> None:
    """Let a draft's annotators practise on so many images of the dataset that are not among its own, drawn at random;
    on fewer where there are fewer."""
    own = study.study_images.values("image_id")
    others = list(study.dataset.images.exclude(pk__in=own).order_by("index").values_list("index", flat=True))
    drawn = rng.permutation(np.array(others, dtype=np.int64))[:number]
    if len(drawn):
        studies.write_part(study.pk, "practice", [{"image": int(index)} for index in drawn])
        study.refresh_from_db(fields=["practice"])
