from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join
from django.views.decorators.csrf import csrf_exempt

from annotations import pages, selectors
from annotations.admin.arms import ArmsPage
from annotations.admin.builder import Builder
from annotations.admin.choosing import FIELDS as CHOICE_FIELDS
from annotations.admin.choosing import WAYS, ImageChoiceForm, ImagesPage
from annotations.admin.dashboard import DashboardPage
from annotations.admin.people import PeoplePage
from annotations.admin.planner import PlannerPage
from annotations.admin.quality import QualityPage
from annotations.admin.retention import RetentionPage
from annotations.admin.study_pages import StudyPage
from annotations.models import Dataset, Study, StudyStatus
from annotations.presets import PRESETS
from annotations.return_links import return_url_problem
from annotations.selectors.versions import differences
from annotations.services import choosing, studies, versions
from annotations.services.pictures import store_picture
from annotations.texts import picture_problems, uploaded_pictures
from elicit.labels.errors import Refusal

HASH = re.compile(r"[0-9a-f]{64}")
SPDX = re.compile(r"[A-Za-z0-9.+-]+")
ASKING = (
    "framing",
    "input_mode",
    "most_named",
    "sum_limit",
    "ask_impossible",
    "impossible_shortcut",
    "shuffle_categories",
    "image_scale",
    "break_every",
)
PROTOCOL = (
    "assignment",
    "images_per_session",
    "labels_per_image",
    "least_labels",
    "settled_within",
    "budget_labels",
    "repeats_per_session",
    "repeat_distance",
    "idle_minutes",
)
WORDS = ("language", "time_estimate", "pay_note", "consent_text", "instructions")
END = ("completion_code", "screenout_code", "return_url")
CARD = ("licence", "recruitment", "demographics")
PICTURES = (
    "Markdown. A picture: ![what it shows](image:12) for image 12 of the dataset, or one that you upload under "
    "“Pictures for the texts” above."
)


# The tabs beside a study's settings, in this order.
STUDY_PAGES: tuple[type[StudyPage], ...] = (
    DashboardPage,
    QualityPage,
    ImagesPage,
    PeoplePage,
    PlannerPage,
    RetentionPage,
    ArmsPage,
)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else "none"


