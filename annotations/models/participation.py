"""Who takes part, and one sitting of theirs."""

from __future__ import annotations

import secrets
import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from annotations.models.studies import Consent, Study


def new_token() -> str:
    """What the link of a session carries: 192 random bits, not to be guessed."""
    return secrets.token_urlsafe(24)


def new_annotator() -> str:
    """A pseudonym: ten random characters that say nothing of the person."""
    return "a" + "".join(secrets.choice("23456789abcdefghjkmnpqrstuvwxyz") for _ in range(10))


class Participant(models.Model):
    """A person in a study. The platform's id stays here; releases know the annotator alone."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="participants")
    platform_id = models.CharField(max_length=120, blank=True, default="")
    annotator = models.CharField(max_length=16, default=new_annotator)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["study", "platform_id"],
                condition=~Q(platform_id=""),
                name="participant_platform_id_once_per_study",
            ),
            models.UniqueConstraint(fields=["study", "annotator"], name="annotator_once_per_study"),
        ]

    def __str__(self) -> str:
        return self.annotator


class SessionStatus(models.TextChoices):
    INSTRUCTIONS = "instructions", "reading the instructions"
    TRIALS = "trials", "answering"
    QUESTIONNAIRE = "questionnaire", "at the questionnaire"
    COMPLETED = "completed", "completed"
    ABANDONED = "abandoned", "abandoned"


OPEN_STATUSES = (SessionStatus.INSTRUCTIONS, SessionStatus.TRIALS, SessionStatus.QUESTIONNAIRE)


class Session(models.Model):
    """One sitting, from consent to completion."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="sessions")
    participant = models.ForeignKey(Participant, on_delete=models.CASCADE, related_name="sessions")
    token = models.CharField(max_length=48, unique=True, default=new_token, editable=False)
    status = models.CharField(max_length=13, choices=SessionStatus, default=SessionStatus.INSTRUCTIONS)
    consent = models.ForeignKey(Consent, on_delete=models.PROTECT, related_name="+")
    consented_at = models.DateTimeField()
    category_order = models.JSONField(help_text="Category indices in the order shown; empty where it is not known.")
    questionnaire = models.JSONField(blank=True, default=dict)
    seen_at = models.DateTimeField(help_text="The last sign of life.")
    trials_begun_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-consented_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["participant"],
                condition=Q(status__in=OPEN_STATUSES),
                name="one_open_session_per_participant",
            ),
            models.CheckConstraint(
                condition=~Q(status=SessionStatus.COMPLETED) | Q(completed_at__isnull=False),
                name="session_completed_has_time",
            ),
        ]
        indexes: ClassVar = [
            # What the hunt for abandoned sessions reads.
            models.Index(fields=["seen_at"], condition=Q(status__in=OPEN_STATUSES), name="session_open_seen"),
            models.Index(fields=["study", "status"], name="session_by_study_status"),
        ]

    def __str__(self) -> str:
        return str(self.id)[:8]

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES
