"""What was asked, and what was said."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from annotations.models.participation import Session
from annotations.models.stimuli import Image
from annotations.models.studies import Place
from elicit.labels import Elicited


class TrialKind(models.TextChoices):
    PRACTICE = "practice", "practice"
    MAIN = "main", "main"
    REPEAT = "repeat", "repeat"
    ATTENTION = "attention", "attention"


class Trial(models.Model):
    """One image at one position of a session. A main trial occupies its session's place on the image."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="trials")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="trials")
    position = models.PositiveSmallIntegerField(help_text="From 1.")
    kind = models.CharField(max_length=9, choices=TrialKind, default=TrialKind.MAIN)
    # Empty once an abandoned session's place was given back: the answer stays, but counts towards no K.
    place = models.ForeignKey(Place, on_delete=models.SET_NULL, null=True, blank=True, related_name="trials")
    repeat_of = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="repeats")

    class Meta:
        ordering = ("session", "position")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "position"], name="trial_position_once_per_session"),
            models.UniqueConstraint(
                fields=["place", "image"], condition=Q(place__isnull=False), name="trial_image_once_per_place"
            ),
            models.CheckConstraint(
                condition=Q(kind=TrialKind.MAIN) | Q(place__isnull=True), name="trial_only_main_has_place"
            ),
            models.CheckConstraint(
                condition=Q(kind=TrialKind.REPEAT, repeat_of__isnull=False)
                | (~Q(kind=TrialKind.REPEAT) & Q(repeat_of__isnull=True)),
                name="trial_repeat_names_its_first",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} trial {self.position}"


class Response(models.Model):
    """What an annotator said of one image. Never changed.

    `named` is a list of [category index, percentage], most likely first; `impossible` a list of category indices.
    The most likely category and its percentage stand in columns of their own as well, for constraints and queries.
    """

    id = models.UUIDField(primary_key=True, editable=False, help_text="Made by the annotator's browser.")
    trial = models.OneToOneField(Trial, on_delete=models.CASCADE, related_name="response")
    named = models.JSONField()
    impossible = models.JSONField()
    top_category = models.PositiveSmallIntegerField()
    top_percentage = models.FloatField()
    sum_percentage = models.FloatField()
    duration_ms = models.PositiveIntegerField(help_text="From the painted image to the answer, tab visible.")
    hidden_ms = models.PositiveIntegerField(default=0, help_text="How long the tab was hidden meanwhile.")
    received_at = models.DateTimeField()

    class Meta:
        ordering = ("received_at",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(top_percentage__gt=0, top_percentage__lte=100),
                name="response_top_percentage_0_to_100",
            ),
            models.CheckConstraint(
                condition=Q(sum_percentage__gte=F("top_percentage")), name="response_sum_covers_top"
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)[:8]

    @property
    def elicited(self) -> Elicited:
        return Elicited(
            named=tuple((int(category), float(percentage)) for category, percentage in self.named),
            impossible=frozenset(self.impossible),
        )
