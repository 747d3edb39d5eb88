from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from annotations.models import Participant, Response, Session, Trial


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
            .select_related("image", "response", "session__study__dataset")
            .prefetch_related(
                # Once for all trials of the page.
                "session__study__dataset__categories"
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


def _response(trial: Trial) -> Response | None:
    return getattr(trial, "response", None)


def _names(trial: Trial) -> list[str]:
    dataset = trial.session.study.dataset
    return [category.name for category in dataset.categories.all()]


@admin.register(Session)
class SessionAdmin(ReadOnly):
    """Who is at work, how far, and how consistent they were."""

    list_display = (
        "annotator", "study", "status", "answered", "verdict", "distance", "consented_at", "completed_at",
    )  # fmt: skip
    list_filter = ("study", "status", "consistency__verdict")
    list_select_related = ("participant", "study", "consistency")
    search_fields = ("participant__annotator",)
    inlines = (TrialInline,)
    fields = (
        "annotator", "study", "status", "verdict", "distance", "consent", "consented_at", "trials_begun_at",
        "completed_at", "questionnaire",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Session]:
        return super().get_queryset(request).annotate(answers=Count("trials__response"), asked=Count("trials"))

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


@admin.register(Participant)
class ParticipantAdmin(admin.ModelAdmin[Participant]):
    """The only place that shows a platform's id, for whoever pays."""

    list_display = ("annotator", "platform_id", "study", "created_at")
    list_filter = ("study",)
    search_fields = ("annotator", "platform_id")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False
