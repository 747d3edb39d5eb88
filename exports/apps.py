from __future__ import annotations

from django.apps import AppConfig


class ExportsConfig(AppConfig):
    name = "exports"
    verbose_name = "Releases"

    def ready(self) -> None:
        from exports import supersession  # the models have to be there first

        supersession.connect()
