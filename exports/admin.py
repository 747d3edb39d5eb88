from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from annotations import selectors as annotated
from elicit.labels.errors import Refusal
from elicit.labels.release_files import Recipe
from elicit.labels.varieties import Depth, Redistribution
from exports import recipes, selectors, services, training_admin
from exports.models import Release, TrainingRun

DEPTHS = [
    (Depth.T2.value, "t2: the most likely category and one alternative (published)"),
    (Depth.T1.value, "t1: the most likely category"),
    (Depth.TALL.value, "tall: every category named"),
]
REDISTRIBUTIONS = [
    (Redistribution.CLAMP.value, "clamp: what is left goes to the categories not ruled out (published)"),
    (Redistribution.UNIFORM.value, "uniform: what is left goes to all unnamed categories"),
    (Redistribution.NONE.value, "none: the percentages are scaled to 100"),
]


OWN = "own"
LABELS = [
    ("recommended", "recommended: closest to what larger crowds say"),
    ("published", "published: t2-clamp, gamma 0.1, mean, as CIFAR-10S"),
    (OWN, "your own recipe, as set below, pooled by mean"),
]


class ReleaseRequestForm(forms.ModelForm[Release]):
    """The recipe of a release."""

    labels = forms.ChoiceField(choices=LABELS, initial="recommended")
    depth = forms.ChoiceField(choices=DEPTHS, required=False, help_text="For your own recipe only.")
    redistribution = forms.ChoiceField(choices=REDISTRIBUTIONS, required=False, help_text="For your own recipe only.")
    gamma = forms.FloatField(
        initial=0.1,
        min_value=0,
        max_value=1,
        required=False,
        help_text="For your own recipe only. With clamp: the share that unnamed categories get although the "
        "percentages add up to 100.",
    )
    include_repeats = forms.BooleanField(
        required=False, help_text="Average an annotator's repeats into their label of the image."
    )
    leave_out_inconsistent = forms.BooleanField(
        required=False, help_text="Leave out the sessions that their repeats call inconsistent."
    )
    framing = forms.ChoiceField(
        label="answers to",
        choices=[("others", "what 100 people would say"), ("self", "what the annotator sees")],
        required=False,
        help_text="Where the study asks both questions; elsewhere it makes no difference.",
    )

    arm = forms.ChoiceField(
        required=False, help_text="Where the study has arms: whose answers. Empty: those of all arms together."
    )

    class Meta:
        model = Release
        fields = ("study",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["study"].queryset = annotated.releasable_studies()  # type: ignore[attr-defined]
        arms = [(name, f"{name} ({', '.join(studies)})") for name, studies in annotated.arms_by_name().items()]
        self.fields["arm"].choices = [("", "all arms"), *arms]  # type: ignore[attr-defined]

    @property
    def recipe(self) -> Recipe:
        data = self.cleaned_data
        own = data["labels"] == OWN
        return recipes.recipe(
            f"{data['depth']}-{data['redistribution']}" if own else data["labels"],
            gamma=data["gamma"] if own else None,
            include_repeats=data["include_repeats"],
            leave_out_inconsistent=data["leave_out_inconsistent"],
            framing=data["framing"],
            arm=data["arm"],
        )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("labels") == OWN:
            for name in ("depth", "redistribution", "gamma"):
                if name not in self.errors and data.get(name) in (None, ""):
                    self.add_error(name, "This field is required for your own recipe.")
        if not self.errors:
            try:
                services.check_request(study_id=data["study"].pk, recipe=self.recipe)
            except Refusal as error:
                raise ValidationError(error.message) from error
        return data

    def save_with(self, user: Any) -> Release:
        return services.request_release(study_id=self.cleaned_data["study"].pk, recipe=self.recipe, user=user)

    def save(self, commit: bool = True) -> Release:
        """Left to `save_with`, which knows who asks."""
        return self.instance

    def save_m2m(self) -> None:
        """Nothing to save: the admin asks for it."""


@admin.register(Release)
class ReleaseAdmin(admin.ModelAdmin[Release]):
    """Ask for releases and see how far they are."""

    list_display = ("__str__", "variety", "state", "requested_at", "ready_at", "page")
    list_filter = ("study",)
    list_select_related = ("study",)
    change_form_template = "admin/exports/release/change_form.html"

    def get_form(self, request: HttpRequest, obj: Release | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else ReleaseRequestForm

    def get_fields(self, request: HttpRequest, obj: Release | None = None) -> Any:
        if obj is None:
            return (
                "study",
                "labels",
                "depth",
                "redistribution",
                "gamma",
                "include_repeats",
                "leave_out_inconsistent",
                "framing",
                "arm",
            )
        return (
            "state",
            "variety",
            "recipe",
            "requested_by",
            "requested_at",
            "ready_at",
            "digest",
            "superseded",
            "downloads",
            *(["training_runs"] if request.user.has_perm("exports.view_trainingrun") else []),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Release | None = None) -> Any:
        return self.get_fields(request, obj) if obj else ()

    def save_model(self, request: HttpRequest, obj: Release, form: Any, change: bool) -> None:
        made = form.save_with(request.user)
        # The admin goes on with `obj`: let it be the release that was made.
        obj.__dict__.update(made.__dict__)
        messages.info(request, "A worker builds the release; its page shows how far it is.")

    def response_post_save_add(self, request: HttpRequest, obj: Release) -> HttpResponseRedirect:
        """To the release's own page, which shows how far it is."""
        return HttpResponseRedirect(reverse("admin:exports_release_change", args=[obj.pk]))

    @admin.display(description="variety")
    def variety(self, release: Release) -> str:
        variety = Recipe.from_dict(release.recipe).variety
        return f"{variety.slug}, gamma {variety.gamma:g}"

    @admin.display(description="state")
    def state(self, release: Release) -> str:
        state = selectors.build_state(release)
        percent = "" if state.percent is None else f" {state.percent} %"
        superseded = "superseded" if release.superseded_at else ""
        return " ".join(
            filter(None, [state.status, state.stage and f"({state.stage}{percent})", state.error, superseded])
        )

    @admin.display(description="superseded")
    def superseded(self, release: Release) -> SafeString | str:
        if release.superseded_at is None:
            return "–"
        if release.superseded_by is None:
            return release.superseded_reason
        url = reverse("admin:exports_release_change", args=[release.superseded_by.pk])
        return format_html('{} By <a href="{}">{}</a>.', release.superseded_reason, url, release.superseded_by)

    @admin.display(description="page")
    def page(self, release: Release) -> SafeString:
        url = reverse("release", args=[release.study.slug, release.version])
        return format_html('<a href="{}">open</a>', url)

    @admin.display(description="training runs")
    def training_runs(self, release: Release) -> SafeString | str:
        found = selectors.training_runs_of(release)
        rows = (
            (reverse("admin:exports_trainingrun_change", args=[run.pk]), f"{run.requested_at:%Y-%m-%d %H:%M}")
            for run in found
        )
        return format_html_join(" · ", '<a href="{}">{}</a>', rows) or "–"

    @admin.display(description="downloads")
    def downloads(self, release: Release) -> SafeString | str:
        if not release.is_ready or release.withheld:
            return "–"
        names = ["release.zip", *selectors.file_names(release)]
        args = (release.study.slug, release.version)
        rows = ((reverse("release-file", args=[*args, name]), name) for name in names)
        return format_html_join(" · ", '<a href="{}">{}</a>', rows)

    def has_change_permission(self, request: HttpRequest, obj: Release | None = None) -> bool:
        """A release never changes."""
        return super().has_change_permission(request, obj) and obj is None

    def has_delete_permission(self, request: HttpRequest, obj: Release | None = None) -> bool:
        return False


admin.site.register(TrainingRun, training_admin.TrainingRunAdmin)
