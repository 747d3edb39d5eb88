"""Ask for a release."""

from __future__ import annotations

from dataclasses import replace

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotations import selectors as annotated
from elicit.labels.release_files import Recipe
from exports.errors import ExportError
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs


def check_request(*, study_id: int, recipe: Recipe) -> None:
    """Raise ExportError where a release could hold nothing: `study_unknown` for a draft, `arm_unknown`,
    `nothing_to_release`."""
    if not annotated.releasable_studies().filter(pk=study_id).exists():
        raise ExportError("study_unknown", "A draft has nothing to release: launch the study first.")
    if recipe.arm and recipe.arm not in (arms := annotated.study_arms(study_id)):
        has = f"it has {', '.join(arms)}" if arms else "it has none"
        raise ExportError("arm_unknown", f"The study has no arm {recipe.arm!r}: {has}.")
    facts = annotated.study_facts(
        study_id, until=timezone.now(), leave_out_inconsistent=recipe.leave_out_inconsistent, arm=recipe.arm
    )
    if not facts["sessions"]:
        raise ExportError("nothing_to_release", "No session is completed yet that this recipe would keep.")


@transaction.atomic
def request_release(*, study_id: int, recipe: Recipe, user: User | None) -> Release:
    """A new version of the study's release, to be built by a worker from what is completed now.

    Raises:
        ExportError: as `check_request`.
    """
    check_request(study_id=study_id, recipe=recipe)
    recipe = replace(recipe, framing=annotated.framing_to_name(study_id, recipe.framing, recipe.arm))
    return add_release(study_id=study_id, recipe=recipe, user=user)


def add_release(*, study_id: int, recipe: Recipe, user: User | None) -> Release:
    """The next version, queued to be built; inside a transaction, and for a recipe that has something to keep."""
    # The lock gives two requests at once two versions.
    study = annotated.releasable_studies().select_for_update(of=("self",)).get(pk=study_id)
    latest = Release.objects.filter(study=study).aggregate(latest=Max("version"))["latest"] or 0
    release = Release.objects.create(
        study=study,
        version=latest + 1,
        recipe=recipe.to_dict(),
        requested_by=user,
        requested_at=timezone.now(),
    )
    jobs.enqueue(BUILD_RELEASE, release.pk)
    return release
