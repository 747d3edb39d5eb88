"""The queue and releases, under several workers and several curators at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from elicit.labels.release_files import Recipe
from exports.models import Release
from exports.services import request_release
from jobs import services as jobs
from jobs.models import Job, Status
from tests import factories as make
from tests.concurrency.together import meanwhile, together

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

KIND = "tests.nobody_does_this"
A_MOMENT = timedelta(seconds=1)


def assert_nothing_raised(outcomes: list[Any]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def let_the_lease_run_out(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - A_MOMENT)


def test_one_subject_queued_from_all_sides_at_once_is_one_unfinished_job() -> None:
    outcomes = together([partial(jobs.enqueue, KIND, 7)] * 16)
    assert_nothing_raised(outcomes)
    job = Job.objects.get()
    assert {outcome.pk for outcome in outcomes if isinstance(outcome, Job)} == {job.pk}
    assert job.status == Status.QUEUED


def test_work_that_is_queued_while_its_twin_finishes_is_queued_anew() -> None:
    """The twin stands in the way of the new row, and is gone when it is looked for."""
    twin = jobs.claim(jobs.enqueue(KIND, 7).pk)
    assert twin is not None
    finished: list[bool] = []

    def finish_before_it_is_looked_for(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if sql.startswith("SELECT") and not finished:
            finished.append(meanwhile(partial(jobs.finish, twin)))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(finish_before_it_is_looked_for):
        job = jobs.enqueue(KIND, 7)
    assert finished == [True]
    assert job.pk != twin.pk
    assert Job.objects.get(status=Status.QUEUED) == job


def test_of_several_workers_that_claim_a_job_one_gets_it() -> None:
    job = jobs.enqueue(KIND, 7)
    outcomes = together([partial(jobs.claim, job.pk)] * 12)
    assert_nothing_raised(outcomes)
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, Job)]
    job.refresh_from_db()
    assert (job.status, job.attempts, job.owner) == (Status.RUNNING, 1, winner.owner)


def test_of_several_workers_that_take_over_from_a_dead_one_one_gets_the_job() -> None:
    dead = jobs.claim(jobs.enqueue(KIND, 7).pk)
    assert dead is not None
    let_the_lease_run_out(dead)
    outcomes = together([partial(jobs.claim, dead.pk)] * 12)
    assert_nothing_raised(outcomes)
    assert len([outcome for outcome in outcomes if isinstance(outcome, Job)]) == 1
    assert Job.objects.get().attempts == 2
    with pytest.raises(jobs.JobLost):
        jobs.report(dead, "still here")
    assert not jobs.finish(dead)
    assert not jobs.retry_later(dead, "too late")
    assert Job.objects.get().status == Status.RUNNING


def test_a_worker_that_shows_a_sign_while_it_is_given_up_keeps_its_last_attempt() -> None:
    job = jobs.claim(jobs.enqueue(KIND, 7).pk)
    assert job is not None
    Job.objects.filter(pk=job.pk).update(most_attempts=1)
    let_the_lease_run_out(job)
    seen: list[None] = []

    def show_a_sign_before_the_write(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if sql.startswith("UPDATE") and not seen:
            seen.append(meanwhile(partial(jobs.report, job, "still here")))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(show_a_sign_before_the_write):
        jobs.sweep()
    assert len(seen) == 1
    assert jobs.finish(job)
    assert Job.objects.get().status == Status.DONE


def test_a_job_whose_worker_died_on_the_last_attempt_is_closed_and_says_why() -> None:
    job = jobs.claim(jobs.enqueue(KIND, 7).pk)
    assert job is not None
    Job.objects.filter(pk=job.pk).update(most_attempts=1)
    let_the_lease_run_out(job)
    assert_nothing_raised(together([jobs.sweep] * 4))
    job.refresh_from_db()
    assert (job.status, job.error) == (Status.FAILED, "Its worker stopped each time it was tried.")
    assert jobs.claim(job.pk) is None


def test_two_releases_requested_at_once_are_versions_one_and_two() -> None:
    study = make.make_study(dataset=make.make_dataset(2), images_per_session=2, repeats_per_session=1)
    make.complete_session(study)
    outcomes = together([partial(request_release, study_id=study.pk, recipe=Recipe(), user=None)] * 2)
    assert_nothing_raised(outcomes)
    assert sorted(Release.objects.values_list("version", flat=True)) == [1, 2]
    builds = Job.objects.filter(kind="exports.build_release", status=Status.QUEUED)
    assert {job.subject for job in builds} == {str(release.pk) for release in Release.objects.all()}
