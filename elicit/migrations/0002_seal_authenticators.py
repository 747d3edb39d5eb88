"""Move the authenticators into a table where their keys are sealed, and leave nothing readable behind."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from annotations.sealing import seal, unseal

SAME = (
    "user_id", "name", "confirmed", "throttling_failure_timestamp", "throttling_failure_count", "last_used_at", "drift",
    "last_t",
)


def seal_keys(apps: Any, schema_editor: Any) -> None:
    _move(apps, schema_editor, ("otp_totp", "TOTPDevice"), ("elicit", "Authenticator"), "key", "key_sealed", seal)


def unseal_keys(apps: Any, schema_editor: Any) -> None:
    _move(apps, schema_editor, ("elicit", "Authenticator"), ("otp_totp", "TOTPDevice"), "key_sealed", "key", unseal)


def _move(apps: Any, schema_editor: Any, source: Any, target: Any, old: str, new: str, turn: Any) -> None:
    if schema_editor.connection.vendor == "sqlite":
        # What is deleted is overwritten, and not only marked as free.
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("PRAGMA secure_delete = ON")
    sources, targets = apps.get_model(*source).objects, apps.get_model(*target).objects
    for row in sources.order_by("pk"):
        made = targets.create(**{name: getattr(row, name) for name in SAME}, **{new: turn(getattr(row, old))})
        # Set by `create` to the present.
        targets.filter(pk=made.pk).update(created_at=row.created_at)
    sources.all().delete()


class Migration(migrations.Migration):
    dependencies = [("elicit", "0001_authenticators"), ("otp_totp", "0003_add_timestamps")]

    operations = [migrations.RunPython(seal_keys, unseal_keys)]
