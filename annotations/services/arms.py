"""A study's arms: written while it is a draft, compared once people have answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from django.db import transaction

from annotations.errors import refuse
from annotations.kinds import COMPARE_ARMS
from annotations.models import Arm, ArmComparison, Study, StudyStatus
from annotations.selectors import arms as read
from elicit.labels.arms import compare
from jobs.services import enqueue


@transaction.atomic
def write_arms(study_id: int, arms: Sequence[Mapping[str, Any]]) -> list[Arm]:
    """Set what a draft's arms are: each a `name`, `settings` and a `weight`. Replaces those it had.

    Raises:
        AnnotationError: the study is launched.
        ValidationError: a name is taken or no slug, or a setting is not an arm's.
    """
    study = Study.objects.select_for_update(of=("self",)).get(pk=study_id)
    if study.status != StudyStatus.DRAFT:
        raise refuse("settings_frozen")
    study.arms.all().delete()
    made = []
    for values in arms:
        arm = Arm(study=study, **values)
        arm.full_clean()
        arm.save()
        made.append(arm)
    return made


def ask_for_comparison(study: Study) -> None:
    """Have the arms compared, unless nothing has changed since the last time."""
    last = ArmComparison.objects.filter(study=study).first()
    if read.compared_sessions(study) != (last.sessions if last else 0):
        enqueue(COMPARE_ARMS, study.pk)


def compare_arms(study_id: int, now: datetime) -> None:
    """Work out what the arms are like. The same answers give the same figures: the draws are seeded by the study."""
    study = Study.objects.select_related("dataset").get(pk=study_id)
    sessions = read.compared_sessions(study)
    found = compare(*read.arm_answers(study), np.random.default_rng(study.pk))
    ArmComparison.objects.update_or_create(
        study=study, defaults={"found": found, "sessions": sessions, "found_at": now}
    )
