from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse

from annotations import selectors
from annotations.models import Dataset, Study, StudyStatus
from annotations.presets import PRESETS
from annotations.services import studies
from elicit.labels.errors import Refusal

LARGEST_BATCH_FILE = 5 << 20
ASKING = ("framing", "most_named", "sum_limit", "ask_impossible", "shuffle_categories", "image_scale")
PROTOCOL = (
    "labels_per_image",
    "images_per_session",
    "repeats_per_session",
    "repeat_distance",
    "idle_minutes",
)
WORDS = ("consent_text", "instructions", "time_estimate", "pay_note", "questionnaire", "completion_code")


class NewStudyForm(forms.ModelForm[Study]):
    """Name, dataset and preset: the rest comes from the preset and can be changed before the launch."""

    preset_key = forms.ChoiceField(label="preset", choices=[(p.key, p.name) for p in PRESETS.values()])
    batch_file = forms.FileField(
        label="batches",
        required=False,
        help_text="JSON: batch number → image indices. Empty: all images of the dataset, dealt at random.",
    )

    class Meta:
        model = Study
        fields = ("name", "dataset")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = Dataset.objects.filter(ready_at__isnull=False)  # type: ignore[attr-defined]

    def clean_batch_file(self) -> list[list[int]] | None:
        file = self.cleaned_data["batch_file"]
        if not file:
            return None
        if file.size > LARGEST_BATCH_FILE:
            raise ValidationError("The file is larger than 5 MB.")
        try:
            return studies.parse_batches(file.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValidationError("The file is not text in UTF-8.") from error

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("dataset") and data.get("batch_file") is not None:
            try:
                studies.known_images(data["dataset"], data["batch_file"])
            except ValidationError as error:
                self.add_error("batch_file", error)
        return data

    def save(self, commit: bool = True) -> Study:
        """Through the services, with or without `commit`: a study is more than one row."""
        data = self.cleaned_data
        with transaction.atomic():
            study = studies.create_study(name=data["name"], dataset=data["dataset"], preset=PRESETS[data["preset_key"]])
            if data["batch_file"] is not None:
                studies.choose_batches(study, data["batch_file"])
            else:
                studies.choose_images(study, None, np.random.default_rng())
        return study

    def save_m2m(self) -> None:
        """Nothing to save: the admin asks for it."""


class DraftForm(forms.ModelForm[Study]):
    """All settings of a draft, and the consent text, which gets a new version when it changes."""

    consent_text = forms.CharField(widget=forms.Textarea(attrs={"rows": 10, "class": "vLargeTextField"}))

    class Meta:
        model = Study
        fields = ("name", "slug", *PROTOCOL, *ASKING, *[word for word in WORDS if word != "consent_text"])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        consent = selectors.current_consent(self.instance)
        self.fields["consent_text"].initial = consent.text if consent else ""

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        images, repeats = data.get("images_per_session"), data.get("repeats_per_session")
        if images is not None and repeats is not None and repeats > images:
            raise ValidationError({"repeats_per_session": "A session can't repeat more images than it has."})
        return data


@admin.register(Study)
class StudyAdmin(admin.ModelAdmin[Study]):
    """Make a study from a preset, launch it, watch it, and ask for its release."""

    list_display = ("name", "status", "link", "labels", "completed", "created_at")
    list_filter = ("status",)
    change_form_template = "admin/annotations/study/change_form.html"

    @admin.display(description="link")
    def link(self, study: Study) -> str:
        return reverse("study", args=[study.slug])

    @admin.display(description="labels")
    def labels(self, study: Study) -> str:
        progress = selectors.study_progress(study)
        return f"{progress.labels:,} of {progress.labels_wanted:,} ({progress.percent} %)"

    @admin.display(description="completed sessions")
    def completed(self, study: Study) -> int:
        return study.sessions.filter(status="completed").count()

    def get_form(self, request: HttpRequest, obj: Study | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            return NewStudyForm
        if self.has_change_permission(request, obj):
            return DraftForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Study | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("name", "dataset", "preset_key", "batch_file")})]
        words = WORDS if self.has_change_permission(request, obj) else WORDS[1:]
        return [
            (None, {"fields": ("name", "slug")}),
            ("Protocol", {"fields": PROTOCOL}),
            ("What is asked", {"fields": ASKING}),
            ("What annotators read", {"fields": words}),
        ]

    def has_change_permission(self, request: HttpRequest, obj: Study | None = None) -> bool:
        """Settings are fixed from the launch on."""
        return super().has_change_permission(request, obj) and (obj is None or obj.status == StudyStatus.DRAFT)

    def has_delete_permission(self, request: HttpRequest, obj: Study | None = None) -> bool:
        return super().has_delete_permission(request, obj) and obj is not None and obj.status == StudyStatus.DRAFT

    def save_model(self, request: HttpRequest, obj: Study, form: Any, change: bool) -> None:
        if not change:
            return  # NewStudyForm.save() went through the service.
        with transaction.atomic():
            dealt_anew = "images_per_session" in form.changed_data
            super().save_model(request, obj, form, change)
            studies.add_consent(obj, form.cleaned_data["consent_text"])
            if dealt_anew:
                indices = obj.study_images.values_list("image__index", flat=True)
                studies.choose_images(obj, list(indices), np.random.default_rng())

    def response_post_save_add(self, request: HttpRequest, obj: Study) -> HttpResponseRedirect:
        """To the study's own page, where its settings and its launch are."""
        return HttpResponseRedirect(reverse("admin:annotations_study_change", args=[obj.pk]))

    def get_urls(self) -> list[URLPattern]:
        moves: dict[str, Callable[[int], Study]] = {
            "launch": lambda pk: studies.launch(pk, np.random.default_rng()),
            "pause": studies.pause,
            "resume": studies.resume,
            "close": studies.close,
        }
        return [
            path(
                f"<int:pk>/{name}/",
                self.admin_site.admin_view(self._mover(move)),
                name=f"annotations_study_{name}",
            )
            for name, move in moves.items()
        ] + super().get_urls()

    def _mover(self, move: Callable[[int], Study]) -> Callable[[HttpRequest, int], HttpResponse]:
        def view(request: HttpRequest, pk: int) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            if not request.user.has_perm("annotations.change_study"):
                raise PermissionDenied
            study = get_object_or_404(Study, pk=pk)
            try:
                moved = move(pk)
            except Refusal as error:
                messages.error(request, error.message)
            else:
                self.log_change(request, study, f"{study.get_status_display()} -> {moved.get_status_display()}")
                messages.success(request, f"The study is {moved.get_status_display()} now.")
            return redirect("admin:annotations_study_change", pk)

        return view

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        study = self.get_object(request, object_id)
        context = dict(extra_context or {})
        if study is not None:
            context |= {
                "study": study,
                "public_link": request.build_absolute_uri(reverse("study", args=[study.slug])),
                "study_progress": selectors.study_progress(study),
                "launch_problems": selectors.launch_problems(study) if study.status == StudyStatus.DRAFT else [],
                "may_move": request.user.has_perm("annotations.change_study"),
                "may_release": request.user.has_perm("exports.add_release"),
                "recent_sessions": study.sessions.select_related("participant", "consistency").order_by("-seen_at")[
                    :10
                ],
            }
        return super().change_view(request, object_id, form_url, context)
