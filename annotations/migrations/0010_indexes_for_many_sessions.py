from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models

from annotations.migrating import AddIndex


class Migration(migrations.Migration):
    atomic = False

    dependencies: ClassVar = [("annotations", "0009_give_turns")]

    operations: ClassVar = [
        AddIndex("session", models.Index(fields=["study", "seen_at"], name="session_by_study_seen")),
        AddIndex("session", models.Index(fields=["study", "consented_at"], name="session_by_study_consent")),
        AddIndex("session", models.Index(fields=["consented_at"], name="session_by_consent")),
    ]
