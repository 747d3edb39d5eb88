"""What a study's dashboard shows and is too dear to work out on request."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from annotations.models.studies import Study


class StudySummary(models.Model):
    """The latest summary of a study, worked out by a worker. It may be deleted at any time.

    `data` is the form that `elicit.labels.summary.Summary` has as JSON, of the numbered `version`.
    """

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="summary")
    version = models.PositiveSmallIntegerField()
    until = models.DateTimeField(help_text="Everything that was there at this time is in it.")
    computed_at = models.DateTimeField()
    seconds = models.FloatField(help_text="How long it took.")
    data = models.JSONField()

    class Meta:
        verbose_name_plural = "study summaries"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(computed_at__gte=F("until")), name="summary_made_after_what_it_holds"),
            models.CheckConstraint(condition=Q(seconds__gte=0), name="summary_took_some_time"),
        ]

    def __str__(self) -> str:
        return f"summary of {self.study_id} at {self.computed_at:%H:%M:%S}"
