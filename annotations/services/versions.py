"""Copies of studies: a clone to begin from, and a new version of one that is launched."""

from __future__ import annotations

from django.db import transaction

from annotations import selectors
from annotations.errors import refuse
from annotations.models import Batch, Study, StudyImage, StudyStatus
from annotations.selectors.versions import settings_models
from annotations.services.studies import add_consent, free_slug

# What belongs to one study's life, not to its settings.
NOT_COPIED = {
    "id", "slug", "status", "created_at", "launched_at", "closed_at", "labels_left", "version", "predecessor",
}  # fmt: skip


@transaction.atomic
def clone(study_id: int, name: str = "") -> Study:
    """A draft with the study's settings, texts, images and batches, under a slug of its own."""
    study = Study.objects.select_related("dataset").get(pk=study_id)
    name = (name or f"{study.name} (copy)")[:120]
    return _copy(study, name)


@transaction.atomic
def new_version(study_id: int) -> Study:
    """A draft like a launched study, as its next version.

    Raises:
        AnnotationError: `wrong_status` for a draft, which can be changed itself.
    """
    # Locked: of two presses at once the second makes the version after.
    study = Study.objects.select_for_update(of=("self",)).select_related("dataset").get(pk=study_id)
    if study.status == StudyStatus.DRAFT:
        raise refuse("wrong_status", "A draft needs no new version: change it as it is.")
    copy = _copy(study, study.name)
    copy.predecessor, copy.version = study, study.version + 1
    copy.save(update_fields=["predecessor", "version"])
    return copy


def _copy(study: Study, name: str) -> Study:
    fields = [field for field in Study._meta.concrete_fields if field.name not in NOT_COPIED]
    copy = Study(**{field.attname: getattr(study, field.attname) for field in fields})
    copy.name, copy.slug = name, free_slug(name)
    copy.save()
    if consent := selectors.current_consent(study):
        add_consent(copy, consent.text, consent.title)
    batches = list(study.batches.order_by("number"))
    made = Batch.objects.bulk_create((Batch(study=copy, number=batch.number) for batch in batches), batch_size=1000)
    new = {batch.pk: twin for batch, twin in zip(batches, made, strict=True)}
    rows = study.study_images.order_by("batch__number", "pk").values_list("batch_id", "image_id")
    StudyImage.objects.bulk_create(
        (StudyImage(study=copy, batch=new[batch], image_id=image) for batch, image in rows), batch_size=1000
    )
    for model in settings_models():
        for row in model._default_manager.filter(study=study).order_by("pk"):
            row.pk = None
            row._state.adding = True
            row.study = copy
            # What the console can't edit is no setting: times and counters begin anew.
            for field in model._meta.concrete_fields:
                if not field.editable and not field.primary_key:
                    setattr(row, field.attname, field.get_default())
            row.save()
    return copy
