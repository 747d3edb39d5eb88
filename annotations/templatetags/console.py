"""What the curator's start page shows."""

from __future__ import annotations

from typing import Any, cast

from django import template
from django.contrib import admin

from annotations import selectors
from annotations.admin.studies import StudyAdmin
from annotations.admin.study_pages import Tab, tabs
from annotations.models import Study
from annotations.selectors import StudyProgress

register = template.Library()
LATEST = 8


@register.simple_tag
def latest_studies() -> list[tuple[Study, StudyProgress]]:
    """The newest studies, each with how far it is."""
    return [(study, selectors.study_progress(study)) for study in Study.objects.order_by("-created_at")[:LATEST]]


@register.inclusion_tag("admin/annotations/study/_tabs.html", takes_context=True)
def study_tabs(context: dict[str, Any], study: Study, current: str = "") -> dict[str, list[Tab]]:
    """Links to a study's pages; `current` is the key of the one that is shown, empty for its settings."""
    pages = cast("StudyAdmin", admin.site.get_model_admin(Study)).pages
    return {"tabs": tabs(context["request"], study, pages, current)}
