"""Save a plan, and set a draft's labels per image by it."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from annotations.errors import refuse
from annotations.models import Plan, Study, StudyStatus


def save_plan(study: Study, values: dict[str, Any]) -> Plan:
    """Set the study's plan; `values` are fields of `Plan` but for `study` and `saved_at`."""
    plan, _ = Plan.objects.update_or_create(study=study, defaults={**values, "saved_at": timezone.now()})
    return plan


@transaction.atomic
def use_labels(study_id: int, labels: int) -> Study:
    """Make it the draft's K.

    Raises:
        AnnotationError: the study is launched.
        ValidationError: `labels` is out of range.
    """
    study = Study.objects.select_for_update(of=("self",)).get(pk=study_id)
    if study.status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    study.labels_per_image = labels
    study.clean_fields(exclude=[field.name for field in Study._meta.fields if field.name != "labels_per_image"])
    study.save(update_fields=["labels_per_image"])
    return study
