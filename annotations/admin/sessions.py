from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Exists, OuterRef, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from annotations.admin.tables import KeysFirst
from annotations.models import ExclusionReason, Response, Session, Trial
from annotations.services import leaving
from elicit.labels.errors import Refusal


class ReadOnly(admin.ModelAdmin[Session]):
    """What people said is looked at, never edited."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class TrialInline(admin.TabularInline[Trial, Session]):
    model = Trial
    fields = ("position", "kind", "image", "said", "impossible", "seconds")
    readonly_fields = fields
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trial]:
        return (
            super()
            .get_queryset(request)
            .select_related("image", "session__study__dataset")
            .prefetch_related(
                # Once for all trials of the page.
                "session__study__dataset__categories",
                Prefetch("responses", Response.objects.filter(current=True), to_attr="said_last"),
            )
        )

    @admin.display(description="said")
    def said(self, trial: Trial) -> str:
        response = _response(trial)
        if response is None:
            return "–"
        names = _names(trial)
        return ", ".join(f"{names[category]} {percentage:g} %" for category, percentage in response.elicited.named)

    @admin.display(description="impossible")
    def impossible(self, trial: Trial) -> str:
        response = _response(trial)
        names = _names(trial)
        return ", ".join(names[category] for category in sorted(response.elicited.impossible)) if response else "–"

    @admin.display(description="seconds")
    def seconds(self, trial: Trial) -> str:
        response = _response(trial)
        return f"{response.duration_ms / 1000:.1f}" if response else "–"

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class CountingList(ChangeList):
    """Counts the trials and answers of the sessions on its page, when it is known which these are."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        shown = list(self.result_list)
        trials = Trial.objects.filter(session__in=[session.pk for session in shown]).order_by()
        said = Count("pk", filter=Exists(Response.objects.filter(trial=OuterRef("pk"), current=True)))
        counts = {pk: pair for pk, *pair in trials.values_list("session").annotate(every=Count("pk"), said=said)}
        for session in shown:
            session.asked, session.answers = counts.get(session.pk, (0, 0))
        self.result_list = shown


def _response(trial: Trial) -> Response | None:
    said: list[Response] = getattr(trial, "said_last", [])
    return said[0] if said else None


def _names(trial: Trial) -> list[str]:
    dataset = trial.session.study.dataset
    return [category.name for category in dataset.categories.all()]


class ExclusionForm(forms.Form):
    """Why, in a word that releases count by, and a note for the curators."""

    reason = forms.ChoiceField(choices=ExclusionReason.choices)
    note = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 3}), help_text="Never released.")


MAY_EXCLUDE = "annotations.exclude_session"


@admin.register(Session)
class SessionAdmin(ReadOnly):
    """Who is at work, how far, and how consistent they were."""

    list_display = (
        "annotator", "study", "status", "answered", "verdict", "distance", "excluded", "consented_at", "completed_at",
    )  # fmt: skip
    list_filter = ("study", "status", "consistency__verdict", "exclusion_reason")
    list_select_related = ("participant", "study", "consistency")
    show_full_result_count = False
    paginator = KeysFirst
    search_fields = ("participant__annotator",)
    inlines = (TrialInline,)
    fields = (
        "annotator", "study", "status", "verdict", "distance", "consent", "consented_at", "trials_begun_at",
        "completed_at", "questionnaire", "withdrawn_at", "excluded_at", "exclusion_reason", "exclusion_note",
        "excluded_by",
    )  # fmt: skip
    actions = ("exclude_sessions", "reinstate_sessions")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CountingList

    def has_exclude_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(MAY_EXCLUDE)

    @admin.action(description="Exclude from releases…", permissions=["exclude"])
    def exclude_sessions(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        """Ask for the reason, saying what will happen, and then exclude."""
        form = ExclusionForm(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            context = {
                **self.admin_site.each_context(request),
                "title": "Exclude sessions",
                "form": form,
                "sessions": queryset,
                "opts": self.model._meta,
                "action": "exclude_sessions",
            }
            return render(request, "admin/annotations/session/exclude.html", context)

        def one(session: Session) -> None:
            leaving.exclude(
                session_id=session.pk,
                reason=ExclusionReason(form.cleaned_data["reason"]),
                note=form.cleaned_data["note"],
                by=request.user if request.user.is_authenticated else None,
                now=timezone.now(),
            )
            self.log_change(request, session, f"excluded: {form.cleaned_data['reason']}")

        self._each(
            request, queryset, one, "excluded; the places are open again, and releases that held them superseded"
        )
        return None

    @admin.action(description="Take back into releases", permissions=["exclude"])
    def reinstate_sessions(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        def one(session: Session) -> None:
            leaving.reinstate(session_id=session.pk)
            self.log_change(request, session, "reinstated")

        self._each(request, queryset, one, "taken back in: ask for a new release to see them in it")

    def _each(
        self, request: HttpRequest, queryset: QuerySet[Session], one: Callable[[Session], None], words: str
    ) -> None:
        """Do it to one session after another; one that can't be is said, and does not keep the others."""
        done = 0
        for session in queryset:
            try:
                one(session)
            except Refusal as error:
                messages.error(request, f"{session.participant.annotator}: {error.message}")
            else:
                done += 1
        if done:
            messages.success(request, f"{done} session{'s' if done > 1 else ''} {words}.")

    @admin.display(description="excluded")
    def excluded(self, session: Session) -> str:
        return session.get_exclusion_reason_display() or "–"

    @admin.display(description="annotator", ordering="participant__annotator")
    def annotator(self, session: Session) -> str:
        return session.participant.annotator

    @admin.display(description="answered")
    def answered(self, session: Session) -> str:
        return f"{getattr(session, 'answers', 0)} of {getattr(session, 'asked', 0)}"

    @admin.display(description="consistency", ordering="consistency__verdict")
    def verdict(self, session: Session) -> str:
        check = getattr(session, "consistency", None)
        return f"{check.verdict} ({check.same_top} of {check.repeats} repeats alike)" if check else "–"

    @admin.display(description="distance", ordering="consistency__mean_distance")
    def distance(self, session: Session) -> str:
        check = getattr(session, "consistency", None)
        return "–" if check is None or check.mean_distance is None else f"{check.mean_distance:.2f}"
