"""A study's tab about what it keeps of people, and until when."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from annotations.admin.study_pages import StudyPage
from annotations.models import Retention, Study
from annotations.selectors import retention as kept
from annotations.services import erasing


class RetentionForm(forms.ModelForm[Retention]):
    class Meta:
        model = Retention
        fields = ("ids_days", "answers_until")
        widgets = {"answers_until": forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")}


class RetentionPage(StudyPage):
    key = "privacy"
    title = "Privacy"
    template = "admin/annotations/study/privacy.html"
    permission = "annotations.view_retention"

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        found = kept.kept(study)
        log = reverse("admin:auditlog_logentry_changelist")
        return {
            "kept": found,
            "form": RetentionForm(instance=found.retention),
            "reminders": found.soon(timezone.now()),
            "history": f"{log}?study={study.pk}" if request.user.has_perm("auditlog.view_logentry") else "",
        }

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        form = RetentionForm(request.POST, instance=kept.of_study(study))
        if not form.is_valid():
            return self.render(request, study, {**self.context(request, study), "form": form}, status=422)
        erasing.set_retention(study, **form.cleaned_data)
        messages.success(request, "Stored.")
        return redirect(self.address(study))
