"""Put work into the queue, take it out, finish it. Nothing here knows what the work is."""

from __future__ import annotations

import errno
import logging
import math
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial

from celery import current_app
from django.conf import settings
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Case, F, Q, When
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from elicit.labels.errors import Refusal
from jobs.models import UNFINISHED, Job, Status

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=settings.JOB_LEASE_SECONDS)
# A message is on its way for this long before the sweep rings again.
PATIENCE = timedelta(seconds=settings.JOB_PATIENCE_SECONDS)
NEVER_RINGS_AT_ONCE = 500
# Kinds that may wait behind work of hours, where each message that is rung again lies on top of the others.
OWN_QUEUE = tuple(settings.CELERY_TASK_ROUTES)
LONG_PATIENCE = 10 * PATIENCE
# Until when this process rings at no broker of this address (monotonic).
BROKER_RESTS_SECONDS = 5.0
_away_until: dict[str, float] = {}
# A job that found the disk full is tried again so often, for as long as it takes.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ROOM_AGAIN = timedelta(seconds=settings.JOB_ROOM_SECONDS)
LEAST_ROOM = 1 << 20


class JobLost(Exception):
    """The lease ran out and another worker has the job: stop, and write nothing more."""


class PutBack(Exception):
    """The worker is told to stop: the next one goes on with the job, and the attempt doesn't count."""


def enqueue(kind: str, subject: object, *, delay: timedelta = timedelta()) -> Job:
    """Queue the work `kind` for `subject`, once: an unfinished twin is returned instead.

    Call it inside the transaction that makes the work necessary: either both are stored or neither. The bell rings
    when that transaction commits.
    """
    try:
        with transaction.atomic():
            job = Job.objects.create(kind=kind, subject=str(subject), due_at=timezone.now() + delay)
    except IntegrityError:
        twin = Job.objects.filter(kind=kind, subject=str(subject), status__in=UNFINISHED).first()
        # A twin that has finished since then no longer stands in the way.
        return twin or enqueue(kind, subject, delay=delay)
    if not delay:
        transaction.on_commit(partial(ring, job))
    return job


def ring(job: Job) -> bool:
    """Send the Celery message. False when the broker is away: the sweep will ring again.

    A broker that failed is left alone for some seconds: of all whose pages ring meanwhile, one waits for it.
    """
    broker = str(current_app.conf.broker_url)
    if time.monotonic() < _away_until.get(broker, -math.inf):
        return False
    Job.objects.filter(pk=job.pk).update(rung_at=timezone.now())
    try:
        current_app.send_task(job.kind, (job.pk,), retry=False)
    except (BrokerError, OSError) as error:
        _away_until[broker] = time.monotonic() + BROKER_RESTS_SECONDS
        log.warning("The broker did not take the message for %s: %s", job, error)
        return False
    return True


def hold_back(kind: str, subject: object) -> bool:
    """Whether the work is queued and was never begun; then no worker begins it before this transaction ends."""
    waiting = Job.objects.select_for_update().filter(kind=kind, subject=str(subject), status=Status.QUEUED, attempts=0)
    return waiting.first() is not None


def claim(pk: int) -> Job | None:
    """Take a due job for this worker; None if it is not due, finished, or held by another."""
    now = timezone.now()
    owner = secrets.token_hex(16)
    won = Job.objects.filter(_due(now), pk=pk, attempts__lt=F("most_attempts")).update(
        status=Status.RUNNING, owner=owner, attempts=F("attempts") + 1, lease_until=now + LEASE, error=""
    )
    # By its owner: whoever sleeps here past the lease must not come to think that the next one's claim is theirs.
    return Job.objects.filter(pk=pk, owner=owner).first() if won else None


def report(job: Job, stage: str, done: int = 0, total: int = 0) -> None:
    """Record progress and extend the lease.

    Raises:
        JobLost: another worker has taken the job over.
    """
    now = timezone.now()
    kept = Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(
        stage=stage,
        stage_at=Case(When(stage=stage, then=F("stage_at")), default=now),
        done=done,
        total=total,
        lease_until=now + LEASE,
    )
    if not kept:
        raise JobLost(str(job))


