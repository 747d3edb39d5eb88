"""Rows by the hundred thousand, without an object for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection, models

# Rows that one statement stores: enough that the way there and back costs nothing, few enough to be small.
AT_ONCE = 20_000


def insert(model: type[models.Model], same: Mapping[str, Any], each: Mapping[str, Sequence[Any]]) -> None:
    """Store a row for each place of the sequences in `each`, which are of one length.

    Both name columns: `same` gives those that all rows share, and every column without a default in the database has to
    be in one of the two. Values go into the database as `save` would send them. No signals are sent.
    """
    fields = {field.attname: field for field in model._meta.concrete_fields}
    quote = connection.ops.quote_name
    names = ", ".join(quote(fields[name].column) for name in (*same, *each))
    into = f"INSERT INTO {quote(model._meta.db_table)} ({names})"
    columns = [_prepared(fields[name], column) for name, column in each.items()]
    shared = [fields[name].get_db_prep_save(value, connection) for name, value in same.items()]
    with connection.cursor() as cursor:
        for start in range(0, len(columns[0]), AT_ONCE):
            part = [list(column[start : start + AT_ONCE]) for column in columns]
            if connection.vendor == "postgresql":
                # One parameter a column: the statement stays as short for all rows as for one.
                arrays = ", ".join(f"%s::{fields[name].db_type(connection)}[]" for name in each)
                marks = "".join("%s, " for _ in same)
                cursor.execute(
                    f"{into} SELECT {marks}given.* FROM unnest({arrays}) AS given",  # noqa: S608 (our own models' names)
                    [*shared, *part],
                )
            else:
                marks = ", ".join("%s" for _ in (*same, *each))
                rows = [(*shared, *row) for row in zip(*part, strict=True)]
                cursor.executemany(f"{into} VALUES ({marks})", rows)


def change(model: type[models.Model], keys: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Give the rows of these keys these values, by the columns' names. No signals are sent."""
    fields = {field.attname: field for field in model._meta.concrete_fields}
    quote = connection.ops.quote_name
    marks = ", ".join(f"{quote(fields[name].column)} = %s" for name in values)
    given = [fields[name].get_db_prep_save(value, connection) for name, value in values.items()]
    key = model._meta.pk
    update = f"UPDATE {quote(model._meta.db_table)} SET {marks} WHERE {quote(key.column)}"  # noqa: S608 (our own models' names)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"{update} = ANY(%s)", [*given, list(_prepared(key, keys))])
        else:
            cursor.execute(f"{update} IN ({', '.join('%s' for _ in keys)})", [*given, *_prepared(key, keys)])


def _prepared(field: models.Field[Any, Any], column: Sequence[Any]) -> Sequence[Any]:
    """Numbers and truth values need no preparing, and are the ones that come by the million; nor do UUIDs where the
    database has such."""
    target: models.Field[Any, Any] = getattr(field, "target_field", field)
    if isinstance(target, models.IntegerField | models.FloatField | models.BooleanField):
        return column
    if isinstance(target, models.UUIDField) and connection.features.has_native_uuid_field:
        return column
    return [field.get_db_prep_save(value, connection) for value in column]


def now_known(*stored: type[models.Model]) -> None:
    """Let PostgreSQL's planner know these tables' rows in the transaction that stored them: it takes a table for as
    small as it was, and joins two such by going through one for each row of the other."""
    if connection.vendor == "postgresql":
        names = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in stored)
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {names}")
