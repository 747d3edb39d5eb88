"""Where a study's annotators come from, what the platform says of them, and what they are paid."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from annotations.models.participation import Participant, Session
from annotations.models.studies import Study


class Platform(models.TextChoices):
    OPEN = "open", "open link"
    INVITATION = "invitation", "single-use invitations"
    PROLIFIC = "prolific", "Prolific"
    CONNECT = "connect", "CloudResearch Connect"
    SONA = "sona", "SONA"


class Outcome(models.TextChoices):
    """How it ended for a person; each has a completion code of its own."""

    UNDER_WAY = "under_way", "at work"
    COMPLETED = "completed", "completed"
    SCREENED_OUT = "screened_out", "did not pass the comprehension check"
    NO_PLACE = "no_place", "found no place"
    NO_CONSENT = "no_consent", "did not consent, or withdrew"
    FAILED_ATTENTION = "failed_attention", "completed, and failed attention checks"


class Currency(models.TextChoices):
    GBP = "GBP", "£ pound sterling"
    USD = "USD", "$ US dollar"
    EUR = "EUR", "€ euro"
    CNY = "CNY", "¥ renminbi"


class BonusRule(models.TextChoices):
    """The proper score that a bonus follows; see docs/how-to/pay.md for the formula."""

    BRIER = "brier", "Brier (squared distance)"
    LOG = "log", "logarithmic"
    SPHERICAL = "spherical", "spherical"


def _code(help_text: str) -> models.CharField[str, str]:
    return models.CharField(max_length=40, blank=True, default="", help_text=help_text)


class Recruitment(models.Model):
    """How a study finds its annotators and what it promises them. Amounts are in minor units: pence, cents."""

    copied_with_study = True

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="recruiting")
    platform = models.CharField(max_length=10, choices=Platform, default=Platform.OPEN)
    platform_study = models.CharField("the platform's study id", max_length=80, blank=True, default="")
    completion_url = models.URLField(
        "link back", blank=True, default="", max_length=400, help_text="As the platform shows it for this study."
    )
    currency = models.CharField(max_length=3, choices=Currency, default=Currency.GBP)
    base_minor = models.PositiveIntegerField("base pay", default=0)
    screenout_minor = models.PositiveIntegerField("pay of those screened out", default=0)
    expected_minutes = models.PositiveSmallIntegerField(default=10, validators=[MinValueValidator(1)])
    bonus_most_minor = models.PositiveIntegerField("most bonus", default=0)
    bonus_rule = models.CharField(max_length=9, choices=BonusRule, default=BonusRule.BRIER)
    fee_share = models.FloatField(
        "the platform's fee",
        default=0.0,
        validators=[MinValueValidator(0), MaxValueValidator(2)],
        help_text="As a share of what is paid: 0.333 is a third on top.",
    )
    code_completed = _code("Everything was answered.")
    code_screened_out = _code("The comprehension check was not passed.")
    code_no_place = _code("The study was full, or not open.")
    code_no_consent = _code("They did not agree, or withdrew.")
    code_failed_attention = _code("Completed, but two attention checks were failed.")
    bonus_frozen_at = models.DateTimeField(null=True, blank=True, editable=False)
    polled_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name_plural = "recruitment"
        permissions: ClassVar = [("pay_annotators", "Can approve, pay and reject annotators' work")]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(fee_share__gte=0, fee_share__lte=2), name="recruitment_fee_0_to_2"),
            models.CheckConstraint(condition=Q(expected_minutes__gte=1), name="recruitment_takes_a_minute"),
        ]

    def __str__(self) -> str:
        return f"{self.get_platform_display()} for {self.study}"

    def code(self, outcome: Outcome) -> str:
        return str(getattr(self, f"code_{outcome}", ""))


class Invitation(models.Model):
    """A link for one person. The link's token is shown once and kept as a hash."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="invitations")
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    label = models.CharField(max_length=80, blank=True, default="", help_text="For the curators: whom it is for.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    used_by = models.OneToOneField(Session, on_delete=models.SET_NULL, null=True, blank=True, related_name="invitation")
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("pk",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(used_by__isnull=True) | Q(used_at__isnull=False), name="invitation_used_has_time"
            ),
        ]

    def __str__(self) -> str:
        return self.label or f"invitation {self.pk}"


class PlatformStatus(models.TextChoices):
    """Prolific's words for a submission; empty on platforms that tell nothing."""

    UNHEARD = "", "not heard of"
    RESERVED = "RESERVED", "reserved"
    ACTIVE = "ACTIVE", "active"
    AWAITING_REVIEW = "AWAITING REVIEW", "awaiting review"
    APPROVED = "APPROVED", "approved"
    PARTIALLY_APPROVED = "PARTIALLY APPROVED", "partially approved"
    RETURNED = "RETURNED", "returned"
    TIMED_OUT = "TIMED-OUT", "timed out"
    REJECTED = "REJECTED", "rejected"
    SCREENED_OUT = "SCREENED OUT", "screened out"
    UNKNOWN = "UNKNOWN", "in another state"
    MISSING = "MISSING", "not known to the platform"


# Nothing more happens to such a submission, unless by a person's hand.
SETTLED_STATUSES = (
    PlatformStatus.APPROVED,
    PlatformStatus.PARTIALLY_APPROVED,
    PlatformStatus.RETURNED,
    PlatformStatus.REJECTED,
    PlatformStatus.SCREENED_OUT,
)