class NewStudyForm(ImageChoiceForm, forms.ModelForm[Study]):
    """Name, dataset, preset and images: the rest comes from the preset and can be changed before the launch."""

    preset_key = forms.ChoiceField(
        label="preset",
        choices=[(p.key, p.name) for p in PRESETS.values()],
        help_text=format_html_join("", "<p><b>{}.</b> {}</p>", ((p.name, p.summary) for p in PRESETS.values())),
    )

    class Meta:
        model = Study
        fields = ("name", "dataset", "language")
        help_texts = {"language": "The preset’s texts come in it too; those that you write stay as you write them."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = Dataset.objects.filter(ready_at__isnull=False)  # type: ignore[attr-defined]
        self.fields["images_by"].choices = [("", "as the preset says"), *WAYS]  # type: ignore[attr-defined]
        self.fields["images_by"].initial = ""

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        preset = PRESETS.get(data.get("preset_key", ""))
        if preset and preset.images and not data.get("images_by") and data.get("batch_file") is None:
            data |= {"images_by": "random", "how_many": preset.images}
        if data.get("dataset"):
            self.draw(data["dataset"])
        return data

    def save(self, commit: bool = True) -> Study:
        """Through the services, with or without `commit`: a study is more than one row."""
        data = self.cleaned_data
        with transaction.atomic():
            preset = PRESETS[data["preset_key"]]
            study = studies.create_study(
                name=data["name"], dataset=data["dataset"], preset=preset.in_language(data["language"])
            )
            self.apply(study)
            choosing.choose_practice(study, preset.practice, np.random.default_rng([self.seed_used, 2]))
        return study

    def save_m2m(self) -> None:
        """Nothing to save: the admin asks for it."""


class DraftForm(forms.ModelForm[Study]):
    """All settings of a draft, and the consent text, which gets a new version when it changes."""

    consent_text = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 10, "class": "vLargeTextField"}), help_text=PICTURES
    )
    return_url = forms.URLField(
        label="link back",
        required=False,
        assume_scheme="https",
        widget=forms.URLInput(attrs={"class": "vTextField"}),
        help_text=Study._meta.get_field("return_url").help_text,
    )

    class Meta:
        model = Study
        fields = ("name", "slug", *PROTOCOL, *ASKING, *[word for word in WORDS if word != "consent_text"], *END, *CARD)
        help_texts = {"instructions": PICTURES}
        widgets = {
            "instructions": forms.Textarea(attrs={"rows": 14, "class": "vLargeTextField"}),
            "recruitment": forms.Textarea(attrs={"rows": 4, "class": "vLargeTextField"}),
            "demographics": forms.Textarea(attrs={"rows": 4, "class": "vLargeTextField"}),
            **{name: forms.TextInput(attrs={"class": "vTextField"}) for name in ("name", "slug", "pay_note")},
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        consent = selectors.current_consent(self.instance)
        self.fields["consent_text"].initial = consent.text if consent else ""

    def clean_consent_text(self) -> str:
        return self._with_pictures_that_show("consent_text")

    def clean_instructions(self) -> str:
        return self._with_pictures_that_show("instructions")

    def _with_pictures_that_show(self, field: str) -> str:
        text = str(self.cleaned_data[field])
        if problems := picture_problems(text, self.instance):
            raise ValidationError(problems)
        return text

    def clean_return_url(self) -> str:
        url = str(self.cleaned_data["return_url"])
        if url and (problem := return_url_problem(url)):
            raise ValidationError(problem)
        return url

    def clean_licence(self) -> str:
        licence = str(self.cleaned_data["licence"])
        if licence and not SPDX.fullmatch(licence):
            raise ValidationError("Write an SPDX identifier, such as CC-BY-4.0: letters, digits, dots and hyphens.")
        return licence

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        images, repeats = data.get("images_per_session"), data.get("repeats_per_session")
        if images is not None and repeats is not None and repeats > images:
            raise ValidationError({"repeats_per_session": "A session can't repeat more images than it has."})
        return data


class PictureForm(forms.Form):
    """`picture` becomes the hash under which it is kept."""

    picture = forms.FileField(
        help_text="PNG, JPEG, WebP or GIF, up to 5 MB. Shown in its own size, or smaller where there is less room."
    )

    def clean_picture(self) -> str:
        file = self.cleaned_data["picture"]
        return store_picture(file, file.size)


@admin.register(Study)
class StudyAdmin(admin.ModelAdmin[Study]):
    """Make a study from a preset, launch it, watch it, and ask for its release."""

    list_display = ("name", "status", "link", "labels", "completed", "created_at")
    list_filter = ("status",)
    add_form_template = "admin/annotations/study/add_form.html"
    change_form_template = "admin/annotations/study/change_form.html"

    @property
    def pages(self) -> list[StudyPage]:
        return [page(self.admin_site) for page in STUDY_PAGES]

    @admin.display(description="link")
    def link(self, study: Study) -> str:
        return reverse("study", args=[study.slug])

    @admin.display(description="labels")
    def labels(self, study: Study) -> str:
        return selectors.study_progress(study).words

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
            return [
                (None, {"fields": ("name", "dataset", "preset_key", "language")}),
                ("Images", {"fields": CHOICE_FIELDS}),
            ]
        may = self.has_change_permission(request, obj)
        words = WORDS if may else [word for word in WORDS if word != "consent_text"]
        return [
            (None, {"fields": ("name", "slug")}),
            ("Protocol", {"fields": PROTOCOL}),
            ("What is asked", {"fields": ASKING}),
            ("What annotators read", {"fields": words}),
            ("At the end", {"fields": END}),
            ("What releases say of the study", {"fields": CARD}),
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
            dealt_anew = {"images_per_session", "assignment"} & set(form.changed_data)
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
            "launch": lambda pk: studies.ask_for_launch(pk, np.random.default_rng()),
            "pause": studies.pause,
            "resume": studies.resume,
            "close": studies.close,
        }
        copies: dict[str, Callable[[int], Study]] = {"clone": versions.clone, "version": versions.new_version}
        return [
            path(
                f"<int:pk>/{name}/",
                self.admin_site.admin_view(self._mover(move)),
                name=f"annotations_study_{name}",
            )
            for name, move in moves.items()
        ] + [
            *(
                path(
                    f"<int:pk>/{name}/",
                    self.admin_site.admin_view(self._copier(copy)),
                    name=f"annotations_study_{name}",
                )
                for name, copy in copies.items()
            ),
            *Builder(self.admin_site, self.log_change).urls,
            *(url for page in self.pages for url in page.urls),
            path(
                "<int:pk>/pictures/",
                self.admin_site.admin_view(self.pictures),
                name="annotations_study_pictures",
            ),
            path(
                "<int:pk>/preview/trial/<uuid:trial>/",
                # Nothing is written, so that nobody gains from having it sent.
                self.admin_site.admin_view(csrf_exempt(self.preview_answer)),
                name="annotations_study_preview_answer",
            ),
            path(
                "<int:pk>/preview/<str:step>/",
                self.admin_site.admin_view(self.preview),
                name="annotations_study_preview",
            ),
            *super().get_urls(),
        ]

    def preview(self, request: HttpRequest, pk: int, step: str) -> HttpResponse:
        """A page of the study as its annotators see it."""
        study = self._viewable(request, pk)
        if step not in pages.PREVIEWS:
            raise Http404
        shown = [each for each in pages.PREVIEWS if getattr(study, each, True)]
        following = [*shown[shown.index(step) + 1 :], step][0] if step in shown else step
        address = reverse("admin:annotations_study_preview", args=[pk, following])
        if request.method == "POST":
            return redirect(address)
        if step != "trial":
            return pages.preview(request, study, step, address)
        if arm := study.arms.filter(name=request.GET.get("arm", "")).first():
            arm.dress(study)
        here = reverse("admin:annotations_study_preview_answer", args=[pk, uuid.UUID(int=0)])
        api = here.replace(str(uuid.UUID(int=0)), "{trial}") + "?response={response}"
        return pages.preview_trials(request, study, api, address)

    def preview_answer(self, request: HttpRequest, pk: int, trial: uuid.UUID) -> HttpResponse:
        """Take an answer that a preview sends as the API would, and forget it."""
        self._viewable(request, pk)
        if request.method != "PUT":
            return HttpResponseNotAllowed(["PUT"])
        said = {"id": request.GET.get("response", ""), "trial": str(trial), "feedback": None}
        return JsonResponse({**said, "done": 0, "total": 0, "next": None})

    def pictures(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Upload pictures for the study's texts, and see how they are written there."""
        study = self._viewable(request, pk)
        may = self.has_change_permission(request, study)
        if request.method == "POST" and not may:
            raise PermissionDenied
        form = PictureForm(request.POST or None, request.FILES or None)
        if form.is_bound and form.is_valid():
            self.log_change(request, study, "picture uploaded")
            here = reverse("admin:annotations_study_pictures", args=[pk])
            return redirect(f"{here}?{urlencode({'new': form.cleaned_data['picture']})}")
        new = request.GET.get("new", "")
        used = [source.removeprefix("picture:") for source in uploaded_pictures(study)]
        context = {
            **self.admin_site.each_context(request),
            "title": f"Pictures: {study.name}",
            "opts": self.model._meta,
            "study": study,
            "form": form if may else None,
            "pictures": [each for each in dict.fromkeys([new, *used]) if HASH.fullmatch(each)],
        }
        return render(request, "admin/annotations/study/pictures.html", context, status=422 if form.errors else 200)

    def _viewable(self, request: HttpRequest, pk: int) -> Study:
        study = get_object_or_404(Study.objects.select_related("dataset"), pk=pk)
        if not self.has_view_permission(request, study):
            raise PermissionDenied
        return study

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
                if moved.status == study.status:
                    self.log_change(request, study, "launch asked for")
                    messages.success(request, "A worker makes the study's places and then launches it.")
                    return redirect("admin:annotations_study_change", pk)
                self.log_change(request, study, f"{study.get_status_display()} -> {moved.get_status_display()}")
                messages.success(request, f"The study is {moved.get_status_display()} now.")
            return redirect("admin:annotations_study_change", pk)

        return view

    def _copier(self, copy: Callable[[int], Study]) -> Callable[[HttpRequest, int], HttpResponse]:
        def view(request: HttpRequest, pk: int) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            study = get_object_or_404(Study, pk=pk)
            if not (self.has_add_permission(request) and self.has_view_permission(request, study)):
                raise PermissionDenied
            try:
                made = copy(pk)
            except Refusal as error:
                messages.error(request, error.message)
                return redirect("admin:annotations_study_change", pk)
            self.log_addition(request, made, f"copied from {study.slug}")
            messages.success(request, "A draft with the same settings, texts and images. Change what you like.")
            return redirect("admin:annotations_study_change", made.pk)

        return view

    def _parts(self, study: Study) -> list[dict[str, Any]]:
        """What annotators go through, in order: each step's name, how much there is of it, and where to change and see
        it."""
        consent = selectors.current_consent(study)
        steps = (
            ("Consent", "consent", f"version {consent.version}" if consent else "missing", ""),
            ("Instructions", "instructions", "" if study.instructions.strip() else "missing", ""),
            ("Practice", "", _count(len(study.practice), "image"), "practice"),
            ("Comprehension check", "comprehension", _count(len(study.comprehension), "question"), "comprehension"),
            ("Trials", "trial", _count(selectors.trials_in_session(study), "trial"), ""),
            ("Questionnaire", "questionnaire", _count(len(study.questionnaire), "question"), "questionnaire"),
            ("Thanks", "done", study.completion_code, ""),
        )
        return [
            {
                "name": name,
                "amount": amount,
                "edit": reverse(f"admin:annotations_study_{part}", args=[study.pk]) if part else "",
                "preview": reverse("admin:annotations_study_preview", args=[study.pk, step])
                if step and getattr(study, step, True)
                else "",
            }
            for name, step, amount, part in steps
        ]

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
                "parts": self._parts(study),
                "may_edit": self.has_change_permission(request, study),
                "public_link": request.build_absolute_uri(reverse("study", args=[study.slug])),
                "study_progress": selectors.study_progress(study),
                "launching": study.status == StudyStatus.DRAFT and selectors.is_launching(study),
                "launch_problems": selectors.launch_problems(study) if study.status == StudyStatus.DRAFT else [],
                "launch_warnings": selectors.launch_warnings(study) if study.status == StudyStatus.DRAFT else [],
                "differences": differences(study.predecessor, study) if study.predecessor else [],
                "later_versions": study.successors.order_by("version"),
                "may_copy": request.user.has_perm("annotations.add_study"),
                "may_move": request.user.has_perm("annotations.change_study"),
                "may_release": request.user.has_perm("exports.add_release"),
                "recent_sessions": study.sessions.select_related("participant", "consistency").order_by("-seen_at")[
                    :10
                ],
            }
        return super().change_view(request, object_id, form_url, context)
