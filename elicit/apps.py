from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class ElicitConfig(AppConfig):
    name = "elicit"
    verbose_name = "Elicit"

    def ready(self) -> None:
        """Make Elicit's Celery application the current one, so that `shared_task`s bind to it."""
        import_module("elicit.celery")