class Arrival(models.Model):
    """One submission of a platform that led to a session. Made when its person agrees: who does not leaves no trace."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="arrivals")
    participant = models.ForeignKey(Participant, on_delete=models.CASCADE, related_name="arrivals")
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="arrivals")
    platform = models.CharField(max_length=10, choices=Platform)
    submission_sealed = models.TextField(blank=True, default="", editable=False)
    submission_key = models.CharField(max_length=64, editable=False, help_text="By which the submission is found.")
    status = models.CharField(
        "status on the platform", max_length=18, choices=PlatformStatus, blank=True, default=PlatformStatus.UNHEARD
    )
    arrived_at = models.DateTimeField()
    verified_at = models.DateTimeField(
        null=True, blank=True, help_text="When the platform confirmed that the submission is this person's."
    )
    heard_at = models.DateTimeField(null=True, blank=True, help_text="When the platform last said how it stands.")
    timed_out_at = models.DateTimeField(null=True, blank=True)
    return_asked_at = models.DateTimeField(null=True, blank=True)
    entered = models.CharField(
        "code entered",
        max_length=16,
        blank=True,
        default="",
        help_text="Whose outcome's code; `other` if none's.",
    )

    class Meta:
        ordering = ("-arrived_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "submission_key"], name="submission_once_per_study"),
            models.CheckConstraint(condition=~Q(submission_key=""), name="arrival_has_submission"),
        ]
        indexes: ClassVar = [models.Index(fields=["submission_key"], name="arrival_by_submission")]

    def __str__(self) -> str:
        return f"{self.get_platform_display()} submission of {self.participant}"


class WebhookEvent(models.Model):
    """A message of the platform: that it came, and what is needed to act on it. No ids and no body are kept."""

    event_id = models.CharField(max_length=80, unique=True, editable=False)
    kind = models.CharField(max_length=60)
    submission_key = models.CharField(max_length=64, blank=True, default="", editable=False)
    status = models.CharField(max_length=18, blank=True, default="")
    sent_at = models.DateTimeField()
    received_at = models.DateTimeField()
    handled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-received_at",)
        indexes: ClassVar = [
            models.Index(fields=["received_at"], condition=Q(handled_at__isnull=True), name="event_unhandled")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.status}".strip()


class PaymentKind(models.TextChoices):
    BASE = "base", "base pay"
    SCREEN_OUT = "screen_out", "pay for being screened out"
    BONUS = "bonus", "bonus"


class PaymentState(models.TextChoices):
    DUE = "due", "due"
    SENDING = "sending", "being sent"
    PAID = "paid", "paid"
    FAILED = "failed", "refused"
    CANCELLED = "cancelled", "cancelled"
    UNKNOWN = "unknown", "unknown: to be asked for"


class Payment(models.Model):
    """What a session earns. One row a session and kind, and one a submission and kind: a second can't exist."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="payments")
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="payments")
    arrival = models.ForeignKey(Arrival, on_delete=models.SET_NULL, null=True, blank=True, related_name="payments")
    kind = models.CharField(max_length=10, choices=PaymentKind)
    amount_minor = models.PositiveIntegerField()
    currency = models.CharField(max_length=3, choices=Currency)
    state = models.CharField(max_length=9, choices=PaymentState, default=PaymentState.DUE)
    key = models.CharField("idempotency key", max_length=64, unique=True, editable=False)
    ordered = models.BooleanField(default=False, help_text="Somebody has asked for it to be sent.")
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    due_at = models.DateTimeField()
    sending_at = models.DateTimeField(null=True, blank=True)
    claim = models.CharField(max_length=32, blank=True, default="", editable=False)
    called_at = models.DateTimeField(
        null=True, blank=True, help_text="Set just before the request that pays: from here on only the platform knows."
    )
    settled_at = models.DateTimeField(null=True, blank=True)
    reference = models.CharField(max_length=120, blank=True, default="", help_text="The platform's, or a curator's.")
    note = models.TextField(blank=True, default="")
    score = models.FloatField(null=True, blank=True, help_text="Of a bonus: the share of the most, 0 to 1.")
    images = models.PositiveIntegerField(default=0, help_text="Of a bonus: how many images it was worked out on.")

    class Meta:
        ordering = ("pk",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "kind"], name="payment_once_per_session_and_kind"),
            models.UniqueConstraint(
                fields=["arrival", "kind"],
                condition=Q(arrival__isnull=False),
                name="payment_once_per_submission_and_kind",
            ),
            models.CheckConstraint(
                condition=~Q(state=PaymentState.PAID) | Q(settled_at__isnull=False), name="payment_paid_has_time"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=[PaymentState.SENDING, PaymentState.UNKNOWN]) | Q(sending_at__isnull=False),
                name="payment_sending_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=[PaymentState.SENDING, PaymentState.UNKNOWN]) | Q(amount_minor__gt=0),
                name="payment_sent_has_amount",
            ),
            models.CheckConstraint(
                condition=Q(score__isnull=True) | Q(score__gte=0, score__lte=1), name="payment_score_0_to_1"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["study", "state"], name="payment_by_study_state")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.session}"
