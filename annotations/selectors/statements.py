"""Queries written out, for what every answer reads: Django takes longer to put these together than PostgreSQL to run
them. Names of tables and columns, and how values are converted, stay the models' own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, models

Field = models.Field[Any, Any]
Row = tuple[dict[str, Any], tuple[Any, ...]]


class Statement:
    """A SELECT that gives models, with as many of their fields as ``columns`` names.

    Args:
        sql: with `{columns}`, and `{name}` for each table that ``tables`` gives a name to.
        tables: the models, by the names that the SQL knows their tables by.
        columns: `table.field`, each table's primary key among them. What the SQL selects after `{columns}` comes as
            the database gives it.
        parameters: of which field each `%s` is a value.
        lock: the table whose rows are locked, where the database locks rows.
    """

    def __init__(
        self, sql: str, *, tables: Mapping[str, type[models.Model]], columns: str, parameters: str, lock: str = ""
    ) -> None:
        def fields(names: str) -> list[tuple[str, Field]]:
            pairs = [name.partition(".") for name in names.split()]
            return [(table, tables[table]._meta.get_field(field)) for table, _, field in pairs]  # type: ignore[misc]

        self._tables = tables
        # In the model's own order, as `from_db` wants them.
        wanted = set(fields(columns))
        self._columns: list[tuple[str, Field]] = [
            (table, field)
            for table, model in tables.items()
            for field in model._meta.concrete_fields
            if (table, field) in wanted
        ]
        self._parameters = [field for _, field in fields(parameters)]
        quote = connection.ops.quote_name
        self.sql = sql.format(
            columns=", ".join(f"{table}.{quote(str(field.column))}" for table, field in self._columns),
            **{name: f"{quote(model._meta.db_table)} AS {name}" for name, model in tables.items()},
        )
        if lock and connection.features.has_select_for_update:
            self.sql += f" FOR UPDATE OF {lock}"
        # Of each table: where its key stands in a row, the names of its fields, and where these stand.
        self._parts: list[tuple[str, int, list[str], slice]] = []
        end = 0
        for table, group in groupby(self._columns, key=lambda pair: pair[0]):
            own = [field for _, field in group]
            key = next(place for place, field in enumerate(own, end) if field.primary_key)
            self._parts.append((table, key, [str(field.attname) for field in own], slice(end, end + len(own))))
            end += len(own)
        self._converters = [
            (place, convert, field.cached_col)
            for place, (_, field) in enumerate(self._columns)
            for convert in (
                *connection.ops.get_db_converters(field.cached_col),
                *field.cached_col.get_db_converters(connection),
            )
        ]

    def first(self, *values: object) -> Row | None:
        """The first row, if there is one."""
        return next(iter(self.all(*values)), None)

    def all(self, *values: object) -> list[Row]:
        """Of each row: a model for each table, None where an outer join found none; and what comes after them."""
        given = [
            field.get_db_prep_value(value, connection) for field, value in zip(self._parameters, values, strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.execute(self.sql, given)
            return [self._made(list(row)) for row in cursor.fetchall()]

    def _made(self, row: list[Any]) -> Row:
        for place, convert, column in self._converters:
            row[place] = convert(row[place], column, connection)
        made: dict[str, Any] = {}
        for table, key, names, part in self._parts:
            model = self._tables[table]
            made[table] = None if row[key] is None else model.from_db(DEFAULT_DB_ALIAS, names, row[part])
        return made, tuple(row[len(self._columns) :])
