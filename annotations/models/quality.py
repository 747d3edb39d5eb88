"""What the workers found out about a session."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from annotations.models.participation import ExclusionReason, Session
from annotations.models.responses import Trial
from annotations.models.studies import Study
from elicit.labels import quality
from elicit.labels.consistency import Verdict
from elicit.labels.quality import ABOUT, Measure

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


class CheckOutcome(models.Model):
    """What became of an attention check or a gold image: its trial's current answer, judged by the study's item."""

    trial = models.OneToOneField(Trial, on_delete=models.CASCADE, related_name="outcome")
    passed = models.BooleanField()
    distance = models.FloatField(null=True, help_text="Total variation from the target, 0..1; empty without one.")

    class Meta:
        ordering = ("trial",)

    def __str__(self) -> str:
        return "passed" if self.passed else "failed"


class QualityRule(models.Model):
    """A sentence about one measure. A session that breaks it is flagged; only a curator excludes."""

    copied_with_study = True

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="quality_rules")
    measure = models.CharField(max_length=20, choices=[(each.value, ABOUT[each].title) for each in Measure])
    at_least = models.BooleanField(
        "which way", default=True, choices=[(True, "at least"), (False, "at most")], help_text="What breaks the rule."
    )
    threshold = models.FloatField()
    least = models.PositiveSmallIntegerField(
        "out of at least", default=1, validators=[MinValueValidator(1)], help_text="With fewer nothing is said."
    )
    reason = models.CharField(
        max_length=13,
        choices=ExclusionReason,
        default=ExclusionReason.INATTENTIVE,
        help_text="What an exclusion by this rule is called in releases.",
    )

    class Meta:
        ordering = ("study", "pk")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "measure", "at_least"], name="rule_once_per_measure"),
            models.CheckConstraint(condition=Q(least__gte=1), name="rule_needs_an_observation"),
        ]

    def __str__(self) -> str:
        return self.rule.says

    @property
    def rule(self) -> quality.Rule:
        return quality.Rule(Measure(self.measure), self.threshold, self.at_least, self.least)


class SessionQuality(models.Model):
    """A completed session's measures, and which of its study's rules they break.

    `measures`: {measure: [value, how many observations it rests on]}; one that is not known is left out.
    """

    session = models.OneToOneField(Session, on_delete=models.CASCADE, related_name="quality")
    measures = models.JSONField(default=dict)
    breaks = models.ManyToManyField(QualityRule, related_name="broken_by", blank=True)
    version = models.PositiveSmallIntegerField()
    computed_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "session qualities"
        ordering = ("session",)

    def __str__(self) -> str:
        return f"measures of {self.session_id}"


class AppealOutcome(models.TextChoices):
    OPEN = "", "not decided yet"
    STANDS = "stands", "the exclusion stands"
    TAKEN_BACK = "taken_back", "taken back in"
    PAID = "paid", "left out, and paid all the same"


class Appeal(models.Model):
    """What somebody said against the exclusion of their session, as a curator noted it, and what came of it."""

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="appeals")
    text = models.TextField()
    written_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    written_at = models.DateTimeField()
    outcome = models.CharField(max_length=10, choices=AppealOutcome, blank=True, default=AppealOutcome.OPEN)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("written_at",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(outcome="", decided_at__isnull=True) | (~Q(outcome="") & Q(decided_at__isnull=False)),
                name="appeal_decided_has_time",
            ),
        ]

    def __str__(self) -> str:
        return self.get_outcome_display()
