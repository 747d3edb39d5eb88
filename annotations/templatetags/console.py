"""What the curator's start page shows."""

from __future__ import annotations

from django import template

from annotations import selectors
from annotations.models import Study
from annotations.selectors import StudyProgress

register = template.Library()
LATEST = 8


@register.simple_tag
def latest_studies() -> list[tuple[Study, StudyProgress]]:
    """The newest studies, each with how far it is."""
    return [(study, selectors.study_progress(study)) for study in Study.objects.order_by("-created_at")[:LATEST]]
