"""This app's background work: thin edges around services."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from annotations import kinds
from annotations.services import images, quality, sessions
from jobs.models import Job
from jobs.tasks import durable


@durable(kinds.CHECK_SESSION)
def check_session(job: Job) -> None:
    quality.check_session(job.subject, timezone.now())


@durable(kinds.IMPORT_IMAGES)
def import_images(job: Job) -> None:
    images.run_import(job)


@shared_task(name="annotations.give_back_places")
def give_back_places() -> int:
    return sessions.give_back_places(timezone.now())
