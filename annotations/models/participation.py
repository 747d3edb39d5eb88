"""Who takes part, and one sitting of theirs."""

from __future__ import annotations

import secrets
import uuid
from typing import ClassVar

from django.conf import settings
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
    PRACTICE = "practice", "practising"
    COMPREHENSION = "comprehension", "at the comprehension check"
    TRIALS = "trials", "answering"
    QUESTIONNAIRE = "questionnaire", "at the questionnaire"
    COMPLETED = "completed", "completed"
    ABANDONED = "abandoned", "abandoned"
    SCREENED_OUT = "screened_out", "did not pass the comprehension check"
    WITHDRAWN = "withdrawn", "withdrawn, answers erased"


OPEN_STATUSES = (
    SessionStatus.INSTRUCTIONS,
    SessionStatus.PRACTICE,
    SessionStatus.COMPREHENSION,
    SessionStatus.TRIALS,
    SessionStatus.QUESTIONNAIRE,
)


class ExclusionReason(models.TextChoices):
    """Why a curator leaves a session out. Releases count sessions by these words, never by the note."""

    INATTENTIVE = "inattentive", "inattentive answers"
    INCONSISTENT = "inconsistent", "repeats contradict their first answers"
    MISUNDERSTOOD = "misunderstood", "misunderstood the task"
    TECHNICAL = "technical", "a technical fault"
    DUPLICATE = "duplicate", "the same person twice"
    OTHER = "other", "another reason, as noted"


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
    comprehension_attempts = models.PositiveSmallIntegerField(default=0)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    excluded_at = models.DateTimeField(null=True, blank=True)
    exclusion_reason = models.CharField(max_length=13, choices=ExclusionReason, blank=True, default="")
    exclusion_note = models.TextField(blank=True, default="", help_text="For the curators; never released.")
    excluded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ("-consented_at",)
        permissions: ClassVar = [("exclude_session", "Can exclude sessions from releases and take them back in")]
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
            models.CheckConstraint(
                condition=(Q(status=SessionStatus.WITHDRAWN) & Q(withdrawn_at__isnull=False))
                | (~Q(status=SessionStatus.WITHDRAWN) & Q(withdrawn_at__isnull=True)),
                name="session_withdrawn_has_time",
            ),
            models.CheckConstraint(
                condition=Q(excluded_at__isnull=True, exclusion_reason="")
                | (Q(excluded_at__isnull=False) & ~Q(exclusion_reason="")),
                name="session_excluded_for_a_reason",
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
