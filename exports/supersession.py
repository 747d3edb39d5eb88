"""What becomes of releases whose answers cease to count: they are superseded, and a successor is built.

A release is never changed. One that held the answers of somebody who withdrew is not given out any more, and its files
are removed; one that held those of a session that a curator excluded stays where it is, marked.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.utils import timezone

from annotations import selectors as annotated
from annotations.signals import session_leaves
from elicit.labels.release_files import Recipe
from exports import services
from exports.kinds import BUILD_RELEASE, REMOVE_FILES
from exports.models import Release
from jobs import services as jobs

REASONS = {
    "withdrawn": "An annotator withdrew, and their answers were erased.",
    "excluded": "A session was excluded: {reason}.",
}


def supersede_releases(*, session: Any, why: str, reason: Any, **_: object) -> None:
    """Supersede every release that holds the session's answers. Called in the transaction in which these cease to
    count, just before they do (`annotations.signals.session_leaves`)."""
    now = timezone.now()
    words = REASONS[why].format(reason=getattr(reason, "label", reason))
    successors: dict[str, Release | None] = {}
    # Whoever asks for a release at this moment waits: it would be seen neither here nor there.
    annotated.releasable_studies().select_for_update(of=("self",)).filter(pk=session.study_id).first()
    # One that an exclusion has superseded already is still given out, and must not be after a withdrawal.
    standing = (
        Q(superseded_at__isnull=True) | Q(withheld=False) if why == "withdrawn" else Q(superseded_at__isnull=True)
    )
    for release in Release.objects.select_for_update().filter(standing, study_id=session.study_id):
        recipe = Recipe.from_dict(release.recipe)
        held = annotated.was_released(
            session,
            until=release.requested_at,
            leave_out_inconsistent=recipe.leave_out_inconsistent,
            arm=recipe.arm,
        )
        held = held or (why == "withdrawn" and _held_before_its_exclusion(release, session))
        # A build that no worker has begun will read what is left.
        if not held or _still_to_begin(release):
            continue
        if release.superseded_at is not None:
            release.withheld, release.superseded_reason = True, words
            release.save(update_fields=["withheld", "superseded_reason"])
            _withhold(release)
            continue
        if recipe.digest not in successors:
            successors[recipe.digest] = _successor(session, recipe)
        release.superseded_at, release.superseded_reason = now, words
        release.superseded_by = successors[recipe.digest]
        release.withheld = why == "withdrawn"
        release.save(update_fields=["superseded_at", "superseded_reason", "superseded_by", "withheld"])
        if release.withheld:
            _withhold(release)


def _withhold(release: Release) -> None:
    """Have its files removed, and all that was trained on it."""
    jobs.enqueue(REMOVE_FILES, release.pk)
    services.withhold_training(release)


def _held_before_its_exclusion(release: Release, session: Any) -> bool:
    """Whether a superseded release may hold a session that was excluded only after it. Rather one too many: what is
    erased must not be given out, and whoever wants the labels has the successor."""
    if release.superseded_at is None or session.excluded_at is None or session.completed_at is None:
        return False
    return bool(session.completed_at <= release.requested_at <= session.excluded_at)


def _still_to_begin(release: Release) -> bool:
    return not release.is_ready and jobs.hold_back(BUILD_RELEASE, release.pk)


def _successor(session: Any, recipe: Recipe) -> Release | None:
    """The release that is to take the place of others, asked for already or now; None where nothing is left for it."""
    left = annotated.released_sessions(
        session.study_id,
        until=timezone.now(),
        leave_out_inconsistent=recipe.leave_out_inconsistent,
        besides=session.pk,
        arm=recipe.arm,
    )
    if not left:
        return None
    waiting = Release.objects.filter(study_id=session.study_id, ready_at__isnull=True, superseded_at__isnull=True)
    for release in waiting.order_by("-version"):
        if Recipe.from_dict(release.recipe) == recipe and _still_to_begin(release):
            return release
    return services.add_release(study_id=session.study_id, recipe=recipe, user=None)


def connect() -> None:
    """Listen to the annotation side."""
    session_leaves.connect(supersede_releases, dispatch_uid="exports.supersede_releases")
