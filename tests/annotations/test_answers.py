"""A study's answers as arrays, against the rows that they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from django.db.models import Q

from annotations.models import Response, SessionStatus, TrialKind
from annotations.selectors.answers import study_answers
from tests import factories as make

pytestmark = pytest.mark.django_db


def test_every_current_answer_is_a_row_in_the_order_shown() -> None:
    study = make.make_study(images_per_session=10, repeats_per_session=2, labels_per_image=2)
    for seed in range(3):
        make.complete_session(study, [(seed, 60.0), (9, 20.0)], [(seed, 50.0)], seed=seed)

    found = study_answers(study)

    assert len(found) == 36
    for row, trial in enumerate(found.trials):
        said = Response.objects.select_related("trial__session__participant").get(trial=trial, current=True)
        assert found.sessions[found.session[row]] == said.trial.session_id
        assert found.annotators[found.session[row]] == said.trial.session.participant.annotator
        assert found.image_keys[found.image[row]] == said.trial.image_id
        assert (found.kind[row], found.position[row]) == (said.trial.kind, said.trial.position)
        assert found.answers.percentages[row, said.top_category] == said.top_percentage
        assert found.counts[row] == (said.trial.kind == TrialKind.MAIN)
        if said.trial.repeat_of_id:
            assert found.trials[found.first[row]] == said.trial.repeat_of_id
    assert (np.diff(found.session * 100 + found.position) > 0).all()


def test_a_corrected_answer_counts_once_and_practice_not_at_all() -> None:
    study = make.make_study(images_per_session=5, repeats_per_session=0)
    session = make.begin(make.make_session(study))
    trial = session.trials.order_by("position").first()
    assert trial is not None
    first = make.respond(trial, [(3, 80.0)])
    make.respond(trial, [(4, 70.0)], revises=first.response.pk)

    found = study_answers(study)

    assert len(found) == 1
    assert found.answers.percentages[0].tolist() == [0, 0, 0, 0, 70, 0, 0, 0, 0, 0]


def test_a_condition_picks_the_sessions_and_a_study_without_answers_gives_empty_arrays() -> None:
    study = make.make_study(images_per_session=5, repeats_per_session=0)
    make.answer_all(make.begin(make.make_session(study)))

    assert len(study_answers(study)) == 5
    nobody = study_answers(study, Q(status=SessionStatus.COMPLETED))
    assert len(nobody) == 0
    assert nobody.sessions == []
    assert nobody.answers.categories == 10


def test_warnings_that_were_kept_are_counted() -> None:
    study = make.make_study(images_per_session=5, repeats_per_session=0)
    make.answer_all(make.begin(make.make_session(study)))
    kept = {"code": "too_fast", "ms": 1200, "kept": True}
    heeded = {"code": "scale_mix_up", "ms": 800, "kept": False}
    response = Response.objects.order_by("trial__position").first()
    assert response is not None
    response.process = {"fields": [], "warnings": [kept, heeded, kept]}
    response.save(update_fields=["process"])

    assert study_answers(study).warnings_kept.tolist() == [2, 0, 0, 0, 0]
