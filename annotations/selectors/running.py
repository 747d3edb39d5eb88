"""How the studies stand that people may be answering: in few queries, none of which grows with the answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from django.db.models import Count

from annotations.models import Place, Session, Study, StudyImage, StudyStatus
from annotations.selectors.dashboard import SUMMARY_VERSION

RUNNING = (StudyStatus.LIVE, StudyStatus.PAUSED)
# Whether many places are free or very many makes no difference, and to count them all would be dear.
MOST_PLACES = 10_000


@dataclass(frozen=True)
class Running:
    """``labels`` that count, as of a summary that is ``summary_age`` seconds old: None where there is none yet."""

    slug: str
    labels: int | None
    wanted: int
    summary_age: float | None
    places_free: int


def studies(now: datetime) -> list[Running]:
    """Those that are live or paused. A query for all of them, and one for each."""
    found = Study.objects.filter(status__in=RUNNING).order_by("pk")
    return [
        Running(
            slug=slug,
            labels=labels if version == SUMMARY_VERSION else None,
            wanted=_images(pk, launched) * each * max(1, arms),
            summary_age=(now - until).total_seconds() if until else None,
            places_free=_places_free(pk),
        )
        for pk, slug, launched, each, version, until, labels, arms in found.values_list(
            "pk",
            "slug",
            "launched_at",
            "labels_per_image",
            "summary__version",
            "summary__until",
            "summary__data__counting",
        ).annotate(in_arms=Count("arms"))
    ]


def studies_by_status() -> dict[str, int]:
    return dict(Study.objects.order_by().values_list("status").annotate(Count("pk")))


def sessions_by_status() -> dict[tuple[str, str], int]:
    """By slug and status, of those studies. `COUNT(*)` asks the index alone, a count of keys every row."""
    slugs = dict(Study.objects.filter(status__in=RUNNING).values_list("pk", "slug"))
    counted = Session.objects.filter(study__in=list(slugs)).order_by()
    return {
        (slugs[study], status): number
        for study, status, number in counted.values_list("study_id", "status").annotate(number=Count("*"))
    }


@lru_cache
def _images(study_id: int, launched_at: datetime) -> int:
    """Which images a study has is fixed from its launch on."""
    return StudyImage.objects.filter(study=study_id).count()


def _places_free(study_id: int) -> int:
    free = Place.objects.filter(study=study_id, session__isnull=True, turn__isnull=False)
    return free.order_by()[:MOST_PLACES].count()
