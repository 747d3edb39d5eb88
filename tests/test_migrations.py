from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any, cast

import psycopg2
import pytest
from auditlog.models import LogEntry
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

from annotations.models import Image, Participant, Place, Response, Session, StudyImage, Trial
from elicit.migrating import AddCheckSafely, AddIndexSafely
from jobs.models import Job
from tests import services
from tests.sites import Site, Sites

OURS = ("annotations", "elicit", "exports", "jobs")
# Those that people write to at every moment, or that are long.
BUSY = {
    model._meta.db_table for model in (Image, Job, LogEntry, Participant, Place, Response, Session, StudyImage, Trial)
}
# From before anybody ran a site that could not stand still for an upgrade.
FIRST = {
    **dict.fromkeys(("annotations",), 9),
    **dict.fromkeys(("exports",), 4),
    **dict.fromkeys(("jobs",), 1),
}
# Migrations that break a rule all the same, and why they may.
ALLOWED: dict[str, str] = {}


@pytest.mark.django_db
def test_the_models_are_those_of_the_migrations() -> None:
    out = StringIO()

    call_command("makemigrations", check=True, dry_run=True, stdout=out)

    assert "No changes detected" in out.getvalue()


@pytest.mark.django_db
def test_every_migration_is_applied_and_none_conflicts() -> None:
    executor = MigrationExecutor(connection)

    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
    assert executor.loader.detect_conflicts() == {}


@pytest.mark.django_db
def test_the_checks_of_django_find_nothing() -> None:
    call_command("check", fail_level="WARNING")


# --- What a migration may do while the site serves: docs/how-to/upgrade.md

TABLE = r'"(?P<table>[^"]+)"'
RULES = [
    (rf"ALTER TABLE {TABLE} DROP COLUMN", "drops a column that the version before still reads"),
    (rf"ALTER TABLE {TABLE} RENAME", "renames what the version before still reads"),
    (rf"DROP TABLE {TABLE}", "drops a table that the version before still reads"),
    (
        rf"ALTER TABLE {TABLE} ALTER COLUMN .* TYPE ",
        "changes a type: the table is written anew while nobody may read it",
    ),
    (rf"ALTER TABLE {TABLE} ALTER COLUMN .* SET NOT NULL", "refuses rows that the version before still writes"),
]
OF_BUSY_TABLES = [
    (
        rf"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY).* ON {TABLE}",
        "builds an index while nobody writes: AddIndexSafely",
    ),
    (
        rf"DROP INDEX (?!CONCURRENTLY)(IF EXISTS )?{TABLE}",
        "stops every query on the table: RemoveIndexConcurrently",
    ),
    (
        rf"ALTER TABLE {TABLE} ADD CONSTRAINT (?!.*NOT VALID).* (CHECK|FOREIGN KEY)",
        "looks through the table while nobody may write: AddCheckSafely",
    ),
    (
        rf"ALTER TABLE {TABLE} ADD CONSTRAINT .* (UNIQUE|EXCLUDE|PRIMARY KEY) ?\(",
        "builds an index while nobody may write: a unique index CONCURRENTLY",
    ),
]


def troubles(statements: Iterable[str]) -> list[str]:
    """What a migration's SQL does that a site in use can't take. Tables that it makes itself are nobody's yet."""
    lines = [" ".join(line.split()) for line in statements if not line.startswith("--")]
    new = {match["table"] for line in lines if (match := re.match(rf"CREATE TABLE {TABLE}", line))}
    found = []
    for number, line in enumerate(lines):
        for pattern, words in [*RULES, *OF_BUSY_TABLES]:
            match = re.match(pattern, line)
            if match is None or match["table"] in new:
                continue
            if (pattern, words) in RULES or match["table"] in BUSY or line.startswith("DROP INDEX"):
                found.append(f"{words}: {line}")
        added = re.match(rf'ALTER TABLE {TABLE} ADD COLUMN "(?P<column>[^"]+)" .*NOT NULL', line)
        if added and added["table"] not in new:
            dropped = f'ALTER TABLE "{added["table"]}" ALTER COLUMN "{added["column"]}" DROP DEFAULT'
            if "DEFAULT" not in line or any(later.startswith(dropped) for later in lines[number:]):
                found.append(f"adds a column that the version before leaves out: give it a db_default: {line}")
    return found


def _sql(migration: migrations.Migration, before: Any) -> list[str]:
    with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        migration.apply(before, editor, collect_sql=True)
    return list(editor.collected_sql)


def _later_migrations() -> Iterator[tuple[str, str]]:
    for app, name in sorted(MigrationLoader(None).disk_migrations):
        if app in OURS and int(name[:4]) > FIRST.get(app, 0):
            yield app, name


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_no_migration_makes_the_site_wait_or_breaks_the_version_before() -> None:
    loader = MigrationLoader(connection)
    wrong = {}
    for app, name in _later_migrations():
        found = troubles(_sql(loader.get_migration(app, name), loader.project_state((app, name), at_end=False)))
        if found and f"{app}.{name}" not in ALLOWED:
            wrong[f"{app}.{name}"] = found
    assert wrong == {}
    assert set(ALLOWED) <= {f"{app}.{name}" for app, name in _later_migrations()}


