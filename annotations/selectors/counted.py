"""What a worker counts of large studies, whose labels are too many for a page to count."""

from __future__ import annotations

from typing import Any

from django.db.models import Max

from annotations.models import Study, StudyStatus, StudySummary

MOST_COUNTED = 300_000
"""Labels wanted up to which a study is counted on each request."""


def is_large(study: Study) -> bool:
    """Whether counting its labels would keep a page waiting. Costs the same whatever its size."""
    if study.large is None:
        last = study.batches.aggregate(last=Max("number"))["last"]
        images = 0 if last is None else (last + 1) * (1 if study.one_by_one else study.images_per_session)
        study.large = images * study.labels_per_image * max(1, study.arms.count()) > MOST_COUNTED
    return study.large and study.status != StudyStatus.DRAFT


def counts(study: Study) -> dict[str, Any]:
    """A large study's latest counts, by name; empty before a worker was there."""
    found: Any = StudySummary.objects.filter(study=study).values_list("data__counted", flat=True).first()
    return found or {}
