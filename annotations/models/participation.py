"""Who takes part, and one sitting of theirs."""

from __future__ import annotations

import secrets
import uuid
from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from annotations.models.studies import Consent, Study
from annotations.sealing import fingerprint, fingerprints, seal, unseal


def new_token() -> str:
    """What the link of a session carries: 192 random bits, not to be guessed."""
    return secrets.token_urlsafe(24)


# Without the letters and digits that are taken for each other.
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"


def new_annotator() -> str:
    """A pseudonym drawn at random: ten characters that say nothing of the person."""
    return "a" + "".join(secrets.choice(_LETTERS) for _ in range(10))


def pseudonym(study_id: int, platform_id: str, attempt: int = 0) -> str:
    """The pseudonym of a person in a study: a keyed hash, so it is the same however often they come, another in every
    study, and without the key leads nobody back. A second `attempt` gives another, should the first be taken."""
    number = int(fingerprint("annotator", str(study_id), platform_id, str(attempt)), 16)
    letters = []
    for _ in range(10):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "a" + "".join(letters)


class Participant(models.Model):
    """A person in a study. The platform's id stays here, encrypted; releases know the annotator alone.

    `platform_id` reads and sets it. It can't be filtered by: `Participant.platform_keys` finds a person.
    """

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="participants")
    platform_id_sealed = models.TextField("platform id, sealed", blank=True, default="", editable=False)
    platform_id_key = models.CharField(
        max_length=64, blank=True, default="", editable=False, help_text="By which a returning person is found."
    )
    annotator = models.CharField(max_length=16, default=new_annotator)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)
        permissions: ClassVar = [("view_platform_id", "Can see the ids that recruiting platforms gave")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["study", "platform_id_key"],
                condition=~Q(platform_id_key=""),
                name="participant_platform_id_once_per_study",
            ),
            models.UniqueConstraint(fields=["study", "annotator"], name="annotator_once_per_study"),
            models.CheckConstraint(
                condition=Q(platform_id_sealed="", platform_id_key="")
                | (~Q(platform_id_sealed="") & ~Q(platform_id_key="")),
                name="participant_sealed_id_has_key",
            ),
        ]

    def __str__(self) -> str:
        return self.annotator

    @classmethod
    def of(cls, study: Study, platform_id: str) -> Participant:
        """A person as yet unsaved, under the pseudonym that is theirs in this study."""
        participant = cls(study=study)
        participant.platform_id = platform_id
        return participant

    @property
    def platform_id(self) -> str:
        """The platform's id, empty where there is none."""
        return unseal(self.platform_id_sealed)

    @platform_id.setter
    def platform_id(self, value: str) -> None:
        self.platform_id_sealed = seal(value)
        self.platform_id_key = self.platform_keys(self.study_id, value)[0] if value else ""
        if value and self._state.adding:
            self.annotator = pseudonym(self.study_id, value)

    @staticmethod
    def platform_keys(study_id: int, platform_id: str) -> list[str]:
        """What `platform_id_key` may be for this id in this study."""
        return fingerprints("platform id", str(study_id), platform_id)


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


SIGN_OF_LIFE = timedelta(minutes=1)
"""Signs of life are noted no more often than this: by so much, at most, `Session.seen_at` is behind."""


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
    arm = models.ForeignKey(
        "annotations.Arm", on_delete=models.RESTRICT, null=True, blank=True, related_name="sessions"
    )
    arms_drawn_from = models.JSONField(
        blank=True, default=list, editable=False, help_text="The least filled arms then, by name: one was drawn."
    )
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
            # Who was there last, and who came last, without going through everybody.
            models.Index(fields=["study", "seen_at"], name="session_by_study_seen"),
            models.Index(fields=["study", "consented_at"], name="session_by_study_consent"),
            models.Index(fields=["consented_at"], name="session_by_consent"),
        ]

    def __str__(self) -> str:
        return str(self.id)[:8]

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES
