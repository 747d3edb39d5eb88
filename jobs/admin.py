from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from jobs import services
from jobs.models import Job, Status


@admin.register(Job)
class JobAdmin(admin.ModelAdmin[Job]):
    """What runs in the background, how far it is, and what went wrong."""

    list_display = ("kind", "subject", "status", "progress", "attempts", "created_at", "finished_at", "error")
    list_filter = ("status", "kind")
    actions = ("try_again",)
    show_full_result_count = False

    @admin.display(description="progress")
    def progress(self, job: Job) -> str:
        percent = "" if job.percent is None else f" {job.percent} %"
        return f"{job.stage}{percent}" if job.stage else "–"

    @admin.action(description="Try the failed ones again", permissions=["change"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        failed = queryset.filter(status=Status.FAILED)
        for job in failed:
            services.revive(job)
        self.message_user(request, f"{len(failed)} queued again.", messages.SUCCESS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Job | None = None) -> list[str]:
        return [field.name for field in Job._meta.fields]
