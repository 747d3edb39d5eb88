"""How the queue stands."""

from __future__ import annotations

from django.db.models import Count

from jobs.models import UNFINISHED, Job


def unfinished() -> dict[tuple[str, str], int]:
    """How many jobs are queued or running, by kind and status. An index holds these alone, whatever was done before."""
    counted = (
        Job.objects.filter(status__in=UNFINISHED).order_by().values_list("kind", "status").annotate(number=Count("*"))
    )
    return {(kind, status): number for kind, status, number in counted}
