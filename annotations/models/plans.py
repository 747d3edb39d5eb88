"""What a curator planned: labels per image, what they were to cost and how far they were to err."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from annotations.models.recruitment import Currency
from annotations.models.studies import Study
from elicit.labels.planning import MOST_LABELS


class SecondsFrom(models.TextChoices):
    STUDY = "study", "this study’s own answers so far"
    PUBLISHED = "published", "the published study (CIFAR-10S)"
    TYPED = "typed", "what I type"


class PlannedMetric(models.TextChoices):
    """The values are those of `elicit.labels.planning.Metric`."""

    TV = "tv", "total variation (0 to 1)"
    KL = "kl", "KL divergence (nats)"
    ENTROPY = "entropy", "correlation of entropies"


class Plan(models.Model):
    """The plan that was saved last. Its errors are kept as they were worked out, so that the study can be held to them.

    `curve`: `labels` and `errors`, lists of one length, and `low` and `high`, the same with null where unknown.
    """

    copied_with_study = True

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="plan")
    labels_per_image = models.PositiveSmallIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(MOST_LABELS)]
    )
    seconds_from = models.CharField(max_length=9, choices=SecondsFrom)
    seconds_per_response = models.FloatField()
    minutes_per_session = models.FloatField()
    pay_per_hour_minor = models.PositiveIntegerField()
    currency = models.CharField(max_length=3, choices=Currency)
    fee_share = models.FloatField()
    metric = models.CharField(max_length=7, choices=PlannedMetric)
    errors_from = models.CharField(
        max_length=11, help_text="Published figures by their name, or “pilot” for answers of our own."
    )
    pilot = models.ForeignKey(Study, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    curve = models.JSONField()
    saved_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(labels_per_image__range=(1, MOST_LABELS)), name="plan_labels_1_to_1000"),
            models.CheckConstraint(
                condition=Q(seconds_per_response__gt=0, minutes_per_session__gte=0), name="plan_takes_time"
            ),
            models.CheckConstraint(condition=Q(fee_share__gte=0, fee_share__lte=2), name="plan_fee_0_to_2"),
        ]

    def __str__(self) -> str:
        return f"plan of {self.study}"
