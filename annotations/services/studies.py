"""Make a study, choose its images, and move it from draft to live, paused and closed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Max
from django.utils import timezone
from django.utils.text import slugify

from annotations import selectors
from annotations.assignment import draw_ranks, make_batches
from annotations.errors import refuse
from annotations.kinds import LAUNCH_STUDY
from annotations.models import Arm, Batch, Consent, Dataset, Place, Study, StudyImage, StudyStatus
from annotations.presets import Preset
from annotations.selectors.studies import LARGEST
from annotations.services import bulk
from jobs.services import enqueue


@transaction.atomic
def create_study(
    *, name: str, dataset: Dataset, preset: Preset, slug: str = "", overrides: dict[str, Any] | None = None
) -> Study:
    """A draft with the preset's settings and consent text.

    Raises:
        ValidationError: a setting is out of its range, or the slug is taken.
    """
    settings = {**preset.settings, **(overrides or {})}
    study = Study(name=name, slug=slug or free_slug(name), dataset=dataset, preset=preset.name, **settings)
    study.full_clean()
    study.save()
    add_consent(study, preset.consent)
    return study


def free_slug(name: str) -> str:
    """A slug for the name that no study has."""
    base = slugify(name)[:40] or "study"
    taken = set(Study.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    return next(
        slug
        for number in range(1, len(taken) + 2)
        if (slug := base if number == 1 else f"{base}-{number}") not in taken
    )


def add_consent(study: Study, text: str, title: str = "Before you begin") -> Consent:
    """A new version of the consent text. Earlier versions stay with the sessions that agreed to them."""
    # A form sends line ends of its own and no last one: that alone is no change.
    text = text.replace("\r\n", "\n").strip()
    latest = selectors.current_consent(study)
    if latest and latest.text == text and latest.title == title:
        return latest
    return Consent.objects.create(study=study, version=latest.version + 1 if latest else 1, title=title, text=text)


@transaction.atomic
def write_part(study_id: int, part: str, value: list[Any]) -> Study:
    """Set what a draft's `practice`, `comprehension` or `questionnaire` is.

    Raises:
        AnnotationError: the study is launched.
        ValidationError: the value is not of the part's form.
    """
    study = Study.objects.select_for_update(of=("self",)).select_related("dataset").get(pk=study_id)
    if study.status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    setattr(study, part, value)
    study.clean_fields(exclude=[field.name for field in Study._meta.fields if field.name != part])
    study.save(update_fields=[part])
    return study


@transaction.atomic
def leave_out(study_id: int, indices: Iterable[int]) -> int:
    """Take images with these indices out of a draft, say to practise on them. Returns how many were in it.

    Raises:
        AnnotationError: the study is launched.
    """
    study = Study.objects.select_for_update(of=("self",)).get(pk=study_id)
    if study.status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    taken, _ = study.study_images.filter(image__index__in=list(indices)).delete()
    study.batches.filter(study_images__isnull=True).delete()
    return taken


@transaction.atomic
def choose_images(study: Study, indices: Iterable[int] | None, rng: np.random.Generator) -> int:
    """Deal the dataset's images with these indices (None: all) at random into batches. Replaces an earlier choice.

    Returns:
        The number of images.

    Raises:
        AnnotationError: the study is launched.
        ValidationError: an index that the dataset does not have.
    """
    chosen = images_of(study.dataset) if indices is None else list(indices)
    batches = make_batches(chosen, 1 if study.one_by_one else study.images_per_session, rng)
    return choose_batches(study, batches)


@transaction.atomic
def choose_batches(study: Study, batches: Sequence[Sequence[int]]) -> int:
    """Take batches of image indices as they are given, as a published study lists them. Returns and raises as
    `choose_images`."""
    if study.status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    images = known_images(study.dataset, batches)
    study.study_images.all().delete()
    study.batches.all().delete()
    same = {"study_id": study.pk, "touched": False, "settled": False}
    bulk.insert(Batch, same, {"number": range(len(batches))})
    made = study.batches.order_by("number").values_list("pk", flat=True)
    dealt = [batch for batch, indices in zip(made, batches, strict=True) for _ in indices]
    shown = [images[index] for indices in batches for index in indices]
    bulk.insert(StudyImage, {"study_id": study.pk}, {"batch_id": dealt, "image_id": shown})
    return len(shown)


def parse_batches(text: str) -> list[list[int]]:
    """Batches of image indices from JSON: an object (batch number -> indices) or a list of lists.

    Raises:
        ValidationError: it is anything else.
    """
    try:
        data = json.loads(text)
        batches = [data[key] for key in sorted(data, key=_number_first)] if isinstance(data, dict) else data
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and thousands of brackets
        raise ValidationError(f"The batches are not JSON: {error}.") from error
    if not isinstance(batches, list) or not all(
        isinstance(batch, list) and all(type(index) is int for index in batch) for batch in batches
    ):
        raise ValidationError("Batches are lists of image indices (whole numbers).")
    return batches


def _number_first(key: str) -> tuple[int, str]:
    return (int(key) if key.isdecimal() else 0, key)


def known_images(dataset: Dataset, batches: Sequence[Sequence[int]]) -> dict[int, int]:
    """Primary keys of the dataset's images by index.

    Raises:
        ValidationError: an index that it does not have, or that is named twice; an empty batch.
    """
    images = dict(dataset.images.values_list("index", "pk"))
    flat = [index for batch in batches for index in batch]
    if missing := sorted({index for index in flat if index not in images}):
        raise ValidationError(f"The dataset has no image {', '.join(map(str, missing[:5]))}.")
    if len(set(flat)) < len(flat):
        raise ValidationError("An image is named twice.")
    if empty := [number for number, batch in enumerate(batches) if not batch]:
        raise ValidationError(f"Batch {empty[0]} is empty.")
    return images


AT_ONCE = 20_000
"""Places that are made while a curator waits."""


@transaction.atomic
def ask_for_launch(study_id: int, rng: np.random.Generator) -> Study:
    """Launch a study whose places are made in a moment, or have a worker launch it; then it is a draft until that is
    done. Asking twice queues once.

    Raises:
        AnnotationError: as `launch`.
    """
    study = _locked(study_id, StudyStatus.DRAFT)
    if study.batches.count() * study.labels_per_image * max(1, study.arms.count()) <= AT_ONCE:
        return launch(study_id, rng)
    if problems := selectors.launch_problems(study):
        raise refuse("launch_refused", " ".join(problems))
    enqueue(LAUNCH_STUDY, study_id)
    return study


@transaction.atomic
def launch(study_id: int, rng: np.random.Generator) -> Study:
    """Make the K places of every batch (in each arm) and open the study.

    Raises:
        AnnotationError: it is no draft, or something is missing (`launch_refused`, saying what).
    """
    study = _locked(study_id, StudyStatus.DRAFT)
    if problems := selectors.launch_problems(study):
        raise refuse("launch_refused", " ".join(problems))
    batches = list(study.batches.values_list("pk", flat=True))
    arms: list[Arm | None] = [*study.arms.all()]
    for arm in arms or [None]:
        for number in range(1, study.labels_per_image + 1):
            same = {"study_id": study.pk, "arm_id": arm and arm.pk, "number": number, "turn": number}
            ranks = draw_ranks(len(batches), rng)
            bulk.insert(Place, same, {"batch_id": batches, "rank": ranks})
    sizes = study.batches.annotate(size=Count("study_images"))
    return _move(
        study,
        StudyStatus.LIVE,
        launched_at=timezone.now(),
        labels_left=study.budget_labels,
        # Every annotator's pages say how long it is: to look at all batches would keep them waiting.
        choice={**study.choice, LARGEST: sizes.aggregate(largest=Max("size"))["largest"]},
    )


@transaction.atomic
def pause(study_id: int) -> Study:
    """Take no new sessions; those under way may finish."""
    return _move(_locked(study_id, StudyStatus.LIVE), StudyStatus.PAUSED)


@transaction.atomic
def resume(study_id: int) -> Study:
    return _move(_locked(study_id, StudyStatus.PAUSED), StudyStatus.LIVE)


@transaction.atomic
def close(study_id: int) -> Study:
    """End the study for good; sessions under way may finish."""
    return _move(_locked(study_id, StudyStatus.LIVE, StudyStatus.PAUSED), StudyStatus.CLOSED, closed_at=timezone.now())


def _locked(study_id: int, *allowed: StudyStatus) -> Study:
    study = Study.objects.select_for_update(of=("self",)).select_related("dataset").get(pk=study_id)
    if study.status not in allowed:
        raise refuse("wrong_status", f"The study is {study.get_status_display()}.")
    return study


def _move(study: Study, status: StudyStatus, **times: Any) -> Study:
    study.status = status
    for name, value in times.items():
        setattr(study, name, value)
    study.save(update_fields=["status", *times])
    return study


def images_of(dataset: Dataset, count: int | None = None) -> list[int]:
    """The first `count` image indices of a dataset; all of them for None."""
    return list(dataset.images.order_by("index").values_list("index", flat=True)[:count])