BAD: list[tuple[str, list[Operation]]] = [
    ("db_default", [migrations.AddField("response", "x", models.IntegerField(default=0))]),
    ("drops a column", [migrations.RemoveField("study", "licence")]),
    ("renames", [migrations.RenameField("study", "licence", "license")]),
    ("renames", [migrations.RenameModel("Batch", "Portion")]),
    ("drops a table", [migrations.DeleteModel("ImportProblem")]),
    ("changes a type", [migrations.AlterField("trial", "position", models.BigIntegerField())]),
    ("refuses rows", [migrations.AlterField("trial", "skipped_at", models.DateTimeField())]),
    ("AddIndexSafely", [migrations.AddIndex("response", models.Index(fields=["received_at"], name="x"))]),
    ("RemoveIndexConcurrently", [migrations.RemoveIndex("session", "session_open_seen")]),
    (
        "AddCheckSafely",
        [migrations.AddConstraint("response", models.CheckConstraint(condition=models.Q(revision__lt=99), name="x"))],
    ),
    ("CONCURRENTLY", [migrations.AddConstraint("trial", models.UniqueConstraint(fields=["image", "kind"], name="x"))]),
]
GOOD: list[Operation] = [
    migrations.AddField("response", "x", models.IntegerField(null=True)),
    migrations.AddField("response", "y", models.IntegerField(db_default=0)),
    AddIndexSafely("response", models.Index(fields=["received_at"], name="x")),
    AddCheckSafely("response", models.CheckConstraint(condition=models.Q(revision__lt=99), name="revision_below_99")),
    migrations.CreateModel(
        "Fresh",
        [("id", models.BigAutoField(primary_key=True)), ("n", models.IntegerField(db_index=True, unique=True))],
        {"constraints": [models.CheckConstraint(condition=models.Q(n__gt=1), name="n_above_1")]},
    ),
]


def _made(operations: list[Operation]) -> migrations.Migration:
    kind = type("Migration", (migrations.Migration,), {"operations": operations, "atomic": False})
    return cast("migrations.Migration", kind("9999_made_up", "annotations"))


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("words", "operations"), BAD)
def test_what_a_migration_must_not_do_is_found(words: str, operations: list[Operation]) -> None:
    [*found] = troubles(_sql(_made(operations), MigrationLoader(connection).project_state()))

    assert any(words in each for each in found), found


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", GOOD)
def test_what_a_migration_may_do_is_not_complained_of(operation: Operation) -> None:
    sql = _sql(_made([operation]), MigrationLoader(connection).project_state())

    assert sql
    assert troubles(sql) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", GOOD[2:4])
def test_the_careful_operations_do_on_each_database_what_django_s_own_do(operation: Operation) -> None:
    state = MigrationLoader(connection).project_state()
    after = state.clone()
    operation.state_forwards("annotations", after)
    name = "x" if operation is GOOD[2] else "revision_below_99"

    def there() -> bool:
        with connection.cursor() as cursor:
            return name in connection.introspection.get_constraints(cursor, Response._meta.db_table)

    with connection.schema_editor(atomic=False) as editor:
        operation.database_forwards("annotations", editor, state, after)
    try:
        assert there()
    finally:
        with connection.schema_editor(atomic=False) as editor:
            operation.database_backwards("annotations", editor, after, state)
    assert not there()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_an_index_whose_build_was_broken_off_is_built_anew() -> None:
    state = MigrationLoader(connection).project_state()
    after = state.clone()
    GOOD[2].state_forwards("annotations", after)
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX x ON annotations_response (received_at)")
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'x'::regclass")
        cursor.execute("SET lock_timeout = '7s'")

    with connection.schema_editor(atomic=False) as editor:
        GOOD[2].database_forwards("annotations", editor, state, after)

    with connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'x'::regclass")
        assert cursor.fetchone() == (True,)
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("7s",)
        cursor.execute("SET lock_timeout = 0")
        cursor.execute("DROP INDEX x")


# --- manage.py upgrade


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Site]:
    """A site whose database is one migration behind: training runs, which name releases, are to come."""
    sites = Sites(tmp_path, "postgresql")
    site = sites()
    assert site.manage("migrate", "-v0").returncode == 0
    done = site.manage("migrate", "-v0", "exports", "0003")
    assert done.returncode == 0, done.stderr
    yield site
    site.drop()


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_upgrade_that_must_wait_for_a_table_lets_the_site_through_and_tries_again(behind: Site) -> None:
    with closing(psycopg2.connect(behind.database)) as holder, holder.cursor() as holding:
        # As somebody's transaction that wrote and was left open.
        holding.execute("LOCK TABLE exports_release IN ROW EXCLUSIVE MODE")
        refused = behind.manage("upgrade", "--lock-seconds", "0.2", "--patience", "1")
        assert refused.returncode == 1
        assert "Somebody holds a table" in refused.stderr
        upgrade = subprocess.Popen(
            [sys.executable, "manage.py", "upgrade", "--lock-seconds", "0.5"],
            cwd=services.ROOT,
            env=behind.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert upgrade.stderr is not None
        assert "A table is in use" in upgrade.stderr.readline()
        # The site goes on writing to it.
        with closing(psycopg2.connect(behind.database)) as other, other.cursor() as writing:
            writing.execute("SET lock_timeout = '5s'")
            for _ in range(5):
                writing.execute("UPDATE exports_release SET version = version")
                other.commit()
                time.sleep(0.3)
        assert upgrade.poll() is None
        holder.rollback()
        upgrade.communicate(timeout=300)
    assert upgrade.returncode == 0
    assert "[ ]" not in behind.manage("showmigrations", "--plan").stdout


@pytest.mark.django_db
def test_an_upgrade_with_nothing_to_do_says_so() -> None:
    out = StringIO()

    call_command("upgrade", stdout=out)

    assert "No migrations to apply" in out.getvalue()
