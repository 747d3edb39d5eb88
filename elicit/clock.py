"""The clock's Celery application: `celery -A elicit.clock beat`.

It rings and does nothing itself. That takes the schedule and the broker; the models and tasks, which `elicit.celery`
loads, would take most of its memory.
"""

from __future__ import annotations

import os

from celery import Celery
from django.conf import settings
from django.utils.log import configure_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

# Without Celery's own part for Django, which sets Django up.
app = Celery("elicit", fixups=[])
app.config_from_object("django.conf:settings", namespace="CELERY")
configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
