"""Celery's side of the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import shared_task
from celery.signals import worker_ready
from django.db import InterfaceError, OperationalError

from jobs import services
from jobs.models import Job

# What time heals: a database or a disk that is away for a moment.
TRANSIENT: tuple[type[Exception], ...] = (OperationalError, InterfaceError, OSError)


def durable(kind: str, *, retry_on: tuple[type[Exception], ...] = TRANSIENT) -> Callable[[Callable[[Job], None]], Any]:
    """Make `work(job)` the Celery task that does jobs of this kind.

    The work must be idempotent: a worker that is killed leaves the job to the next one.
    """

    def register(work: Callable[[Job], None]) -> Any:
        @shared_task(name=kind)
        def task(pk: int) -> None:
            services.run(pk, work, retry_on=retry_on)

        return task

    return register


@shared_task(name="jobs.sweep")
def sweep() -> int:
    return services.sweep()


@worker_ready.connect
def _sweep_on_start(**_: object) -> None:
    """A fresh worker looks for what was left behind, rather than wait for the next beat."""
    sweep.apply_async()
