"""Operations for migrations of tables that people write to while these run. docs/how-to/upgrade.md has the rules.

On SQLite, where nothing else can write meanwhile anyway, they are Django's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db.migrations.operations import AddConstraint, AddIndex, AlterField


class AddIndexSafely(AddIndexConcurrently):
    """An index that is built while the table is written to. The migration needs `atomic = False`.

    A build that was broken off leaves an index that PostgreSQL calls invalid: the next try removes it first.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_forwards(self, app_label, schema_editor, from_state, to_state)
            return
        with _patient(schema_editor):
            if not schema_editor.collect_sql and _is_invalid(schema_editor.connection, self.index.name):
                name = schema_editor.quote_name(self.index.name)
                schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)
            return
        with _patient(schema_editor):
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class AddCheckSafely(AddConstraint):
    """A check constraint: at once for what is written from now on, then, beside the site's work, for what is there.

    The migration needs `atomic = False`. One that is broken off between the two finds the constraint there, and only
    looks through the table.
    """

    model_name: str
    constraint: Any

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if schema_editor.connection.vendor != "postgresql" or not self.allow_migrate_model(
            schema_editor.connection.alias, model
        ):
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        add = str(self.constraint.create_sql(model, schema_editor))
        if schema_editor.collect_sql or not _has_constraint(schema_editor.connection, self.constraint.name):
            # Without parameters: what percent signs it has are its own.
            schema_editor.execute(f"{add} NOT VALID", params=None)
        table, name = (schema_editor.quote_name(each) for each in (model._meta.db_table, self.constraint.name))
        with _patient(schema_editor):
            schema_editor.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


class DropIndexOfForeignKey(AlterField):
    """A foreign key whose own index another one makes needless: `field` has `db_index=False`.

    Django's own operation drops every index of the column by itself, a constraint's too, and has SQLite copy the table.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        column = model._meta.get_field(self.name).column
        kept = {each.name for each in (*model._meta.indexes, *model._meta.constraints)}
        with schema_editor.connection.cursor() as cursor:
            found = schema_editor.connection.introspection.get_constraints(cursor, model._meta.db_table)
        concurrently = "CONCURRENTLY " if schema_editor.connection.vendor == "postgresql" else ""
        for name, about in found.items():
            if about["index"] and about["columns"] == [column] and not about["unique"] and name not in kept:
                schema_editor.execute(f"DROP INDEX {concurrently}{schema_editor.quote_name(name)}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.execute(schema_editor._create_index_sql(model, fields=[model._meta.get_field(self.name)]))


@contextmanager
def _patient(schema_editor: Any) -> Iterator[None]:
    """What waits inside keeps nobody from the table: it may take its time."""
    if schema_editor.collect_sql:
        yield
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        (before,) = cursor.fetchone()
        cursor.execute("SET lock_timeout = 0")
        try:
            yield
        finally:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [before])


def _is_invalid(connection: Any, index: str) -> bool:
    return _found(
        connection,
        "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relname = %s AND NOT indisvalid",
        index,
    )


def _has_constraint(connection: Any, name: str) -> bool:
    return _found(connection, "SELECT 1 FROM pg_constraint WHERE conname = %s", name)


def _found(connection: Any, sql: str, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, [name])
        return cursor.fetchone() is not None