@contextmanager
def keeping(job: Job) -> Iterator[None]:
    """Extend the lease now and then while the work inside holds one long transaction, in which no report would be seen.

    From a thread with a connection of its own. Work that another worker takes over all the same has to be refused or
    made harmless by the transaction itself.
    """
    over = threading.Event()

    def extend() -> None:
        while not over.wait(LEASE.total_seconds() / 3):
            # SQLite has one writer: whoever would take the job over waits for it as well.
            with suppress(OperationalError):
                Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(
                    lease_until=timezone.now() + LEASE
                )
            connection.close()

    thread = threading.Thread(target=extend, name=f"lease of {job.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def count_anew(job: Job) -> None:
    """The job came further than the attempt before: those who died at it had not died of it, so attempts start anew."""
    Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(attempts=1)


def put_back(job: Job) -> bool:
    """Queue the job again at once, as if this attempt had not been; False if another worker holds it by now."""
    return bool(
        Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(
            status=Status.QUEUED, attempts=F("attempts") - 1, lease_until=None, rung_at=None, due_at=timezone.now()
        )
    )


def finish(job: Job) -> bool:
    """Mark the job done; False if another worker holds it by now."""
    return _close(job, Status.DONE, "", timezone.now())


def fail(job: Job, error: str) -> bool:
    """Mark the job failed for good; False if another worker holds it by now."""
    return _close(job, Status.FAILED, error, timezone.now())


def retry_later(job: Job, error: str) -> bool:
    """Put the job back, twice as late each time; failed for good once its attempts are used up. True if it will be
    tried again."""
    if job.attempts >= job.most_attempts:
        fail(job, error)
        return False
    return bool(
        Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(
            status=Status.QUEUED,
            error=error,
            lease_until=None,
            rung_at=None,
            due_at=timezone.now() + timedelta(seconds=2**job.attempts),
        )
    )


def is_full(error: BaseException) -> bool:
    """Whether it failed for want of room on the disk."""
    if not isinstance(error, OSError):
        return False
    # numpy, short of room, says only how much it could not write.
    return error.errno in NO_ROOM or (error.errno is None and shutil.disk_usage(settings.VAR).free < LEAST_ROOM)


def wait_for_room(job: Job, error: BaseException) -> bool:
    """Put the job back until there may be room on the disk; the attempt doesn't count."""
    told = f"The disk is full: make room, and it goes on by itself within {ROOM_AGAIN.total_seconds():.0f} seconds."
    log.error("%s waits for room on the disk: %s", job, error)
    return bool(
        Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(
            status=Status.QUEUED,
            attempts=F("attempts") - 1,
            error=told,
            lease_until=None,
            rung_at=None,
            due_at=timezone.now() + ROOM_AGAIN,
        )
    )


def revive(job: Job) -> Job:
    """Queue a failed job anew, for a person who has mended the cause."""
    return enqueue(job.kind, job.subject)


def sweep() -> int:
    """Ring for every due job that nobody rang for lately, and close those that died on their last attempt.

    Returns how many it rang for. Safe to run at any time, any number of times, in many processes at once.
    """
    now = timezone.now()
    # One statement: a worker that extends its lease at this moment keeps its job.
    Job.objects.filter(status=Status.RUNNING, lease_until__lt=now, attempts__gte=F("most_attempts")).update(
        status=Status.FAILED,
        error="Its worker stopped each time it was tried.",
        lease_until=None,
        finished_at=now,
    )
    stale = (
        Q(rung_at__isnull=True)
        | Q(rung_at__lt=now - PATIENCE) & ~Q(kind__in=OWN_QUEUE)
        | Q(rung_at__lt=now - LONG_PATIENCE)
    )
    rung = 0
    for job in Job.objects.filter(_due(now), stale).order_by("due_at")[:NEVER_RINGS_AT_ONCE]:
        if not ring(job):
            break
        rung += 1
    return rung


def run(pk: int, work: Callable[[Job], None], *, retry_on: tuple[type[Exception], ...]) -> None:
    """Do the job `pk` once: claim it, call `work`, and close it.

    Errors of the types in `retry_on` put it back, a full disk as often as it takes; a refusal ends it with its message;
    any other is a defect: it is recorded on the row for the curator, then raised for the log.
    """
    job = claim(pk)
    if job is None:
        return
    try:
        work(job)
    except JobLost:
        log.warning("%s was taken over by another worker", job)
    except PutBack:
        put_back(job)
    except Refusal as error:
        # What was asked for can't be had, a broken archive say: news for whoever asked, no defect.
        fail(job, error.message)
    except retry_on as error:
        if is_full(error):
            wait_for_room(job, error)
        else:
            retry_later(job, f"{type(error).__name__}: {error}")
    except Exception as error:
        fail(job, f"{type(error).__name__}: {error}")
        raise
    else:
        finish(job)


def _due(now: datetime) -> Q:
    return Q(status=Status.QUEUED, due_at__lte=now) | Q(status=Status.RUNNING, lease_until__lt=now)


def _close(job: Job, status: Status, error: str, now: datetime) -> bool:
    return bool(
        Job.objects.filter(pk=job.pk, owner=job.owner, status=Status.RUNNING).update(
            status=status, error=error, lease_until=None, finished_at=now
        )
    )
