"""What the workers found out about a session."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from annotations.models.participation import Session
from elicit.labels.consistency import Verdict

VERDICTS = [(verdict.value, verdict.value) for verdict in Verdict]


class ConsistencyCheck(models.Model):
    """A session's repeats against their first answers, judged by a numbered version of the rule."""

    session = models.OneToOneField(Session, on_delete=models.CASCADE, related_name="consistency")
    rule_version = models.PositiveSmallIntegerField()
    verdict = models.CharField(max_length=12, choices=VERDICTS)
    repeats = models.PositiveSmallIntegerField()
    same_top = models.PositiveSmallIntegerField(help_text="Repeats that name the same most likely category.")
    mean_distance = models.FloatField(null=True, help_text="Mean total variation, 0..1.")
    mean_change = models.FloatField(
        null=True, help_text="Mean change of the top percentage in points, where the category stayed."
    )
    checked_at = models.DateTimeField()

    class Meta:
        ordering = ("-checked_at",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(same_top__lte=models.F("repeats")),
                name="consistency_same_top_within_repeats",
            ),
        ]

    def __str__(self) -> str:
        return self.verdict
