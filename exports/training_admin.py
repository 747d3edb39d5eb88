"""The curator's pages of training runs: what has been trained, a form to ask for more, and one page for each run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils.cache import patch_cache_control
from django.utils.text import slugify

from annotations import selectors as annotated
from elicit.figures import DRAWING_POLICY
from elicit.labels.errors import Refusal
from exports import selectors, services, training_settings
from exports.models import Release, TrainingRun

# Seconds between two looks of an open page.
EVERY = 2
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
WORDS = {
    "waiting": "waiting for a worker",
    "training": "training",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "withheld": "removed",
}


class TrainingRequestForm(forms.Form):
    """What to train. ``release``: on whose labels."""

    label_sets = forms.MultipleChoiceField(
        label="Label sets", widget=forms.CheckboxSelectMultiple, required=False, help_text="What networks learn from."
    )
    more = forms.CharField(
        label="More label sets",
        required=False,
        max_length=300,
        help_text="By name, with commas: recommended:fixed keeps the archive’s class on top, t2-clamp@3 takes three "
        "people’s answers.",
    )
    others = forms.MultipleChoiceField(
        label="Compare with the labels of",
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=f"Releases of the same images, at most {training_settings.MOST_OTHERS}.",
    )
    annotators = forms.CharField(
        label="Annotators per image",
        max_length=60,
        help_text="Numbers with commas, such as 1,2,3,all: each label set that rests on people once for each of them.",
    )
    seeds = forms.IntegerField(
        min_value=1,
        max_value=50,
        help_text="Runs of each label set, with other first weights and batches; five give an interval.",
    )
    network = forms.ChoiceField(choices=[(name, name) for name in training_settings.NETWORKS])
    epochs = forms.IntegerField(min_value=1, max_value=1000, help_text="Passes over the training images.")
    holdout = forms.FloatField(
        label="Held out",
        min_value=0.05,
        max_value=0.9,
        widget=forms.NumberInput(attrs={"step": "0.05"}),
        help_text="Share of the images that are never trained on and judge the networks.",
    )
    use_reference = forms.BooleanField(
        label="The dataset’s own distributions judge",
        required=False,
        help_text="They came with the images. Otherwise the release’s labels of the held-out images judge.",
    )

    def __init__(self, data: Any = None, *, release: Release, initial: dict[str, Any] | None = None) -> None:
        chosen = {
            "label_sets": list(training_settings.DEFAULT_SETS),
            "annotators": "all",
            "seeds": 5,
            "network": "small",
            "epochs": 40,
            "holdout": 0.3,
        }
        super().__init__(data, initial=chosen | (initial or {}))
        self.release = release
        reference = not annotated.without_reference_distribution(release.study_id)
        self.fields["label_sets"].choices = training_settings.offered(reference=reference)  # type: ignore[attr-defined]
        others = selectors.comparable_in_training(release)
        self.fields["others"].choices = [(str(other.pk), str(other)) for other in others]  # type: ignore[attr-defined]
        if not others:
            del self.fields["others"]
        if not reference:
            del self.fields["use_reference"]

    @property
    def names(self) -> list[str]:
        """The label sets, each once."""
        more = [name.strip() for name in self.cleaned_data.get("more", "").split(",") if name.strip()]
        return list(dict.fromkeys([*self.cleaned_data.get("label_sets", []), *more]))

    @property
    def other_ids(self) -> list[int]:
        return [int(pk) for pk in self.cleaned_data.get("others", [])]

    def runs(self) -> int:
        """How many networks that makes; of valid data."""
        data = self.cleaned_data
        return training_settings.runs_of(self.names, data["annotators"], data["seeds"], len(self.other_ids))

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if len(self.other_ids) > training_settings.MOST_OTHERS:
            self.add_error("others", f"At most {training_settings.MOST_OTHERS} other releases are compared at once.")
        if not self.errors:
            try:
                training_settings.check(
                    names=self.names,
                    others=len(self.other_ids),
                    **{name: data[name] for name in ("annotators", "seeds", "network", "epochs", "holdout")},
                )
            except Refusal as refusal:
                self.add_error(None, refusal.message)
            else:
                if training_settings.VOTES in self.names and not data.get("use_reference"):
                    self.add_error("use_reference" if "use_reference" in self.fields else None, NEEDS_REFERENCE)
        return data

    def save(self, user: Any) -> TrainingRun:
        """Raises Refusal as `services.request_training`."""
        data = self.cleaned_data
        return services.request_training(
            release_id=self.release.pk,
            other_ids=self.other_ids,
            label_sets=self.names,
            use_reference=bool(data.get("use_reference")),
            user=user,
            **{name: data[name] for name in ("annotators", "seeds", "network", "epochs", "holdout")},
        )


NEEDS_REFERENCE = "The label set h is these distributions: tick this too, where the images have them."


@dataclass(frozen=True)
class Figure:
    source: str
    words: str


class TrainingRunAdmin(admin.ModelAdmin[TrainingRun]):
    """Ask for training runs, watch them, and read what they found."""

    list_display = ("name", "labels", "state", "best", "requested_by", "requested_at")
    list_filter = ("release__study",)
    change_list_template = "admin/exports/trainingrun/change_list.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrainingRun]:
        return selectors.training_runs()

    def get_urls(self) -> list[URLPattern]:
        def view(function: Any) -> Any:
            return self.admin_site.admin_view(function)

        return [
            path("estimate/", view(self.estimate), name="exports_trainingrun_estimate"),
            path("<int:pk>/cancel/", view(self.cancel), name="exports_trainingrun_cancel"),
            path("<int:pk>/go-on/", view(self.go_on), name="exports_trainingrun_go_on"),
            path("<int:pk>/figures/<str:name>.svg", view(self.figure), name="exports_trainingrun_figure"),
            path("<int:pk>/report.html", view(self.report), name="exports_trainingrun_report"),
            path("<int:pk>/result.json", view(self.result), name="exports_trainingrun_result"),
            *super().get_urls(),
        ]

    # --- The list

    @admin.display(description="releases")
    def name(self, run: TrainingRun) -> str:
        return ", ".join(map(str, [run.release, *run.others.all()]))

    @admin.display(description="label sets")
    def labels(self, run: TrainingRun) -> str:
        return ", ".join(run.label_sets)

    @admin.display(description="state")
    def state(self, run: TrainingRun) -> str:
        state = selectors.training_state(run)
        percent = "" if state.percent is None or state.is_over else f", {state.percent} %"
        return f"{WORDS[state.status]}{percent}"

    @admin.display(description="lowest cross-entropy")
    def best(self, run: TrainingRun) -> str:
        best = run.summary.get("best", {})
        return f"{best['cross_entropy']:.3f} ({best['label_set']})" if best.get("label_set") else "–"

    # --- The form

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        ready = selectors.trainable_releases()
        before = selectors.training_runs().filter(pk=_number(request.GET.get("from"))).first()
        release = ready.filter(pk=before.release_id if before else _number(request.GET.get("release"))).first()
        context = {
            **self.admin_site.each_context(request),
            "title": f"Train on {release}" if release else "Train on a release",
            "release": release,
            "here": request.get_full_path(),
            "no_torch": "" if training_settings.has_torch() else training_settings.NO_TORCH,
        }
        if release is None:
            context["releases"] = list(ready[:200])
            return render(request, "admin/exports/trainingrun/choose.html", context)
        form = TrainingRequestForm(
            request.POST if request.method == "POST" else None, release=release, initial=_as_before(before)
        )
        if form.is_bound and form.is_valid():
            try:
                run = form.save(request.user)
            except Refusal as refusal:
                form.add_error(None, refusal.message)
            else:
                return HttpResponseRedirect(reverse("admin:exports_trainingrun_change", args=[run.pk]))
        context |= {"form": form, "estimate": _estimate(form)}
        status = 400 if form.is_bound else 200
        return render(request, "admin/exports/trainingrun/add_form.html", context, status=status)

    def estimate(self, request: HttpRequest) -> HttpResponse:
        """How many runs a form makes that is not sent yet."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        release = get_object_or_404(selectors.trainable_releases(), pk=_number(request.GET.get("release")))
        return JsonResponse({"says": _estimate(TrainingRequestForm(request.GET, release=release))})

    # --- One run

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        run = self._run(request, _number(object_id))
        state = selectors.training_state(run)
        job = selectors.training_job(run)
        may_add = self.has_add_permission(request)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Training on {run.release}",
            "run": run,
            "original": run,
            "opts": self.opts,
            "state": state,
            "state_words": WORDS[state.status],
            "every": 0 if state.is_over else EVERY,
            "here": request.path,
            "waits_for": None if job is None or state.status != "waiting" else job.created_at,
            "runs": _runs(run),
            "figures": [
                Figure(reverse("admin:exports_trainingrun_figure", args=[run.pk, name]), words)
                for name, words in run.summary.get("figures", [])
            ],
            "releases": [run.release, *run.others.all()],
            "may_add": may_add,
            "may_delete": self.has_delete_permission(request, run),
            "no_torch": "" if state.is_over or training_settings.has_torch() else training_settings.NO_TORCH,
        }
        template = "_run.html" if "part" in request.GET else "change_form.html"
        response = render(request, f"admin/exports/trainingrun/{template}", context)
        patch_cache_control(response, private=True, no_store=True)
        return response

    def cancel(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        run = self._to_change(request, pk)
        if isinstance(run, HttpResponseBase):
            return run
        if services.cancel_training(run, user=request.user):  # type: ignore[arg-type]
            messages.info(request, "Cancelled. What is done is kept, so that it can go on.")
        return HttpResponseRedirect(reverse("admin:exports_trainingrun_change", args=[pk]))

    def go_on(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        run = self._to_change(request, pk)
        if isinstance(run, HttpResponseBase):
            return run
        try:
            services.go_on_training(run)
        except Refusal as refusal:
            messages.error(request, refusal.message)
        return HttpResponseRedirect(reverse("admin:exports_trainingrun_change", args=[pk]))

    # --- Files

    def figure(self, request: HttpRequest, pk: int, name: str) -> HttpResponse:
        run = self._run(request, pk)
        if name not in dict(run.summary.get("figures", [])):
            raise Http404("This run has no such figure.")
        return _file(run, f"{name}.svg", "image/svg+xml", DRAWING_POLICY)

    def report(self, request: HttpRequest, pk: int) -> HttpResponse:
        return _file(self._run(request, pk), "report.html", "text/html; charset=utf-8", REPORT_POLICY)

    def result(self, request: HttpRequest, pk: int) -> HttpResponse:
        run = self._run(request, pk)
        response = _file(run, "result.json", "application/json", REPORT_POLICY)
        response["Content-Disposition"] = f'attachment; filename="{slugify(str(run))}.json"'
        return response

    # --- Who may

    def _run(self, request: HttpRequest, pk: int) -> TrainingRun:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return get_object_or_404(selectors.training_runs(), pk=pk)

    def _to_change(self, request: HttpRequest, pk: int) -> TrainingRun | HttpResponseBase:
        """The run, for whoever may ask for one, by a form."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return self._run(request, pk)

    def has_change_permission(self, request: HttpRequest, obj: TrainingRun | None = None) -> bool:
        """A run never changes: it is cancelled, goes on, or is removed."""
        return False

    def delete_model(self, request: HttpRequest, obj: TrainingRun) -> None:
        services.remove_training(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[TrainingRun]) -> None:
        for run in queryset:
            services.remove_training(run)


def _number(text: Any) -> int:
    """A key as an address has it; one that no row has where it is none."""
    return int(text) if str(text).isdecimal() and len(str(text)) < 19 else 0


def _as_before(run: TrainingRun | None) -> dict[str, Any]:
    if run is None:
        return {}
    known = {name for name, _ in training_settings.offered(reference=True)}
    return {
        **{
            name: getattr(run, name)
            for name in ("annotators", "seeds", "network", "epochs", "holdout", "use_reference")
        },
        "label_sets": [name for name in run.label_sets if name in known],
        "more": ", ".join(name for name in run.label_sets if name not in known),
        "others": [str(other.pk) for other in run.others.all()],
    }


def _runs(run: TrainingRun) -> int:
    return training_settings.runs_of(run.label_sets, run.annotators, run.seeds, len(run.others.all()))


def _estimate(form: TrainingRequestForm) -> str:
    """How many networks the form makes, in words."""
    if not form.is_bound:
        form = TrainingRequestForm(form.initial, release=form.release)
    if not form.is_valid():
        return "Something is missing yet: " + " ".join(
            dict.fromkeys(str(words) for errors in form.errors.values() for words in errors)
        )
    runs, seeds = form.runs(), form.cleaned_data["seeds"]
    epochs = form.cleaned_data["epochs"]
    sets = runs // seeds
    return (
        f"That makes {runs:,} {'network' if runs == 1 else 'networks'}: {sets} label {'set' if sets == 1 else 'sets'} "
        f"× {seeds} {'seed' if seeds == 1 else 'seeds'}, {runs * epochs:,} epochs in all."
    )


def _file(run: TrainingRun, name: str, kind: str, policy: str) -> HttpResponse:
    """A file of a finished run's report."""
    if run.finished_at is None or run.withheld_reason:
        raise Http404("This run has no report.")
    path: Path = selectors.training_output(run) / name
    try:
        body = path.read_bytes()
    except FileNotFoundError as error:
        raise Http404("The file is gone from the server's disk.") from error
    return HttpResponse(
        body, content_type=kind, headers={"Content-Security-Policy": policy, "Cache-Control": "private, no-store"}
    )
