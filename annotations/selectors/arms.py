"""The answers of a study's arms, side by side."""

from __future__ import annotations

import numpy as np
from django.db.models import Q

from annotations.models import Session, SessionStatus, Study, TrialKind
from annotations.selectors.answers import study_answers
from elicit.labels import RECOMMENDED, total_variation
from elicit.labels.arms import ArmAnswers, Floats

COMPARED = Q(status=SessionStatus.COMPLETED, excluded_at__isnull=True)


def compared_sessions(study: Study) -> int:
    return study.sessions.filter(COMPARED, arm__isnull=False).count()


def arm_answers(study: Study) -> tuple[dict[str, ArmAnswers], Floats | None]:
    """Each arm's answers in completed sessions that are not excluded, and the images' reference distributions: a row
    of nan for an image without one, None where there is none. Of an arm that asks two questions the answers to both
    count."""
    said = study_answers(study, COMPARED & Q(arm__isnull=False))
    labels = RECOMMENDED.soft_labels(said.answers) if len(said) else np.zeros((0, 2))
    arm_of = dict(Session.objects.filter(study=study, arm__isnull=False).values_list("pk", "arm__name"))
    arms = np.array([arm_of[pk] for pk in said.sessions], dtype=np.str_)
    found = {}
    for name in study.arms.order_by("pk").values_list("name", flat=True):
        sessions = np.flatnonzero(arms == name)
        number = np.full(len(said.sessions), -1)
        number[sessions] = np.arange(len(sessions))
        in_arm = number[said.session] >= 0 if len(said) else np.zeros(0, dtype=np.bool_)
        main = np.flatnonzero(in_arm & (said.kind == TrialKind.MAIN.value) & said.counts)
        again = np.flatnonzero(in_arm & (said.kind == TrialKind.REPEAT.value) & (said.first >= 0))
        found[name] = ArmAnswers(
            labels=labels[main],
            image=said.image[main],
            annotator=number[said.session[main]],
            seconds=said.duration_ms[main] / 1000,
            warnings=said.warnings_kept[main],
            repeat_annotator=number[said.session[again]],
            repeat_distance=np.asarray(total_variation(labels[again], labels[said.first[again]]))
            if len(again)
            else np.zeros(0),
            annotators=len(sessions),
        )
    return found, _references(study, said.image_keys.tolist())


def _references(study: Study, keys: list[int]) -> Floats | None:
    known = dict(
        study.dataset.images.filter(pk__in=keys, reference_distribution__isnull=False).values_list(
            "pk", "reference_distribution"
        )
    )
    if not known:
        return None
    rows = np.full((len(keys), study.dataset.categories.count()), np.nan)
    for row, key in enumerate(keys):
        if key in known:
            rows[row] = known[key]
    return rows
