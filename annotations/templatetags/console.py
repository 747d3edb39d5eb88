"""What the curator's start page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from django import template
from django.contrib import admin
from django.utils import timezone

from annotations import selectors, watching
from annotations.admin.studies import StudyAdmin
from annotations.admin.study_pages import Tab, tabs
from annotations.models import Study, StudyStatus
from annotations.selectors import StudyProgress, dashboard
from annotations.selectors.dashboard import Alarm

register = template.Library()
LATEST = 8


@dataclass(frozen=True)
class WatchedStudy:
    study: Study
    progress: StudyProgress
    last_answer: str
    alarms: list[Alarm]


@register.simple_tag
def latest_studies() -> list[WatchedStudy]:
    """The newest studies, each with how far it is; those that people may be answering with their alarms."""
    return [_watched(study) for study in Study.objects.order_by("-created_at")[:LATEST]]


@register.simple_tag
def machine_alarms() -> list[Alarm]:
    """What the whole installation lacks."""
    now, limits = timezone.now(), dashboard.limits()
    return dashboard.machine_alarms(dashboard.machine(now, limits), now, limits)


def _watched(study: Study) -> WatchedStudy:
    progress = selectors.study_progress(study)
    if study.status not in (StudyStatus.LIVE, StudyStatus.PAUSED):
        return WatchedStudy(study, progress, "", [])
    live = dashboard.live(study, timezone.now())
    last = "" if live.last_answer is None else watching.ago((live.now - live.last_answer).total_seconds())
    return WatchedStudy(study, progress, last, dashboard.study_alarms(study, live, dashboard.limits()))


@register.inclusion_tag("admin/annotations/study/_tabs.html", takes_context=True)
def study_tabs(context: dict[str, Any], study: Study, current: str = "") -> dict[str, list[Tab]]:
    """Links to a study's pages; `current` is the key of the one that is shown, empty for its settings."""
    pages = cast("StudyAdmin", admin.site.get_model_admin(Study)).pages
    return {"tabs": tabs(context["request"], study, pages, current)}
