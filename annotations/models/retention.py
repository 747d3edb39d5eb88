"""How long a study keeps what names people, and what they said."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import Q

from annotations.models.studies import Study

DEFAULT_DAYS = 60
MOST_DAYS = 3650


class Retention(models.Model):
    """Counted from the day that the study was closed: before that nothing is erased but by withdrawal."""

    copied_with_study = True

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="retention")
    ids_days = models.PositiveSmallIntegerField(
        "keep platform ids for",
        default=DEFAULT_DAYS,
        validators=[MaxValueValidator(MOST_DAYS)],
        help_text="Days after closing. An id whose payment is still open is kept until that is settled.",
    )
    answers_until = models.DateField(
        "keep answers until",
        null=True,
        blank=True,
        help_text="Empty: for ever. From this day on answers and questionnaires of the closed study are erased; "
        "releases made before stay as they are.",
    )

    class Meta:
        verbose_name_plural = "retention"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(ids_days__lte=MOST_DAYS), name="retention_of_ids_has_an_end")
        ]

    def __str__(self) -> str:
        return f"of {self.study}"
