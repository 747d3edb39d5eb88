from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class ElicitConfig(AppConfig):
    name = "elicit"
    verbose_name = "Elicit"

    def ready(self) -> None:
        """Make Elicit's Celery application the current one, so that `shared_task`s bind to it, and wire the roles, the
        sign-in and the audit log."""
        import_module("elicit.celery")
        from annotations import audit  # the models have to be there first
        from elicit import append_only, audited, roles, signing_in

        append_only.connect()
        audit.connect()
        audited.register()
        roles.connect()
        signing_in.connect()
