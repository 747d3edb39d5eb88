"""Images whose answer is known: what tells attentive annotators from others."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from annotations.models.stimuli import Image
from annotations.models.studies import Study


class CheckKind(models.TextChoices):
    ATTENTION = "attention", "attention check: the page itself says what to answer"
    GOLD = "gold", "soft gold: an image whose label is known, shown like any other"


class CheckItem(models.Model):
    """One image that every session of a study shows somewhere among its trials, besides the study's own images.

    An answer passes when its most likely category is one of `allowed`, or when its soft label lies within `tolerance`
    (total variation, 0..1) of `target`. Exactly one of the two is set. Neither is ever sent to a browser.
    """

    copied_with_study = True

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="check_items")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=9, choices=CheckKind, default=CheckKind.GOLD)
    note = models.CharField(
        max_length=300,
        blank=True,
        default="",
        help_text="What the page says at an attention check, such as “To show that you read this, name Dog.”",
    )
    allowed = models.JSONField(blank=True, default=list, help_text="Indices of the categories that pass.")
    target = models.JSONField(blank=True, default=list, help_text="A probability for each category.")
    tolerance = models.FloatField(
        null=True, blank=True, help_text="Most total variation from the target that passes, 0..1."
    )

    class Meta:
        ordering = ("study", "pk")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "image"], name="check_image_once_per_study"),
            models.CheckConstraint(
                condition=Q(tolerance__isnull=True) | Q(tolerance__gte=0, tolerance__lte=1),
                name="check_tolerance_0_to_1",
            ),
            models.CheckConstraint(
                condition=(~Q(kind="attention") & Q(note="")) | (Q(kind="attention") & ~Q(note="")),
                name="check_attention_has_a_note",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} check on {self.image}"
