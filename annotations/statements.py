"""Queries written out, for what every answer reads and stores: Django takes longer to put these together than
PostgreSQL to run them, and PostgreSQL longer to plan them than to run them, so that it is asked to keep the plan. Names
of tables and columns, and how values are converted, stay the models' own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count, groupby
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

Field = models.Field[Any, Any]
Row = tuple[dict[str, Any], tuple[Any, ...]]

# The statements that each connection to PostgreSQL keeps the plan of, by name. They outlive its transactions.
_prepared: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
_numbers = count(1)


class _Prepared:
    """SQL that a connection to PostgreSQL is told once, and asked for by its name."""

    def __init__(self, sql: str, parameters: int, keep: bool = True) -> None:
        self.sql, self._name, self._keep = sql, f"elicit_{next(_numbers)}", keep
        numbers = count(1)
        self._prepare = f"PREPARE {self._name} AS {re.sub('%s', lambda _: f'${next(numbers)}', sql)}"
        self._execute = f"EXECUTE {self._name} ({', '.join('%s' for _ in range(parameters))})"

    def ready(self, connection: BaseDatabaseWrapper, cursor: Any) -> str:
        """What to send."""
        if connection.vendor != "postgresql" or not (self._keep and settings.DATABASE_KEEPS_PLANS):
            return self.sql
        known = _prepared.setdefault(connection.connection, set())
        if self._name not in known:
            cursor.execute(self._prepare)
            known.add(self._name)
        return self._execute


class Statement:
    """A SELECT that gives models, with as many of their fields as ``columns`` names, or plain values.

    Args:
        sql: with `{columns}` where there are any, and `{name}` for each table that ``tables`` gives a name to.
        tables: the models, by the names that the SQL knows their tables by.
        columns: `table.field`, each table's primary key among them, or `table.*` for all of it. What the SQL selects
            after `{columns}` comes as the database gives it.
        parameters: of which field each `%s` is a value.
        lock: the table whose rows are locked, where the database locks rows.
        skip_locked: whether rows that somebody else has locked are passed over.
        keep: whether PostgreSQL keeps its plan; not of a table that grows a thousandfold in a moment, for which the
            plan of before would be a bad one until the next ANALYZE.
    """

    def __init__(
        self,
        sql: str,
        *,
        tables: Mapping[str, type[models.Model]],
        columns: str = "",
        parameters: str,
        lock: str = "",
        skip_locked: bool = False,
        keep: bool = True,
    ) -> None:
        def fields(names: str) -> list[tuple[str, Field]]:
            found: list[tuple[str, Field]] = []
            for name in names.split():
                table, _, field = name.partition(".")
                meta = tables[table]._meta
                found += [(table, each) for each in (meta.concrete_fields if field == "*" else [meta.get_field(field)])]  # type: ignore[misc]
            return found

        connection = connections[DEFAULT_DB_ALIAS]
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
        sql = sql.format(
            columns=", ".join(f"{table}.{quote(str(field.column))}" for table, field in self._columns),
            **{name: f"{quote(model._meta.db_table)} AS {name}" for name, model in tables.items()},
        )
        if lock and connection.features.has_select_for_update:
            sql += f" FOR UPDATE OF {lock}{' SKIP LOCKED' if skip_locked else ''}"
        self._sql = _Prepared(sql, len(self._parameters), keep)
        # Of each table: where its key stands in a row, the names of its fields, and where these stand.
        self._parts: list[tuple[str, int, list[str], slice]] = []
        end = 0
        for table, group in groupby(self._columns, key=lambda pair: pair[0]):
            own = [field for _, field in group]
            key = next(place for place, field in enumerate(own, end) if field.primary_key)
            self._parts.append((table, key, [str(field.attname) for field in own], slice(end, end + len(own))))
            end += len(own)
        # Of a foreign key the column of what it points to says how it is converted.
        columns_of = [(place, field.get_col(table)) for place, (table, field) in enumerate(self._columns)]
        self._converters = [
            (place, convert, column)
            for place, column in columns_of
            for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
        ]

    def first(self, *values: object) -> Row | None:
        """The first row, if there is one."""
        return next(iter(self.all(*values)), None)

    def all(self, *values: object) -> list[Row]:
        """Of each row: a model for each table, None where an outer join found none; and what comes after them."""
        # Each use of Django's proxy for the connection looks up whose thread it is.
        connection = connections[DEFAULT_DB_ALIAS]
        given = [
            field.get_db_prep_value(value, connection) for field, value in zip(self._parameters, values, strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.execute(self._sql.ready(connection, cursor), given)
            return [self._made(connection, list(row)) for row in cursor.fetchall()]

    def _made(self, connection: BaseDatabaseWrapper, row: list[Any]) -> Row:
        for place, convert, column in self._converters:
            row[place] = convert(row[place], column, connection)
        made: dict[str, Any] = {}
        for table, key, names, part in self._parts:
            model = self._tables[table]
            made[table] = None if row[key] is None else model.from_db(DEFAULT_DB_ALIAS, names, row[part])
        return made, tuple(row[len(self._columns) :])


class Insertion:
    """An INSERT of one whole row, sent as `Model.save` sends it, but for signals. The database gives the key where the
    model leaves that to it."""

    def __init__(self, model: type[models.Model]) -> None:
        connection = connections[DEFAULT_DB_ALIAS]
        quote = connection.ops.quote_name
        self._table, self._key = model._meta.db_table, str(model._meta.pk.column)
        self._numbered = isinstance(model._meta.pk, models.AutoField)
        self._returning = self._numbered and connection.features.can_return_columns_from_insert
        self._fields: list[Field] = [
            field for field in model._meta.concrete_fields if not (self._numbered and field.primary_key)
        ]
        columns = ", ".join(quote(str(field.column)) for field in self._fields)
        marks = ", ".join("%s" for _ in self._fields)
        insert = f"INSERT INTO {quote(self._table)} ({columns}) VALUES ({marks})"  # noqa: S608 (our own models' names)
        self._sql = _Prepared(
            f"{insert} RETURNING {quote(self._key)}" if self._returning else insert, len(self._fields)
        )

    def store(self, row: models.Model) -> None:
        """Raises IntegrityError where a constraint refuses the row."""
        connection = connections[DEFAULT_DB_ALIAS]
        values = [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in self._fields]
        with connection.cursor() as cursor:
            cursor.execute(self._sql.ready(connection, cursor), values)
            if self._returning:
                (row.pk,) = cursor.fetchone()
            elif self._numbered:
                row.pk = connection.ops.last_insert_id(cursor, self._table, self._key)
        row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS


@cache
def insertion(model: type[models.Model]) -> Insertion:
    """The process's own, put together once."""
    return Insertion(model)


class Change:
    """An UPDATE of some fields of one row, sent as `Model.save` sends it, but for signals."""

    def __init__(self, model: type[models.Model], names: Sequence[str]) -> None:
        quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
        self._fields: list[Field] = [model._meta.get_field(name) for name in names]  # type: ignore[misc]
        self._key: Field = model._meta.pk
        setting = ", ".join(f"{quote(str(field.column))} = %s" for field in self._fields)
        table, key = quote(model._meta.db_table), quote(str(self._key.column))
        change = f"UPDATE {table} SET {setting} WHERE {key} = %s"  # noqa: S608 (our own models' names)
        self._sql = _Prepared(change, len(self._fields) + 1)

    def store(self, row: models.Model) -> None:
        """Raises DatabaseError where the row is gone, IntegrityError where a constraint refuses the change."""
        connection = connections[DEFAULT_DB_ALIAS]
        values = [field.get_db_prep_save(field.pre_save(row, add=False), connection) for field in self._fields]
        values.append(self._key.get_db_prep_save(row.pk, connection))
        with connection.cursor() as cursor:
            cursor.execute(self._sql.ready(connection, cursor), values)
            if not cursor.rowcount:
                raise DatabaseError(f"{row._meta.label} {row.pk} is gone.")
