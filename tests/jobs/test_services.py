from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import time_machine
from celery._state import get_current_app
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError
from pytest_django import DjangoCaptureOnCommitCallbacks

from elicit.labels import Refusal
from jobs import services
from jobs.models import Job, Status
from jobs.services import JobLost
from tests.factories import NOON
from tests.jobs.conftest import KIND, Broker

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    """The time stands still at noon unless a test moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def claimed(subject: object = 1) -> Job:
    job = services.claim(services.enqueue(KIND, subject).pk)
    assert job is not None
    return job


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def dead(job: Job) -> None:
    """Let the job's worker die on its last attempt."""
    Job.objects.filter(pk=job.pk).update(attempts=job.most_attempts, lease_until=NOON - SECOND)


# --- Queue


def test_work_that_is_asked_for_twice_is_queued_once() -> None:
    first, again, other = (services.enqueue(KIND, subject) for subject in (7, "7", 8))

    assert again.pk == first.pk != other.pk
    assert (first.status, first.subject, first.due_at) == (Status.QUEUED, "7", NOON)


def test_work_of_another_kind_on_the_same_subject_is_other_work() -> None:
    assert services.enqueue(KIND, 7).pk != services.enqueue("tests.other", 7).pk


def test_work_under_way_is_not_queued_again_but_finished_work_is() -> None:
    job = claimed(7)
    assert services.enqueue(KIND, 7).pk == job.pk

    services.finish(job)

    assert services.enqueue(KIND, 7).pk != job.pk


def test_a_twin_does_not_spoil_the_transaction_that_asks_for_it() -> None:
    services.enqueue(KIND, 7)
    with transaction.atomic():
        services.enqueue(KIND, 7)
        services.enqueue(KIND, 8)

    assert Job.objects.count() == 2


def test_work_that_is_rolled_back_is_not_queued() -> None:
    with transaction.atomic():
        services.enqueue(KIND, 7)
        transaction.set_rollback(True)

    assert not Job.objects.exists()


# --- The bell


