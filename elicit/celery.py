"""The Celery application. Loaded by `ElicitConfig.ready()`, so that `import elicit` needs no Celery."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

app = Celery("elicit")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
