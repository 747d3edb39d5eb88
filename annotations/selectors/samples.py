"""Some of a study's sessions, where all are more than a worker should read at once."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import numpy as np

from annotations.models import Framing, Place, Session, Study, StudyImage

MOST_ANSWERS = 200_000
"""Answers that are read at once: some 300 MB."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sessions, and the keys of the images that everybody of those who saw them is among the sessions for."""

    sessions: list[UUID]
    images: list[int]


def answers_of_a_session(study: Study) -> int:
    """At the most, practice and checks left out."""
    return (study.images_per_session + study.repeats_per_session) * len(Framing(study.framing).asked)


def is_too_much(study: Study, most: int = 0) -> bool:
    """Whether the study's sessions have more than `most` answers (0: `MOST_ANSWERS`), as far as they are complete."""
    seated = Session.objects.filter(study=study, excluded_at__isnull=True).count()
    return seated * answers_of_a_session(study) > (most or MOST_ANSWERS)


def draw(study: Study, rng: np.random.Generator, most: int = 0) -> Drawn | None:
    """Sessions with about `most` answers (0: `MOST_ANSWERS`), drawn at random together with everybody who saw the same
    images; None where all have no more.

    A session is drawn by its key, which is random. What many people saw is likelier to be drawn.
    """
    most = most or MOST_ANSWERS
    each = answers_of_a_session(study)
    if not is_too_much(study, most):
        return None
    seated = Session.objects.filter(study=study, excluded_at__isnull=True)
    together = each * study.labels_per_image * max(1, study.arms.count())
    together *= study.images_per_session if study.one_by_one else 1
    wanted = max(1, most // together)
    start = UUID(bytes=rng.bytes(16))
    ordered = seated.filter(places__isnull=False).order_by("pk").values_list("pk", flat=True).distinct()
    first = list(ordered.filter(pk__gte=start)[:wanted])
    if len(first) < wanted:
        first += list(ordered.filter(pk__lt=start)[: wanted - len(first)])
    batches = list(Place.objects.filter(session__in=first).order_by().values_list("batch_id", flat=True).distinct())
    held = Place.objects.filter(batch__in=batches, session__excluded_at__isnull=True, session__isnull=False)
    sessions = list(held.order_by().values_list("session__pk", flat=True).distinct())
    images = list(StudyImage.objects.filter(batch__in=batches).order_by().values_list("image_id", flat=True))
    return Drawn(sessions, images)
