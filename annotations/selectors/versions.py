"""How a version of a study differs from the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import Field

from annotations.models import Study
from annotations.selectors.studies import current_consent

# Texts are too long for a sentence: that they changed is said, not how.
LONGEST_SAID = 60
NO_SETTING = {"id", "slug", "status", "created_at", "launched_at", "closed_at", "labels_left", "version", "choice"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs, `before` and `after` in words; both empty for a text or a list."""

    setting: str
    before: str = ""
    after: str = ""


def settings_models() -> list[Any]:
    """The models whose rows are part of a study's settings."""
    return [model for model in apps.get_models() if getattr(model, "copied_with_study", False)]


def differences(before: Study, after: Study) -> list[Difference]:
    """The settings in which two studies differ, in the order of the form, then texts, images and further parts."""
    found = []
    for field in Study._meta.concrete_fields:
        if field.name in NO_SETTING or field.name == "predecessor":
            continue
        old, new = getattr(before, field.attname), getattr(after, field.attname)
        if old != new:
            words = (_said(field, before, old), _said(field, after, new))
            short = max(map(len, words)) <= LONGEST_SAID and not isinstance(old, list | dict)
            found.append(Difference(str(field.verbose_name), *(words if short else ("", ""))))
    old_consent, new_consent = current_consent(before), current_consent(after)
    if (old_consent and (old_consent.title, old_consent.text)) != (
        new_consent and (new_consent.title, new_consent.text)
    ):
        found.append(Difference("consent text"))
    images = [set(study.study_images.values_list("image_id", flat=True)) for study in (before, after)]
    if images[0] != images[1]:
        found.append(
            Difference(
                "images",
                f"{len(images[0]):,}",
                f"{len(images[1]):,}, {len(images[0] & images[1]):,} of them as before",
            )
        )
    for model in settings_models():
        if _rows(model, before) != _rows(model, after):
            found.append(Difference(str(model._meta.verbose_name_plural)))
    return found


def _said(field: Field[Any, Any], study: Study, value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field.is_relation:
        return str(getattr(study, field.name))
    display = getattr(study, f"get_{field.name}_display", None)
    return str(display() if display else value)


def _rows(model: Any, study: Study) -> list[Mapping[str, Any]]:
    fields = [
        each.attname
        for each in model._meta.concrete_fields
        if each.editable and not each.primary_key and each.name != "study"
    ]
    return sorted(model._default_manager.filter(study=study).values(*fields), key=repr)