def test_the_bell_rings_when_the_transaction_commits_and_not_before(
    broker: Broker, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = services.enqueue(KIND, 7)
        assert broker.messages() == []
        assert fresh(job).rung_at is None

    assert broker.messages() == [(KIND, [job.pk])]
    assert fresh(job).rung_at == NOON


def test_a_twin_rings_no_second_time(
    broker: Broker, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        services.enqueue(KIND, 7)
        services.enqueue(KIND, 7)

    assert len(broker.messages()) == 1


def test_work_for_later_rings_when_its_time_has_come(
    broker: Broker,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
    clock: time_machine.Traveller,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = services.enqueue(KIND, 7, delay=timedelta(minutes=5))
    assert (services.claim(job.pk), services.sweep(), broker.messages()) == (None, 0, [])

    clock.shift(timedelta(minutes=5))

    assert services.sweep() == 1
    assert broker.messages() == [(KIND, [job.pk])]


def test_of_those_who_meet_a_broker_that_is_away_one_waits_for_it(broker_away: None) -> None:
    jobs = [services.enqueue(KIND, subject) for subject in range(5)]
    tries: list[str] = []

    def send(kind: str, *_: object, **__: object) -> None:
        tries.append(kind)
        raise BrokerError("nobody answers")

    app = get_current_app()
    with mock.patch.object(app, "send_task", send), mock.patch("jobs.services.time.monotonic") as now:
        now.return_value = 100.0
        assert [services.ring(job) for job in jobs] == [False] * 5
        assert len(tries) == 1
        # Those that nobody rang for are rung for by the next sweep.
        assert [fresh(job).rung_at for job in jobs] == [NOON, None, None, None, None]
        now.return_value = 100.0 + services.BROKER_RESTS_SECONDS
        assert services.ring(jobs[0]) is False
        assert len(tries) == 2


def test_without_a_broker_the_work_stays_queued_and_nobody_is_troubled(
    broker_away: None, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = services.enqueue(KIND, 7)

    assert fresh(job).status == Status.QUEUED
    assert services.ring(job) is False
    assert services.sweep() == 0
    assert services.claim(job.pk) is not None


def test_the_sweep_rings_for_what_the_broker_lost(broker: Broker, clock: time_machine.Traveller) -> None:
    job = services.enqueue(KIND, 7)
    services.ring(job)
    broker.messages()  # lost

    assert services.sweep() == 0
    clock.shift(services.PATIENCE + SECOND)
    assert services.sweep() == 1
    assert services.sweep() == 0

    assert broker.messages() == [(KIND, [job.pk])]


def test_the_sweep_rings_for_what_a_dead_worker_left(broker: Broker, clock: time_machine.Traveller) -> None:
    job = claimed()
    assert services.sweep() == 0

    clock.shift(services.LEASE + SECOND)

    assert services.sweep() == 1
    assert broker.messages() == [(KIND, [job.pk])]


def test_the_sweep_rings_for_the_oldest_first_and_not_for_everything_at_once(broker: Broker) -> None:
    Job.objects.bulk_create(Job(kind=KIND, subject=str(number), due_at=NOON - number * SECOND) for number in range(510))

    assert services.sweep() == 500

    rung = [pk for _, (pk,) in broker.messages()]
    assert Job.objects.get(pk=rung[0]).subject == "509"
    assert services.sweep() == 10


def test_finished_work_is_left_alone_by_the_sweep(broker: Broker, clock: time_machine.Traveller) -> None:
    services.finish(claimed(1))
    services.fail(claimed(2), "broken")
    clock.shift(timedelta(days=1))

    assert services.sweep() == 0


# --- Claim, lease, take over


def test_a_job_is_claimed_once() -> None:
    job = services.enqueue(KIND, 7)

    first, second = services.claim(job.pk), services.claim(job.pk)

    assert second is None
    assert first is not None
    assert (first.status, first.attempts, first.lease_until) == (Status.RUNNING, 1, NOON + services.LEASE)
    assert first.owner


@pytest.mark.parametrize("pk", [0, 10**9])
def test_a_message_for_no_job_is_nothing(pk: int) -> None:
    assert services.claim(pk) is None


def test_who_sleeps_in_the_middle_of_a_claim_does_not_take_the_next_one_s_for_its_own(
    clock: time_machine.Traveller,
) -> None:
    job = services.enqueue(KIND, 7)
    others: list[Job | None] = []

    def sleep(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("SELECT") and not others:
            others.append(None)
            clock.shift(services.LEASE + SECOND)
            others[0] = services.claim(job.pk)
        return execute(sql, *rest)

    with connection.execute_wrapper(sleep):
        assert services.claim(job.pk) is None
    (other,) = others
    assert other is not None
    assert (other.owner, other.attempts) == (fresh(job).owner, 2)


def test_a_job_is_taken_over_when_its_lease_ran_out(clock: time_machine.Traveller) -> None:
    first = claimed()
    clock.shift(services.LEASE - SECOND)
    assert services.claim(first.pk) is None

    clock.shift(2 * SECOND)
    second = services.claim(first.pk)

    assert second is not None
    assert (second.attempts, second.owner != first.owner) == (2, True)


def test_a_report_tells_how_far_the_work_is_and_extends_the_lease(clock: time_machine.Traveller) -> None:
    job = claimed()
    clock.shift(timedelta(minutes=1))

    services.report(job, "packing", 3, 8)

    now = fresh(job)
    assert (now.stage, now.done, now.total, now.percent) == ("packing", 3, 8, 38)
    assert now.lease_until == timezone.now() + services.LEASE


def test_a_job_knows_since_when_it_is_at_its_stage(clock: time_machine.Traveller) -> None:
    job = claimed()
    assert fresh(job).stage_at is None
    services.report(job, "packing", 1, 8)
    began = timezone.now()
    clock.shift(timedelta(seconds=30))
    services.report(job, "packing", 2, 8)
    assert fresh(job).stage_at == began

    services.report(job, "publishing")

    assert fresh(job).stage_at == timezone.now() == began + timedelta(seconds=30)


def test_how_far_the_work_is_may_be_unknown() -> None:
    job = claimed()
    services.report(job, "thinking")

    assert fresh(job).percent is None


def test_who_lost_a_job_writes_nothing_more(clock: time_machine.Traveller) -> None:
    loser = claimed()
    clock.shift(services.LEASE + SECOND)
    winner = services.claim(loser.pk)
    assert winner is not None
    before = Job.objects.values().get()

    with pytest.raises(JobLost):
        services.report(loser, "packing", 1, 2)
    closing: list[Callable[[], bool]] = [
        lambda: services.finish(loser),
        lambda: services.fail(loser, "x"),
        lambda: services.retry_later(loser, "x"),
    ]
    assert [close() for close in closing] == [False, False, False]

    assert Job.objects.values().get() == before
    assert services.finish(winner)


def test_who_lost_the_lease_but_not_the_job_goes_on(clock: time_machine.Traveller) -> None:
    job = claimed()
    clock.shift(services.LEASE + SECOND)

    services.report(job, "late")

    assert services.claim(job.pk) is None


# --- Ends


def test_finished_work_is_closed_and_dated() -> None:
    job = claimed()

    assert services.finish(job)

    now = fresh(job)
    assert (now.status, now.finished_at, now.lease_until, now.error) == (Status.DONE, NOON, None, "")
    assert not services.finish(job)
    assert services.claim(job.pk) is None


def test_a_failed_attempt_is_repeated_twice_as_late_each_time(clock: time_machine.Traveller) -> None:
    job = services.enqueue(KIND, 7)
    for wait in (2, 4, 8, 16):
        mine = services.claim(job.pk)
        assert mine is not None
        assert services.retry_later(mine, "no disk")
        now = fresh(job)
        assert (now.status, now.error, now.lease_until) == (Status.QUEUED, "no disk", None)
        assert now.due_at == timezone.now() + wait * SECOND
        clock.shift((wait - 1) * SECOND)
        assert services.claim(job.pk) is None
        clock.shift(SECOND)

    last = services.claim(job.pk)
    assert last is not None
    assert not services.retry_later(last, "no disk")

    assert (fresh(job).status, fresh(job).error, fresh(job).attempts) == (Status.FAILED, "no disk", 5)
    assert services.claim(job.pk) is None


def test_a_job_that_died_on_its_last_attempt_is_closed_in_words() -> None:
    job = claimed()
    dead(job)

    assert services.claim(job.pk) is None
    assert services.sweep() == 0

    now = fresh(job)
    assert now.status == Status.FAILED
    assert "worker stopped" in now.error


def test_a_failed_job_is_revived_as_a_new_one() -> None:
    job = claimed(7)
    services.fail(job, "broken")

    revived = services.revive(job)

    assert revived.pk != job.pk
    assert (revived.subject, revived.attempts, revived.status) == ("7", 0, Status.QUEUED)
    assert services.revive(job).pk == revived.pk


# --- Run


def test_a_job_is_run_once_however_often_its_message_comes() -> None:
    done: list[str] = []
    job = services.enqueue(KIND, 7)

    for _ in range(3):
        services.run(job.pk, lambda mine: done.append(mine.subject), retry_on=())

    assert done == ["7"]
    assert fresh(job).status == Status.DONE


@pytest.mark.parametrize("error", [OSError("no disk"), OperationalError("no database")])
def test_what_time_heals_is_tried_again(error: Exception) -> None:
    job = services.enqueue(KIND, 7)

    services.run(job.pk, _raise(error), retry_on=(OSError, OperationalError))

    assert fresh(job).status == Status.QUEUED
    assert fresh(job).error == f"{type(error).__name__}: {error}"


def test_a_defect_is_recorded_for_the_curator_and_raised_for_the_log() -> None:
    job = services.enqueue(KIND, 7)

    with pytest.raises(ZeroDivisionError):
        services.run(job.pk, _raise(ZeroDivisionError("division by zero")), retry_on=(OSError,))

    assert (fresh(job).status, fresh(job).error) == (Status.FAILED, "ZeroDivisionError: division by zero")


def test_what_is_refused_ends_the_job_with_its_message_and_no_alarm() -> None:
    job = services.enqueue("kind", 1)

    def refuse(job: Job) -> None:
        raise Refusal("archive_unreadable", "x.tar.gz is no archive.")

    services.run(job.pk, refuse, retry_on=(OSError,))

    job.refresh_from_db()
    assert (job.status, job.error) == (Status.FAILED, "x.tar.gz is no archive.")


def test_work_whose_job_was_taken_over_ends_quietly(clock: time_machine.Traveller) -> None:
    job = services.enqueue(KIND, 7)

    def slow(mine: Job) -> None:
        clock.shift(services.LEASE + SECOND)
        assert services.claim(mine.pk) is not None
        services.report(mine, "too late")

    services.run(job.pk, slow, retry_on=(OSError,))

    assert (fresh(job).status, fresh(job).attempts, fresh(job).stage) == (Status.RUNNING, 2, "")


def test_a_worker_that_is_stopped_leaves_the_job_to_the_next(clock: time_machine.Traveller) -> None:
    job = services.enqueue(KIND, 7)

    with pytest.raises(KeyboardInterrupt):
        services.run(job.pk, _raise(KeyboardInterrupt()), retry_on=(OSError,))
    assert fresh(job).status == Status.RUNNING
    clock.shift(services.LEASE + SECOND)
    services.run(job.pk, lambda _: None, retry_on=(OSError,))

    assert fresh(job).status == Status.DONE


def test_an_error_of_an_earlier_attempt_is_forgotten_when_the_work_succeeds(clock: time_machine.Traveller) -> None:
    job = services.enqueue(KIND, 7)
    services.run(job.pk, _raise(OSError("no disk")), retry_on=(OSError,))
    clock.shift(timedelta(minutes=1))

    services.run(job.pk, lambda _: None, retry_on=(OSError,))

    assert (fresh(job).status, fresh(job).error) == (Status.DONE, "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_work_that_finds_the_disk_full_waits_for_room_as_long_as_it_takes(
    clock: time_machine.Traveller, number: int
) -> None:
    job = services.enqueue(KIND, 7)
    for _ in range(3 * job.most_attempts):
        services.run(job.pk, _raise(OSError(number, "No space left on device")), retry_on=(OSError,))
        assert (fresh(job).status, fresh(job).attempts) == (Status.QUEUED, 0)
        assert fresh(job).error.startswith("The disk is full: make room")
        assert services.claim(job.pk) is None
        clock.shift(services.ROOM_AGAIN)

    services.run(job.pk, lambda _: None, retry_on=(OSError,))

    assert (fresh(job).status, fresh(job).error) == (Status.DONE, "")


def test_a_write_that_came_short_is_taken_for_a_full_disk_only_where_the_disk_is_full() -> None:
    short = OSError("1000 requested and 12 written")  # numpy's own words, without a number
    assert not services.is_full(short)
    with mock.patch("jobs.services.shutil.disk_usage") as usage:
        usage.return_value.free = services.LEAST_ROOM - 1
        assert services.is_full(short)
        assert not services.is_full(OSError(errno.EACCES, "Permission denied"))


def _raise(error: BaseException) -> Callable[[Job], None]:
    def work(_: Job) -> None:
        raise error

    return work


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_extended_while_a_long_transaction_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time: whoever would take the job over waits for it.")
    job = claimed()
    before = job.lease_until
    assert before is not None
    Job.objects.filter(pk=job.pk).update(lease_until=before - 60 * SECOND)
    monkeypatch.setattr(services, "LEASE", timedelta(milliseconds=150))
    with services.keeping(job), transaction.atomic():
        Job.objects.count()
        deadline = time.monotonic() + 30
        while fresh(job).lease_until == before - 60 * SECOND and time.monotonic() < deadline:
            time.sleep(0.02)
        extended = fresh(job).lease_until
    assert extended == NOON + timedelta(milliseconds=150)
