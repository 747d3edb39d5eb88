"""Two thousand broken and hostile requests; `python -m benchmarks.fuzz` sends a hundred thousand."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.utils import timezone

from annotations.models import Response, Trial
from benchmarks import fuzz
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.mark.slow
def test_no_request_breaks_the_server_or_writes_what_it_should_not() -> None:
    outcome = fuzz.fuzz(2_000, 1, fuzz.in_process())

    assert outcome.requests == 2_000
    # It reaches every kind of answer, not only refusals of the first line.
    assert {200, 201, 204, 302, 400, 401, 404, 405, 409, 413, 415, 422} <= {status for _, status in outcome.statuses}
    assert outcome.stored > 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"named": [[3, 80.0], [3, 10.0]]},
        {"named": [[3, 80.0], [4, 90.0]]},
        {"named": [[10, 80.0]], "top_category": 10},
        {"impossible": [3]},
        {"sum_percentage": 95.0},
        {"input_device": "lever"},
        {"duration_ms": 2**31 - 1},
    ],
)
def test_the_judge_sees_an_answer_that_nobody_could_have_given(wrong: dict[str, Any]) -> None:
    session = make.begin(make.make_session(make.make_study()))
    since = timezone.now()
    accepted = make.respond(session.trials.order_by("position")[0], now=timezone.now())
    assert fuzz.judge_rows(since) == 1

    Response.objects.filter(pk=accepted.response.pk).update(**wrong)

    with pytest.raises(fuzz.WrongWrite):
        fuzz.judge_rows(since)


@pytest.mark.parametrize(
    "wrong", [{"named": [[3, 81.0]]}, {"impossible": [5]}, {"duration_ms": 901}, {"hidden_ms": 1}], ids=str
)
def test_the_judge_sees_an_answer_that_is_not_the_one_that_was_sent(wrong: dict[str, Any]) -> None:
    session = make.begin(make.make_session(make.make_study()))
    key = uuid.uuid4()
    accepted = make.respond(session.trials.order_by("position")[0], ((3, 80.0),), response_id=key)
    receipts = {str(key): b'{"named": [{"category": 3, "percentage": 80}], "duration_ms": "5000"}'}
    fuzz.judge_receipts(receipts)

    Response.objects.filter(pk=accepted.response.pk).update(**wrong)

    with pytest.raises(fuzz.WrongWrite):
        fuzz.judge_receipts(receipts)


def test_the_judge_sees_a_revision_that_is_missing() -> None:
    session = make.begin(make.make_session(make.make_study(labels_per_image=4)))
    accepted = make.respond(session.trials.order_by("position")[0], response_id=uuid.uuid4())
    fuzz.judge_rules()

    Response.objects.filter(pk=accepted.response.pk).update(revision=2)

    with pytest.raises(fuzz.WrongWrite, match="revisions"):
        fuzz.judge_rules()


def test_the_judge_sees_a_change_to_somebody_elses_rows() -> None:
    session = make.begin(make.make_session(make.make_study()))
    before = fuzz.of_others([session.pk])

    Trial.objects.filter(session=session, position=1).update(skipped_at=timezone.now())

    assert fuzz.of_others([session.pk]) != before
