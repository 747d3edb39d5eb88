from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models

from elicit.migrating import AddIndexSafely


class Migration(migrations.Migration):
    atomic = False

    dependencies: ClassVar = [("annotations", "0009_give_turns")]

    operations: ClassVar = [
        AddIndexSafely("session", models.Index(fields=["study", "seen_at"], name="session_by_study_seen")),
        AddIndexSafely("session", models.Index(fields=["study", "consented_at"], name="session_by_study_consent")),
        AddIndexSafely("session", models.Index(fields=["consented_at"], name="session_by_consent")),
    ]
