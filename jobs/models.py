"""The queue. A job is a row: the Celery message that rings for it may be lost without losing the work."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


class Status(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    DONE = "done", "done"
    FAILED = "failed", "failed"


UNFINISHED = (Status.QUEUED, Status.RUNNING)


class Job(models.Model):
    """One piece of background work.

    `kind` names the Celery task that does it. `subject` names the row that it is about; no two unfinished jobs of
    one kind share a subject, so asking twice queues once.
    """

    kind = models.CharField(max_length=60)
    subject = models.CharField(max_length=60)
    status = models.CharField(max_length=8, choices=Status, default=Status.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    most_attempts = models.PositiveSmallIntegerField(default=5)
    due_at = models.DateTimeField()
    rung_at = models.DateTimeField(null=True, blank=True)
    owner = models.CharField(max_length=32, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    stage = models.CharField(max_length=60, blank=True, default="")
    stage_at = models.DateTimeField(null=True, blank=True, help_text="When it came to this stage.")
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=Q(status__in=[Status.QUEUED, Status.RUNNING]),
                name="job_unfinished_once_per_subject",
            ),
            models.CheckConstraint(
                condition=~Q(status=Status.RUNNING) | Q(lease_until__isnull=False),
                name="job_running_has_lease",
            ),
        ]
        indexes: ClassVar = [
            # What the sweep reads every few seconds: the unfinished jobs, a handful among millions.
            models.Index(
                fields=["due_at"],
                condition=Q(status__in=[Status.QUEUED, Status.RUNNING]),
                name="job_unfinished",
            ),
            # What the dashboards and `/metrics` read.
            models.Index(fields=["finished_at"], condition=Q(status=Status.FAILED), name="job_failed"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} ({self.status})"

    @property
    def percent(self) -> int | None:
        """How far the current stage has come, 0..100; None while that is unknown."""
        return round(100 * self.done / self.total) if self.total else None
