"""Indexes that another one begins with, or that hold nothing but empty fields: each cost a write for every answer."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models
from django.db.models import Q

from elicit.migrating import AddIndexSafely, DropIndexOfForeignKey


def unindexed(to: str, on_delete: Any, related_name: str, **options: Any) -> models.ForeignKey[Any, Any]:
    return models.ForeignKey(db_index=False, on_delete=on_delete, related_name=related_name, to=to, **options)


EMPTY: dict[str, Any] = {"blank": True, "null": True}


class Migration(migrations.Migration):
    atomic = False

    dependencies: ClassVar = [("annotations", "0010_indexes_for_many_sessions")]

    operations: ClassVar = [
        AddIndexSafely("trial", models.Index(fields=["repeat_of"], condition=Q(repeat_of__isnull=False), name="trial_repeats")),
        AddIndexSafely("trial", models.Index(fields=["check_item"], condition=Q(check_item__isnull=False), name="trial_checks")),
        # Of these other indexes know as much.
        DropIndexOfForeignKey("response", "trial", unindexed("annotations.trial", models.CASCADE, "responses")),
        DropIndexOfForeignKey(
            "trial", "check_item", unindexed("annotations.checkitem", models.PROTECT, "trials", **EMPTY)
        ),
        DropIndexOfForeignKey("trial", "place", unindexed("annotations.place", models.SET_NULL, "trials", **EMPTY)),
        DropIndexOfForeignKey("trial", "repeat_of", unindexed("annotations.trial", models.CASCADE, "repeats", **EMPTY)),
    ]
