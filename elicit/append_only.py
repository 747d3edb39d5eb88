"""The audit log only grows: triggers of the database refuse to change or delete a line, whoever asks.

One thing may change: who acted is emptied when their account is deleted. Their name stays in the line.
"""

from __future__ import annotations

from typing import Any

from auditlog.models import LogEntry
from django.apps import apps
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import post_migrate

TABLE = LogEntry._meta.db_table
MIGRATION = ("elicit", "0003_append_only")
REFUSAL = "The audit log only grows: its lines are neither changed nor deleted."

POSTGRES = f"""
CREATE OR REPLACE FUNCTION elicit_audit_log_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.actor_id IS NULL AND to_jsonb(NEW) - 'actor_id' = to_jsonb(OLD) - 'actor_id' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER elicit_audit_log_rows BEFORE UPDATE OR DELETE ON {TABLE}
    FOR EACH ROW EXECUTE FUNCTION elicit_audit_log_only_grows();
CREATE TRIGGER elicit_audit_log_table BEFORE TRUNCATE ON {TABLE}
    FOR EACH STATEMENT EXECUTE FUNCTION elicit_audit_log_only_grows();
"""
POSTGRES_OFF = f"""
DROP TRIGGER IF EXISTS elicit_audit_log_rows ON {TABLE};
DROP TRIGGER IF EXISTS elicit_audit_log_table ON {TABLE};
DROP FUNCTION IF EXISTS elicit_audit_log_only_grows();
"""
SQLITE_TRIGGERS = ("elicit_audit_log_update", "elicit_audit_log_delete", "elicit_audit_log_replace")


def protect(connection: BaseDatabaseWrapper) -> None:
    """Put the triggers in place, anew where they are there."""
    unprotect(connection)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(POSTGRES)
            return
        columns = [column.name for column in connection.introspection.get_table_description(cursor, TABLE)]
        same = " AND ".join(f'NEW."{name}" IS OLD."{name}"' for name in columns if name != "actor_id")
        conditions = (
            f"UPDATE ON {TABLE} WHEN NOT (NEW.actor_id IS NULL AND {same})",
            f"DELETE ON {TABLE}",
            # INSERT OR REPLACE would delete a line without any trigger of deletion.
            f"INSERT ON {TABLE} WHEN EXISTS (SELECT 1 FROM {TABLE} WHERE id = NEW.id)",  # noqa: S608 (our own words)
        )
        for name, condition in zip(SQLITE_TRIGGERS, conditions, strict=True):
            cursor.execute(f"CREATE TRIGGER {name} BEFORE {condition} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END")


def unprotect(connection: BaseDatabaseWrapper) -> None:
    """Take the triggers away: for a migration that has to rewrite lines, and for nothing else."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(POSTGRES_OFF)
            return
        for name in SQLITE_TRIGGERS:
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


def _keep(using: str = "default", **_: object) -> None:
    """SQLite builds a table anew for most changes of its columns, and the triggers go with the old one."""
    connection: Any = connections[using]
    if connection.vendor == "sqlite" and MIGRATION in MigrationRecorder(connection).applied_migrations():
        protect(connection)


def connect() -> None:
    post_migrate.connect(_keep, sender=apps.get_app_config("elicit"), dispatch_uid="elicit.append_only")
