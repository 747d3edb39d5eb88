"""The people of a study and, for whoever may see them, the ids that their platform gave."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from annotations import audit
from annotations.models import Participant, Study

SEE_IDS = "annotations.view_platform_id"


class FindForm(forms.Form):
    platform_id = forms.CharField(
        label="Platform id",
        max_length=120,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


@admin.register(Participant)
class ParticipantAdmin(admin.ModelAdmin[Participant]):
    """The only place that shows a platform's id, for whoever pays. Each look is noted in the audit log."""

    list_display = ("annotator", "study", "known_to_a_platform", "created_at")
    list_filter = ("study",)
    list_select_related = ("study",)
    search_fields = ("annotator",)
    show_full_result_count = False
    change_list_template = "admin/annotations/participant/change_list.html"

    def get_fields(self, request: HttpRequest, obj: Participant | None = None) -> Any:
        ids = ("platform_id",) if request.user.has_perm(SEE_IDS) else ()
        return ("annotator", *ids, "study", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Participant | None = None) -> Any:
        return self.get_fields(request, obj)

    def get_urls(self) -> list[URLPattern]:
        find = self.admin_site.admin_view(require_POST(self.find))
        return [path("find/", find, name="annotations_participant_find"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().change_view(request, object_id, form_url, extra_context)
        if request.method == "GET" and response.status_code == 200 and request.user.has_perm(SEE_IDS):
            participant = self.get_object(request, object_id)
            if participant is not None and participant.platform_id_sealed:
                audit.record("saw a platform id", participant, study=participant.study_id)
        return response

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        form = FindForm() if request.user.has_perm(SEE_IDS) else None
        return super().changelist_view(request, {"title": "Participants", "find": form, **(extra_context or {})})

    def find(self, request: HttpRequest) -> HttpResponse:
        """The person behind an id that a platform names. By POST: an id in an address would end up in logs."""
        if not request.user.has_perm(SEE_IDS):
            raise PermissionDenied
        form = FindForm(request.POST)
        found = list(self._known(form.cleaned_data["platform_id"])) if form.is_valid() else []
        audit.record("looked for a platform id", None, details={"found": len(found)})
        if len(found) == 1:
            return redirect("admin:annotations_participant_change", found[0].pk)
        for participant in found:
            messages.info(request, f"{participant.study}: {participant.annotator}")
        if not found:
            messages.warning(request, "Nobody has this id. Ids are compared to the letter.")
        return redirect("admin:annotations_participant_changelist")

    def _known(self, platform_id: str) -> QuerySet[Participant]:
        keys = [
            key
            for study in Study.objects.values_list("pk", flat=True)
            for key in Participant.platform_keys(study, platform_id)
        ]
        return Participant.objects.filter(platform_id_key__in=keys).select_related("study")

    @admin.display(description="platform id", boolean=True)
    def known_to_a_platform(self, participant: Participant) -> bool:
        return bool(participant.platform_id_sealed)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False
