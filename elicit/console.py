"""What the console has beside the apps' own pages: its sign-in, the people with access, and the audit log."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from auditlog.models import LogEntry
from django.contrib import admin
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.views.decorators.http import require_safe

from annotations.models import Study
from elicit.models import Authenticator
from elicit.roles import ROLES
from elicit.signing_in import SignIn, StaffPasswordForm

# Of one value in the log's list; the entry's own page shows all of it.
MOST_LETTERS = 90


def sign_in(request: HttpRequest) -> HttpResponseBase:
    """The console's sign-in: the same steps, for staff alone."""
    view = SignIn.as_view(
        template_name="admin/login.html",
        authentication_form=StaffPasswordForm,
        next_page="admin:index",
        extra_context={
            **admin.site.each_context(request),
            "title": "Log in",
            "subtitle": None,
            "app_path": request.get_full_path(),
            "username": request.user.get_username(),
        },
    )
    return view(request)


@require_safe
@permission_required("auth.view_user", raise_exception=True)
def _access(request: HttpRequest) -> HttpResponseBase:
    """Who may enter, as what, and what that means."""
    with_device = set(Authenticator.objects.filter(confirmed=True).values_list("user_id", flat=True))
    users = User.objects.order_by("-is_active", "username").prefetch_related("groups", "user_permissions")
    rows = [
        {
            "user": user,
            "roles": [group.name for group in user.groups.all()],
            "more": user.user_permissions.count() if user.user_permissions.all() else 0,
            "two_factor": user.pk in with_device,
        }
        for user in users
    ]
    context = {**admin.site.each_context(request), "title": "People with access", "rows": rows, "roles": ROLES}
    return render(request, "admin/access.html", context)


access = admin.site.admin_view(_access)


class StudyFilter(admin.SimpleListFilter):
    title = "study"
    parameter_name = "study"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(study.pk), study.name) for study in Study.objects.order_by("name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
        value = self.value()
        return queryset.filter(additional_data__study=int(value)) if value and value.isdigit() else queryset


class PersonFilter(admin.SimpleListFilter):
    title = "person"
    parameter_name = "person"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(pk), name) for pk, name in User.objects.order_by("username").values_list("pk", "username")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
        value = self.value()
        return queryset.filter(actor=int(value)) if value and value.isdigit() else queryset


DONE = {
    LogEntry.Action.CREATE: "made",
    LogEntry.Action.UPDATE: "changed",
    LogEntry.Action.DELETE: "deleted",
}


class AuditLog(admin.ModelAdmin[LogEntry]):
    """Who, when, and what changed. Nobody changes or deletes an entry here, superusers neither."""

    list_display = ("when", "who", "what", "changed")
    list_display_links = ("when",)
    list_filter = (StudyFilter, PersonFilter)
    list_select_related = ("actor", "content_type")
    date_hierarchy = "timestamp"
    search_fields = ("object_repr",)
    show_full_result_count = False
    fields = ("when", "who", "what", "all_changed")
    readonly_fields = fields
    actions = None

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Audit log", **(extra_context or {})})

    @admin.display(description="when", ordering="timestamp")
    def when(self, entry: LogEntry) -> str:
        return f"{entry.timestamp:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="who")
    def who(self, entry: LogEntry) -> str:
        return str((entry.additional_data or {}).get("by", "?"))

    @admin.display(description="what")
    def what(self, entry: LogEntry) -> str:
        if said := (entry.additional_data or {}).get("what"):
            return f"{said}: {entry.object_repr}" if entry.object_repr else said
        kind = entry.content_type.model_class()
        name = kind._meta.verbose_name if kind else entry.content_type.model
        return f"{DONE.get(entry.action, '')} {name} {Truncator(entry.object_repr).chars(MOST_LETTERS)}"

    @admin.display(description="what changed")
    def changed(self, entry: LogEntry) -> SafeString | str:
        return _changes(entry, MOST_LETTERS)

    @admin.display(description="what changed")
    def all_changed(self, entry: LogEntry) -> SafeString | str:
        return _changes(entry, None)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


def _changes(entry: LogEntry, most: int | None) -> SafeString | str:
    """In words. What was made or deleted is told by its name, unless all of it is asked for."""
    details = (entry.additional_data or {}).get("details") or {}
    if details:
        return ", ".join(f"{name}: {value}" for name, value in details.items())
    if most and entry.action != LogEntry.Action.UPDATE:
        return ""
    kind = entry.content_type.model_class()
    lines = []
    for name, change in sorted((entry.changes or {}).items()):
        if isinstance(change, dict):
            verb = "gained" if change.get("operation") == "add" else "lost"
            lines.append((_named(kind, name), f"{verb} {', '.join(map(str, change.get('objects', [])))}"))
            continue
        before, after = (_value(value, most) for value in change)
        lines.append((_named(kind, name), f"{before} → {after}" if entry.action == LogEntry.Action.UPDATE else after))
    if not lines:
        return ""
    return format_html("<ul>{}</ul>", format_html_join("", "<li><b>{}</b>: {}</li>", lines))


def _named(kind: Any, field: str) -> str:
    try:
        return str(kind._meta.get_field(field).verbose_name) if kind else field
    except (FieldDoesNotExist, AttributeError):
        return field


def _value(value: object, most: int | None) -> str:
    if value in (None, "None", ""):
        return "nothing"
    text = str(value)
    with suppress(ValueError):
        text = f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}" if "-" in text and ":" in text else text
    return Truncator(text).chars(most) if most else text


LogEntry._meta.verbose_name, LogEntry._meta.verbose_name_plural = "entry", "entries"
admin.site.unregister(LogEntry)
admin.site.register(LogEntry, AuditLog)
