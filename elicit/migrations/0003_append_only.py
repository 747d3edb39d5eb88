"""Have the database itself refuse to change or delete what the audit log holds."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from elicit import append_only


def protect(apps: Any, schema_editor: Any) -> None:
    append_only.protect(schema_editor.connection)


def unprotect(apps: Any, schema_editor: Any) -> None:
    append_only.unprotect(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("elicit", "0002_seal_authenticators"), ("auditlog", "0017_add_actor_email")]

    operations = [migrations.RunPython(protect, unprotect)]
