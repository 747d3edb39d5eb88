"""`manage.py reseal`: encrypt what is sealed by the newest key, so that older ones can be thrown away."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import models, transaction

from annotations.sealing import Unreadable, seal, unseal

SUFFIX = "_sealed"


class Command(BaseCommand):
    help = "Encrypt every sealed field by the first of ELICIT_FIELD_KEYS. The older keys can go once it is done."

    def handle(self, **options: Any) -> None:
        for model in apps.get_models():
            names = [field.attname for field in model._meta.concrete_fields if field.attname.endswith(SUFFIX)]
            if names:
                self.stdout.write(f"{model._meta.label}: {_reseal(model, names)} rows")


def _reseal(model: type[models.Model], names: list[str]) -> int:
    rows = 0
    for pk in model._default_manager.values_list("pk", flat=True).iterator():
        # Locked one by one: a person may be withdrawing at this moment.
        with transaction.atomic():
            row = model._default_manager.select_for_update().filter(pk=pk).first()
            if row is None or not any(getattr(row, name) for name in names):
                continue
            try:
                for name in names:
                    _reseal_field(row, name)
            except Unreadable as error:
                raise CommandError(f"{model._meta.label} {pk}: {error}") from error
            row.save()
            rows += 1
    return rows


def _reseal_field(row: models.Model, name: str) -> None:
    """Through the property that seals it, where there is one: that one minds what is worked out from the text too."""
    plain = name.removesuffix(SUFFIX)
    found = getattr(type(row), plain, None)
    if isinstance(found, property) and found.fset:
        setattr(row, plain, getattr(row, plain))
    else:
        setattr(row, name, seal(unseal(getattr(row, name))))
