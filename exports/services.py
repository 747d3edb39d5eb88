"""Ask for a release, and for networks that are trained on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotations import selectors as annotated
from elicit.labels.release_files import Recipe
from exports import selectors, training_settings
from exports.errors import ExportError
from exports.kinds import BUILD_RELEASE, REMOVE_TRAINING, TRAIN
from exports.models import Release, TrainingRun
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


# Training


@transaction.atomic
def request_training(
    *,
    release_id: int,
    other_ids: Sequence[int] = (),
    label_sets: Sequence[str] = training_settings.DEFAULT_SETS,
    annotators: str = "all",
    seeds: int = 5,
    network: str = "small",
    epochs: int = 40,
    holdout: float = 0.3,
    use_reference: bool = False,
    user: User | None,
) -> TrainingRun:
    """A training run, to be done by a worker of the queue `training`.

    Raises:
        Refusal: as `training_settings.check`; ExportError ``release_unknown``, ``releases_differ``,
            ``too_many_releases``, ``reference_missing``.
    """
    training_settings.check(
        names=label_sets,
        annotators=annotators,
        seeds=seeds,
        network=network,
        epochs=epochs,
        holdout=holdout,
        others=len(other_ids),
    )
    # Locked, in one order: a withdrawal that is about to withhold one of them comes before this, or finds the run.
    locked = Release.objects.select_for_update().filter(pk__in=[release_id, *other_ids]).order_by("pk")
    found = {each.pk: each for each in locked if each.is_ready and not each.withheld}
    if set(found) != {release_id, *other_ids}:
        raise ExportError("release_unknown", "A release is not ready, or not given out any more.")
    release = found[release_id]
    others = [found[pk] for pk in dict.fromkeys(other_ids) if pk != release_id]
    if len(others) > training_settings.MOST_OTHERS:
        raise ExportError(
            "too_many_releases", f"At most {training_settings.MOST_OTHERS} other releases are compared at once."
        )
    comparable = {each.pk for each in selectors.comparable_in_training(release)}
    if strange := [each for each in others if each.pk not in comparable]:
        raise ExportError("releases_differ", f"{strange[0]} shows other images, or has other categories.")
    if use_reference and annotated.without_reference_distribution(release.study_id):
        raise ExportError("reference_missing", "Not every image of the study has a reference distribution.")
    if training_settings.VOTES in label_sets and not use_reference:
        raise ExportError("reference_missing", "h is the dataset’s own distributions: let them judge as well.")
    run = TrainingRun.objects.create(
        release=release,
        label_sets=list(label_sets),
        annotators=annotators,
        seeds=seeds,
        network=network,
        epochs=epochs,
        holdout=holdout,
        use_reference=use_reference,
        requested_by=user,
        requested_at=timezone.now(),
    )
    run.others.set(others)
    jobs.enqueue(TRAIN, run.pk)
    return run


@transaction.atomic
def cancel_training(run: TrainingRun, *, user: User | None) -> bool:
    """Stop a run that is not over; False where it is. What it has written stays, so that it can go on."""
    run = TrainingRun.objects.select_for_update().get(pk=run.pk)
    if run.finished_at or run.cancelled_at or run.withheld_reason:
        return False
    run.cancelled_at, run.cancelled_by = timezone.now(), user
    run.save(update_fields=["cancelled_at", "cancelled_by"])
    return True


@transaction.atomic
def go_on_training(run: TrainingRun) -> None:
    """Queue a cancelled or failed run again: it goes on from its last epoch.

    Raises:
        ExportError: ``training_not_over``, ``training_withheld``.
    """
    run = TrainingRun.objects.select_for_update().get(pk=run.pk)
    if run.withheld_reason:
        raise ExportError("training_withheld", run.withheld_reason)
    if run.finished_at or selectors.is_at_work(run):
        raise ExportError("training_not_over", "It is finished, at work, or about to stop: look again in a moment.")
    run.cancelled_at = run.cancelled_by = None
    run.save(update_fields=["cancelled_at", "cancelled_by"])
    jobs.enqueue(TRAIN, run.pk)


def finish_training(run: TrainingRun, summary: dict[str, Any]) -> bool:
    """The run is done; False where it was cancelled, withheld or removed meanwhile."""
    return bool(
        TrainingRun.objects.filter(pk=run.pk, cancelled_at__isnull=True, withheld_reason="").update(
            finished_at=timezone.now(), summary=summary
        )
    )


@transaction.atomic
def remove_training(run: TrainingRun) -> None:
    """Delete a run; a worker removes its files, and stops it where it is at work."""
    pk = run.pk
    run.delete()
    jobs.enqueue(REMOVE_TRAINING, pk)


def withhold_training(release: Release) -> None:
    """Have all that was trained on a release removed, in the transaction that withholds the release."""
    for relation in ("release", "others"):
        for run in TrainingRun.objects.filter(**{relation: release}, withheld_reason=""):
            run.withheld_reason, run.summary = release.superseded_reason, {}
            run.save(update_fields=["withheld_reason", "summary"])
            jobs.enqueue(REMOVE_TRAINING, run.pk)
