"""This app's background work: thin edges around services."""

from __future__ import annotations

from functools import partial

import numpy as np
from celery import shared_task
from django.utils import timezone

from annotations import kinds
from annotations.models import Study, StudyStatus
from annotations.recruitment.prolific_api import Unavailable
from annotations.services import (
    arms,
    erasing,
    images,
    payments,
    places,
    quality,
    recruitment,
    sessions,
    studies,
    summaries,
    uploads,
)
from jobs.models import Job
from jobs.services import keeping, report
from jobs.tasks import TRANSIENT, durable


@durable(kinds.CHECK_SESSION)
def check_session(job: Job) -> None:
    quality.check_session(job.subject, timezone.now())


@durable(kinds.MEASURE_STUDY)
def measure_study(job: Job) -> None:
    study, _, when = job.subject.partition(" ")
    # Whoever asks for it now wants everybody measured anew, once for all attempts of the job.
    since = job.created_at if when == quality.NOW else None
    quality.measure_study(int(study), timezone.now(), since=since, told=partial(report, job))


@durable(kinds.LAUNCH_STUDY)
def launch_study(job: Job) -> None:
    with keeping(job):
        if Study.objects.filter(pk=job.subject, status=StudyStatus.DRAFT).exists():
            studies.launch(int(job.subject), np.random.default_rng())


@durable(kinds.COMPARE_ARMS)
def compare_arms(job: Job) -> None:
    arms.compare_arms(int(job.subject), timezone.now())


@durable(kinds.ORDER_PLACES)
def order_places(job: Job) -> None:
    places.put_in_order(int(job.subject))


@durable(kinds.IMPORT_IMAGES)
def import_images(job: Job) -> None:
    images.run_import(job)


@durable(kinds.REMOVE_IMAGES)
def remove_images(job: Job) -> None:
    images.run_removal(job)


@durable(kinds.SUMMARISE_STUDY)
def summarise_study(job: Job) -> None:
    summaries.summarise(int(job.subject), timezone.now, partial(report, job))


@shared_task(name="annotations.summarise_live_studies")
def summarise_live_studies() -> int:
    return summaries.ask_for_live(timezone.now())


@shared_task(name="annotations.give_back_places")
def give_back_places() -> int:
    places.ring_for_touched()
    return sessions.give_back_places(timezone.now())


# A platform that is away comes back.
PLATFORM_AWAY = (*TRANSIENT, Unavailable)


@durable(kinds.VERIFY_ARRIVAL, retry_on=PLATFORM_AWAY)
def verify_arrival(job: Job) -> None:
    recruitment.verify_arrival(job, timezone.now())


@durable(kinds.PLATFORM_EVENT, retry_on=PLATFORM_AWAY)
def platform_event(job: Job) -> None:
    recruitment.handle_event(job, timezone.now())


@durable(kinds.POLL_PLATFORM, retry_on=PLATFORM_AWAY)
def poll_platform(job: Job) -> None:
    recruitment.poll_platform(job, timezone.now())


@durable(kinds.PAY_STUDY, retry_on=PLATFORM_AWAY)
def pay_study(job: Job) -> None:
    payments.pay_study(job, timezone.now())


@durable(kinds.SETTLE_PAYMENTS, retry_on=PLATFORM_AWAY)
def settle_payments(job: Job) -> None:
    payments.settle_payments(job, timezone.now())


@shared_task(name="annotations.watch_platforms")
def watch_platforms() -> int:
    return recruitment.watch(timezone.now())


@shared_task(name="annotations.erase_what_is_due")
def erase_what_is_due() -> int:
    return erasing.erase_what_is_due(timezone.now())


@shared_task(name="annotations.sweep_uploads")
def sweep_uploads() -> int:
    return uploads.sweep(timezone.now())
