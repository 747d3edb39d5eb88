"""Releases: immutable, versioned, hashed."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class Release(models.Model):
    """The soft labels of a study by one recipe, as of the moment that they were asked for.

    It is ready once `ready_at` is set; until then its job tells how far it is, or why it failed.
    """

    study = models.ForeignKey("annotations.Study", on_delete=models.PROTECT, related_name="releases")
    version = models.PositiveIntegerField()
    recipe = models.JSONField()
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    requested_at = models.DateTimeField()
    ready_at = models.DateTimeField(null=True)
    # Under RELEASES_ROOT: the folder of the attempt that is the release, or that alone may become it. Empty before the
    # first attempt, and where the files lie in RELEASES_ROOT itself, as they once did.
    folder = models.CharField(max_length=60, blank=True, default="")
    manifest = models.JSONField(default=dict)
    digest = models.CharField(max_length=64, blank=True, default="")
    zip_sha256 = models.CharField(max_length=64, blank=True, default="")
    zip_bytes = models.PositiveBigIntegerField(default=0)
    superseded_at = models.DateTimeField(null=True)
    superseded_by = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="supersedes")
    superseded_reason = models.CharField(max_length=200, blank=True, default="")
    withheld = models.BooleanField(default=False, help_text="Not given out any more: it held erased answers.")

    class Meta:
        ordering = ("-requested_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "version"], name="release_version_once_per_study"),
            models.CheckConstraint(condition=Q(ready_at__isnull=True) | ~Q(digest=""), name="release_ready_has_digest"),
            models.CheckConstraint(
                condition=Q(superseded_at__isnull=True, superseded_by__isnull=True, withheld=False)
                | (Q(superseded_at__isnull=False) & ~Q(superseded_reason="")),
                name="release_superseded_for_a_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.study} v{self.version}"

    @property
    def is_ready(self) -> bool:
        return self.ready_at is not None

    @property
    def name(self) -> str:
        """The folder and file name: `study-slug-v3`."""
        return f"{self.study.slug}-v{self.version}"


class TrainingRun(models.Model):
    """Networks trained on a release's labels, and on others beside them, by `python -m training compare`.

    It is over once `finished_at`, `cancelled_at` or `withheld_reason` is set; until then its job tells how far it is,
    or why it failed.
    """

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="training_runs")
    others = models.ManyToManyField(Release, related_name="compared_in", blank=True)
    label_sets = models.JSONField(help_text="Names, as training.label_sets reads them.")
    annotators = models.CharField(max_length=60, default="all")
    seeds = models.PositiveSmallIntegerField(default=5)
    network = models.CharField(max_length=20, default="small")
    epochs = models.PositiveIntegerField(default=40)
    holdout = models.FloatField(default=0.3)
    use_reference = models.BooleanField(default=False, help_text="The dataset's own distributions judge.")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    requested_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)
    cancelled_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    withheld_reason = models.CharField(max_length=200, blank=True, default="")
    # What its page shows of the report: see `exports.training.summary_of`.
    summary = models.JSONField(default=dict)

    class Meta:
        ordering = ("-requested_at",)
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(seeds__gte=1, epochs__gte=1), name="training_run_trains"),
            models.CheckConstraint(condition=Q(holdout__gt=0, holdout__lt=1), name="training_run_holds_some_out"),
            models.CheckConstraint(
                condition=Q(finished_at__isnull=True) | Q(cancelled_at__isnull=True), name="training_run_ends_once"
            ),
            models.CheckConstraint(
                condition=Q(withheld_reason="") | Q(summary={}), name="training_run_withheld_tells_nothing"
            ),
        ]

    def __str__(self) -> str:
        return f"Training {self.pk} on {self.release}"

    @property
    def study_id(self) -> int:
        """The study that the audit log shows it under."""
        return self.release.study_id
