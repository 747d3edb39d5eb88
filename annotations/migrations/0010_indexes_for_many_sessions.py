from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class AddIndex(AddIndexConcurrently):
    """On PostgreSQL concurrently, so that answers go on being stored; elsewhere as usual."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        else:
            migrations.AddIndex.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        else:
            migrations.AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):
    atomic = False

    dependencies: ClassVar = [("annotations", "0009_give_turns")]

    operations: ClassVar = [
        AddIndex("session", models.Index(fields=["study", "seen_at"], name="session_by_study_seen")),
        AddIndex("session", models.Index(fields=["study", "consented_at"], name="session_by_study_consent")),
        AddIndex("session", models.Index(fields=["consented_at"], name="session_by_consent")),
    ]
