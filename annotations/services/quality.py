"""Judge a completed session by its repeats."""

from __future__ import annotations

from datetime import datetime
from statistics import fmean

from annotations import selectors
from annotations.models import ConsistencyCheck, Session
from elicit.labels import consistency


def check_session(session_id: str, now: datetime) -> ConsistencyCheck:
    """Compare every repeat with its first answer and store the verdict. Doing it again gives the same row."""
    session = Session.objects.select_related("study").get(pk=session_id)
    categories = selectors.category_count(session.study)
    comparisons = [
        consistency.compare(first.elicited, again.elicited, categories)
        for first, again in selectors.repeated_answers(session)
    ]
    changes = [c.percentage_change for c in comparisons if c.percentage_change is not None]
    row, _ = ConsistencyCheck.objects.update_or_create(
        session=session,
        defaults={
            "rule_version": consistency.RULE_VERSION,
            "verdict": consistency.judge(comparisons, most_distance=session.study.repeat_distance),
            "repeats": len(comparisons),
            "same_top": sum(c.same_top for c in comparisons),
            "mean_distance": fmean(c.total_variation for c in comparisons) if comparisons else None,
            "mean_change": fmean(changes) if changes else None,
            "checked_at": now,
        },
    )
    return row
