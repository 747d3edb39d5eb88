from __future__ import annotations

from django.apps import AppConfig


class AnnotationsConfig(AppConfig):
    name = "annotations"
    verbose_name = "Annotation"

    def ready(self) -> None:
        """Connect what answers to this app's own signals."""
        from annotations.services import payments

        payments.connect()
