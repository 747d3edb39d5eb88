"""What was asked, and what was said."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from annotations.models.checks import CheckItem
from annotations.models.participation import Session
from annotations.models.stimuli import Image
from annotations.models.studies import Framing, Place
from elicit.labels import Elicited


class TrialKind(models.TextChoices):
    PRACTICE = "practice", "practice"
    MAIN = "main", "main"
    REPEAT = "repeat", "repeat"
    ATTENTION = "attention", "attention"
    GOLD = "gold", "gold"


class Trial(models.Model):
    """One image at one position of a session. A main trial occupies its session's place on the image."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="trials")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="trials")
    position = models.PositiveSmallIntegerField(help_text="From 1; practice trials have a count of their own.")
    kind = models.CharField(max_length=9, choices=TrialKind, default=TrialKind.MAIN)
    framing = models.CharField(
        max_length=6, choices=[(each, each.label) for each in Framing.BOTH.asked], default=Framing.OTHERS
    )
    # Empty once an abandoned session's place was given back: the answer stays, but counts towards no K.
    # Found by the index of its constraint below; the next two by indexes of the few trials that have one.
    place = models.ForeignKey(
        Place, on_delete=models.SET_NULL, null=True, blank=True, db_index=False, related_name="trials"
    )
    repeat_of = models.ForeignKey(
        "self", on_delete=models.CASCADE, null=True, blank=True, db_index=False, related_name="repeats"
    )
    # What an attention or gold trial is judged by.
    check_item = models.ForeignKey(
        CheckItem, on_delete=models.PROTECT, null=True, blank=True, db_index=False, related_name="trials"
    )
    # Passed over because its image could not be shown: nothing is left to answer.
    skipped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("session", "position")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["session", "position"],
                condition=~Q(kind=TrialKind.PRACTICE),
                name="trial_position_once_per_session",
            ),
            models.UniqueConstraint(
                fields=["session", "position"],
                condition=Q(kind=TrialKind.PRACTICE),
                name="practice_position_once_per_session",
            ),
            models.UniqueConstraint(
                fields=["place", "image", "framing"],
                condition=Q(place__isnull=False),
                name="trial_image_once_per_place",
            ),
            models.CheckConstraint(
                condition=Q(kind=TrialKind.MAIN) | Q(place__isnull=True), name="trial_only_main_has_place"
            ),
            models.CheckConstraint(
                condition=Q(kind=TrialKind.REPEAT, repeat_of__isnull=False)
                | (~Q(kind=TrialKind.REPEAT) & Q(repeat_of__isnull=True)),
                name="trial_repeat_names_its_first",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=[TrialKind.ATTENTION, TrialKind.GOLD], check_item__isnull=False)
                | (~Q(kind__in=[TrialKind.ATTENTION, TrialKind.GOLD]) & Q(check_item__isnull=True)),
                name="trial_check_names_its_item",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["repeat_of"], condition=Q(repeat_of__isnull=False), name="trial_repeats"),
            models.Index(fields=["check_item"], condition=Q(check_item__isnull=False), name="trial_checks"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} trial {self.position}"


class InputDevice(models.TextChoices):
    KEYBOARD = "keyboard", "keyboard"
    MOUSE = "mouse", "mouse"
    TOUCH = "touch", "touch"
    PEN = "pen", "pen"
    MIXED = "mixed", "mixed"


class Response(models.Model):
    """What an annotator said of one image. Never changed: a correction is a new revision, and the first answer stays.

    `named` is a list of [category index, percentage], most likely first; `impossible` a list of category indices.
    The most likely category and its percentage stand in columns of their own as well, for constraints and queries.
    """

    id = models.UUIDField(primary_key=True, editable=False, help_text="Made by the annotator's browser.")
    # Found by the index of `revision_once_per_trial`, which begins with it.
    trial = models.ForeignKey(Trial, on_delete=models.CASCADE, db_index=False, related_name="responses")
    revision = models.PositiveSmallIntegerField(default=1, help_text="1 is what was said first.")
    current = models.BooleanField(default=True, help_text="Whether no later revision has taken its place.")
    named = models.JSONField()
    impossible = models.JSONField()
    top_category = models.PositiveSmallIntegerField()
    top_percentage = models.FloatField()
    sum_percentage = models.FloatField()
    duration_ms = models.PositiveIntegerField(help_text="From the painted image to the answer, tab visible.")
    hidden_ms = models.PositiveIntegerField(default=0, help_text="How long the tab was hidden meanwhile.")
    input_device = models.CharField(
        max_length=8, choices=InputDevice, blank=True, default="", help_text="Empty where it is not known."
    )
    first_touch_ms = models.PositiveIntegerField(
        null=True, blank=True, help_text="From the painted image to the first touch of a control."
    )
    changes = models.PositiveSmallIntegerField(default=0, help_text="How often something said was changed meanwhile.")
    process = models.JSONField(
        blank=True, default=dict, help_text="The times of each field, and the warnings shown, as the browser tells."
    )
    received_at = models.DateTimeField()

    class Meta:
        ordering = ("received_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["trial", "revision"], name="revision_once_per_trial"),
            models.UniqueConstraint(fields=["trial"], condition=Q(current=True), name="one_current_response_per_trial"),
            models.CheckConstraint(condition=Q(revision__gte=1), name="response_revision_from_1"),
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
