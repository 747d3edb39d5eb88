"""Studies: their parts, their progress, and what keeps them from being launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max, Q

from annotations.models import (
    Consent,
    Framing,
    Image,
    Place,
    Response,
    SessionStatus,
    Study,
)
from annotations.models.participation import OPEN_STATUSES
from annotations.return_links import return_url_problem
from elicit.labels import AnswerRules
from elicit.labels.consistency import Verdict


def launch_problems(study: Study) -> list[str]:
    """What keeps a draft from being launched, in words; empty when nothing does."""
    problems = []
    if study.dataset.ready_at is None:
        problems.append(f"The images of the dataset “{study.dataset}” are not imported yet.")
    if study.dataset.categories.count() < 2:
        problems.append(f"The dataset “{study.dataset}” has fewer than two categories.")
    images = study.study_images.count()
    if images == 0:
        problems.append("The study has no images: choose some.")
    if current_consent(study) is None:
        problems.append("The consent text is missing.")
    if not study.instructions.strip():
        problems.append("The instructions are empty.")
    if study.sum_limit and study.most_named == 1:
        problems.append("With one category named there is no sum to limit: leave the limit empty.")
    for place, problem in practice_problems(study, study.practice).items():
        problems.append(f"Practice image {place + 1}: {problem}")
    if study.return_url and (problem := return_url_problem(study.return_url)):
        problems.append(f"The link back: {problem}")
    return problems


def practice_problems(
    study: Study, practice: Sequence[Mapping[str, Any]], *, leave_out: bool = False
) -> dict[int, str]:
    """What of a practice does not fit the study, a sentence for each item concerned, by its place from 0.

    With `leave_out` its images are about to be taken out of the study's own.
    """
    images = dict(
        study.dataset.images.filter(index__in=[item["image"] for item in practice]).values_list("index", "pk")
    )
    main = set(study.study_images.filter(image__in=images.values()).values_list("image_id", flat=True))
    known = set(category_names(study))
    problems: dict[int, str] = {}
    for place, item in enumerate(practice):
        unknown = [name for name in item.get("expected", {}) if name not in known]
        if item["image"] not in images:
            problems[place] = f"the dataset has no image {item['image']}."
        elif images[item["image"]] in main and not leave_out:
            problems[place] = (
                f"image {item['image']} is one of the study's own: whoever practised on it would know it already."
            )
        elif unknown:
            problems[place] = f"the dataset has no category “{unknown[0]}”."
    return problems


def dataset_image(study: Study, index: int) -> Image | None:
    return study.dataset.images.filter(index=index).first()


def practice_images(study: Study) -> dict[int, Image]:
    """The images of the study's practice, by their number in the dataset; those that it lacks are left out."""
    wanted = {item["image"] for item in study.practice}
    return {image.index: image for image in study.dataset.images.filter(index__in=wanted)}


def current_consent(study: Study) -> Consent | None:
    return study.consents.order_by("-version").first()


def trials_in_session(study: Study) -> int:
    """How many trials a session of this study has, at the most where batches are uneven."""
    sizes = study.batches.annotate(size=Count("study_images"))
    largest = sizes.aggregate(largest=Max("size"))["largest"] or 0
    return (largest + min(study.repeats_per_session, -(-largest // 2))) * len(Framing(study.framing).asked)


def has_free_place(study: Study) -> bool:
    return Place.objects.filter(study=study, session__isnull=True).exists()


def category_names(study: Study) -> list[str]:
    return list(study.dataset.categories.order_by("index").values_list("name", flat=True))


def category_count(study: Study) -> int:
    """K, the length of every soft label."""
    return study.dataset.categories.count()


def answer_rules(study: Study, categories: int) -> AnswerRules:
    return AnswerRules(
        categories=categories,
        most_named=study.most_named,
        sum_limit=study.sum_limit,
        ask_impossible=study.ask_impossible,
    )


@dataclass(frozen=True)
class StudyProgress:
    """How far a study has come, in sessions and labels."""

    images: int
    places: int
    places_taken: int
    open_sessions: int
    completed: int
    abandoned: int
    screened_out: int
    withdrawn: int
    excluded: int
    labels: int
    labels_wanted: int
    inconsistent: int

    @property
    def percent(self) -> int:
        return round(100 * self.labels / self.labels_wanted) if self.labels_wanted else 0


def study_progress(study: Study) -> StudyProgress:
    sessions = study.sessions.aggregate(
        open=Count("pk", filter=Q(status__in=OPEN_STATUSES)),
        completed=Count("pk", filter=Q(status=SessionStatus.COMPLETED)),
        abandoned=Count("pk", filter=Q(status=SessionStatus.ABANDONED)),
        screened_out=Count("pk", filter=Q(status=SessionStatus.SCREENED_OUT)),
        withdrawn=Count("pk", filter=Q(status=SessionStatus.WITHDRAWN)),
        excluded=Count("pk", filter=Q(excluded_at__isnull=False)),
        inconsistent=Count("pk", filter=Q(consistency__verdict=Verdict.INCONSISTENT)),
    )
    places = study.places.aggregate(all=Count("pk"), taken=Count("session"))
    images = study.study_images.count()
    return StudyProgress(
        images=images,
        places=places["all"],
        places_taken=places["taken"],
        open_sessions=sessions["open"],
        completed=sessions["completed"],
        abandoned=sessions["abandoned"],
        screened_out=sessions["screened_out"],
        withdrawn=sessions["withdrawn"],
        excluded=sessions["excluded"],
        labels=Response.objects.filter(trial__place__study=study, current=True).count(),
        labels_wanted=images * study.labels_per_image * len(Framing(study.framing).asked),
        inconsistent=sessions["inconsistent"],
    )
