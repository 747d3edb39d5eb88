from __future__ import annotations

from django import template
from django.utils import timezone

from annotations.models import Study
from annotations.selectors import retention

register = template.Library()


@register.simple_tag
def privacy_reminders() -> list[tuple[Study, list[str]]]:
    """What is erased soon, or kept past its time, by study."""
    return retention.reminders(timezone.now())
