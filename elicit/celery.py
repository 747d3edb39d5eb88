"""The Celery application. Loaded by `ElicitConfig.ready()`, so that `import elicit` needs no Celery."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.signals import task_postrun, task_prerun, worker_init

from elicit import logs

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

app = Celery("elicit")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect
def _shares(**_: object) -> None:
    """What is loaded before the processes of the pool are forked stays shared with them: the collector lets it be."""
    gc.collect()
    gc.freeze()


@task_prerun.connect
def _begins(task: Any, args: Sequence[Any], **_: object) -> None:
    """Celery's own lines about a task name its job, too: the only argument that our tasks take."""
    logs.begin(logs.About(job_id=args[0] if args else None, job_kind=task.name))


@task_postrun.connect
def _ends(**_: object) -> None:
    logs.begin()
