"""A database of any size, filled in bulk by PostgreSQL itself: what `simulate_scale` measures.

Every row satisfies every constraint of the product: indexes and keys are taken down while rows go in, as a restore does,
and made anew and checked at the end. Rows are worked out from their number alone, so that no table has to be searched
while another is filled.
"""

# ruff: noqa: E501, S608 (statements of our own making, laid out as SQL)

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import gcd
from pathlib import Path
from typing import Any

PER_SESSION = 25
REPEATS = 2
PER_SITTING = PER_SESSION + REPEATS
LABELS_PER_IMAGE = 10
SMALL_IMAGES = 1000
SMALL_STUDIES = 5
SMALL_SESSIONS = 300
FRESH_SESSIONS = 20
FRESH_LABELS = 3
OPEN_SESSIONS = 200
DAYS = 30
AT_ONCE = 40_000
"""Sessions that one statement fills."""
RELEASES = 300
LARGE_ZIP = 4 << 30
HUGE, FRESH, FRESH_SMALL = "huge", "fresh-large", "fresh-small"

TABLES = (
    "annotations_image", "annotations_batch", "annotations_studyimage", "annotations_place", "annotations_participant",
    "annotations_session", "annotations_trial", "annotations_response", "annotations_arrival", "annotations_payment",
    "annotations_consistencycheck", "annotations_sessionquality", "annotations_sessionquality_breaks", "jobs_job",
    "auditlog_logentry",
)  # fmt: skip


@dataclass(frozen=True)
class Filled:
    """Seconds of each part; `launch_mb`: highest resident size of the process that launched, above what it had."""

    seconds: dict[str, float]
    launch_mb: float


def fill(images: int, responses: int) -> Filled:
    """Fill the empty database that the settings name."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began
        print(f"  {part}: {seconds[part]:.1f} s", file=sys.stderr, flush=True)

    with connection.cursor() as cursor:
        cursor.execute("SET maintenance_work_mem = '1GB'")
        with timed("taking indexes down"):
            again = _take_down(cursor)
        with timed("images"):
            large, small = _dataset(cursor, "large", images), _dataset(cursor, "small", SMALL_IMAGES)
        wanted = max(
            1, (responses - (SMALL_STUDIES * SMALL_SESSIONS + 2 * FRESH_SESSIONS) * PER_SITTING) // PER_SITTING
        )
        with timed("the huge study"):
            _batched_study(cursor, HUGE, large, images, wanted, timed)
        with timed("small studies"):
            for number in range(1, SMALL_STUDIES + 1):
                _batched_study(cursor, f"small-{number}", small, SMALL_IMAGES, SMALL_SESSIONS, timed)
        with timed("audit log"):
            _audit_log(cursor, wanted // 2)
        with timed("indexes and keys"):
            for statement in again:
                cursor.execute(statement)
            _set_sequences(cursor)
        cursor.execute("VACUUM (ANALYZE)")
    from annotations.models import Dataset

    with timed("the small one-by-one study"):
        _one_by_one(FRESH_SMALL, Dataset.objects.get(slug="small"), timed, "1,000 images: ")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with timed("the large one-by-one study"):
        _one_by_one(FRESH, Dataset.objects.get(slug="large"), timed, f"{images:,} images: ")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with timed("releases"):
        _releases()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
    return Filled(seconds, grown / 1024)


def _take_down(cursor: Any) -> list[str]:
    """Drop the keys and indexes of the tables to be filled. Returns the statements that make them again."""
    tables = list(TABLES)
    cursor.execute(
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), contype FROM pg_constraint
        WHERE (contype = 'f' AND (conrelid::regclass::text = ANY(%s) OR confrelid::regclass::text = ANY(%s)))
           OR (contype IN ('p', 'u') AND conrelid::regclass::text = ANY(%s))
        ORDER BY contype = 'f' DESC""",
        [tables, tables, tables],
    )
    constraints = cursor.fetchall()
    keys: list[str] = []
    others: list[str] = []
    for table, name, definition, kind in constraints:
        cursor.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
        statement = f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}'
        (others if kind == "f" else keys).append(statement)
    cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)", [tables])
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f'DROP INDEX "{name}"')
    return [*keys, *(definition for _, definition in indexes), *others]


def _set_sequences(cursor: Any) -> None:
    for table in TABLES:
        cursor.execute("SELECT pg_get_serial_sequence(%s, 'id') WHERE EXISTS (SELECT FROM information_schema.columns "
                       "WHERE table_name = %s AND column_name = 'id' AND is_identity = 'YES')", [table, table])  # fmt: skip
        if (row := cursor.fetchone()) and row[0]:
            cursor.execute(f"SELECT setval('{row[0]}', (SELECT coalesce(max(id), 0) + 1 FROM {table}))")


def _next(cursor: Any, table: str) -> int:
    """The first number that no row of the table has. Rows go in by number, so the last one in has the highest."""
    cursor.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}")
    found: int = cursor.fetchone()[0]
    return found


def _dataset(cursor: Any, slug: str, images: int) -> Any:
    from django.utils import timezone

    from annotations.models import Category, Dataset
    from elicit.archives import CIFAR10_CATEGORIES

    dataset = Dataset.objects.create(slug=slug, name=slug.title(), origin="made up", ready_at=timezone.now())
    Category.objects.bulk_create(Category(dataset=dataset, index=i, name=n) for i, n in enumerate(CIFAR10_CATEGORIES))
    first = _next(cursor, "annotations_image")
    cursor.execute(
        """INSERT INTO annotations_image (id, dataset_id, index, sha256, width, height, name, changes, reference)
        SELECT %s + i, %s, i, md5('a' || %s || i) || md5('b' || %s || i), 32, 32, 'images/' || i || '.png', '', i %% 10
        FROM generate_series(0, %s) AS i""",
        [first, dataset.pk, slug, slug, images - 1],
    )
    return dataset, first


def _coprime(number: int, to: int) -> int:
    while gcd(number, to) != 1:
        number += 1
    return number


def _batched_study(cursor: Any, slug: str, dataset: tuple[Any, int], images: int, wanted: int, timed: Any) -> None:
    """A live study in fixed batches with `wanted` sittings, and at least one place in sixteen free."""
    from django.utils import timezone

    from annotations.models import Recruitment, Study, StudyStatus
    from annotations.presets import CIFAR10S
    from annotations.sealing import seal
    from annotations.selectors.studies import LARGEST
    from annotations.services import quality, studies
    from elicit.labels.consistency import RULE_VERSION
    from elicit.labels.quality import RECOMMENDED, VERSION, Measure

    now = timezone.now()
    batches = images // PER_SESSION
    labels = max(LABELS_PER_IMAGE, -(-wanted * 16 // (15 * batches)))
    study = studies.create_study(
        name=slug.title(), slug=slug, dataset=dataset[0], preset=CIFAR10S, overrides={"labels_per_image": labels}
    )
    rules = quality.write_rules(study.pk, RECOMMENDED)
    Recruitment.objects.create(
        study=study,
        platform="prolific",
        platform_study="5f0000000000000000000000",
        base_minor=120,
        code_completed="C1A2B3C4",
    )
    Study.objects.filter(pk=study.pk).update(
        status=StudyStatus.LIVE, launched_at=now - timedelta(days=DAYS), choice={LARGEST: PER_SESSION}
    )
    multiplier = _coprime(7919, batches)
    spread = _coprime(7_368_787, images)
    values: dict[str, Any] = {
        "study": study.pk, "slug": slug, "consent": study.consents.get().pk, "images": images, "first_image": dataset[1],
        "batches": batches, "labels": labels, "places": batches * labels, "wanted": wanted,
        "first_batch": _next(cursor, "annotations_batch"), "first_place": _next(cursor, "annotations_place"),
        "first_person": _next(cursor, "annotations_participant"), "first_arrival": _next(cursor, "annotations_arrival"),
        "first_pay": _next(cursor, "annotations_payment"), "first_link": _next(cursor, "annotations_studyimage"),
        "first_check": _next(cursor, "annotations_consistencycheck"), "rule": rules[0].pk,
        "first_quality": _next(cursor, "annotations_sessionquality"), "first_job": _next(cursor, "jobs_job"),
        "first_break": _next(cursor, "annotations_sessionquality_breaks"),
        "inverse": pow(multiplier, -1, batches), "multiplier": multiplier, "spread": spread,
        "open": min(OPEN_SESSIONS, wanted // 2), "sealed": seal("5f1111111111111111111111"), "rule_version": RULE_VERSION,
        "version": VERSION, "began": now - timedelta(days=DAYS, minutes=20), "now": now,
        "step": timedelta(days=DAYS) / wanted,
        "measures": json.dumps({name.value: [0.125, 27] for name in Measure}),
    }  # fmt: skip
    cursor.execute(BATCHES, values)
    cursor.execute(LINKS, values)
    for low in range(0, values["places"], AT_ONCE * 5):
        cursor.execute(PLACES, {**values, "low": low, "high": min(values["places"], low + AT_ONCE * 5) - 1})
    given_up = wanted // 50
    for low in range(0, wanted + given_up, AT_ONCE):
        part = {**values, "low": low, "high": min(wanted + given_up, low + AT_ONCE) - 1}
        for statement in (PEOPLE, SESSIONS, ARRIVALS):
            cursor.execute(statement, part)
    for low in range(0, wanted, AT_ONCE):
        part = {**values, "low": low, "high": min(wanted, low + AT_ONCE) - 1}
        for statement in (TRIALS, RESPONSES):
            cursor.execute(statement, part)
    done = {**values, "low": 0, "high": wanted - values["open"] - 1}
    for statement in (PAYMENTS, CHECKS, QUALITIES, BREAKS, JOBS):
        cursor.execute(statement, done)


BATCHES = """
INSERT INTO annotations_batch (id, study_id, number, touched, settled)
SELECT %(first_batch)s + b, %(study)s, b, false, false FROM generate_series(0, %(batches)s - 1) AS b"""

# Slot x of the deal holds image (x * spread) mod images: a shuffle that can be worked out from the number alone.
LINKS = f"""
INSERT INTO annotations_studyimage (id, study_id, batch_id, image_id)
SELECT %(first_link)s + x, %(study)s, %(first_batch)s + x / {PER_SESSION},
       %(first_image)s + (x::bigint * %(spread)s + 12345) %% %(images)s
FROM generate_series(0, %(batches)s * {PER_SESSION} - 1) AS x"""

# Place number n of batch b has rank (b * multiplier + n * 104729) mod batches; sessions take places by number and rank.
# So session i has place i, on this batch:
_BATCH = """(((i %% %(batches)s) + %(batches)s - ((i / %(batches)s + 1) * 104729) %% %(batches)s) %% %(batches)s
             * %(inverse)s::bigint %% %(batches)s)"""
_SESSION = "md5('session' || %(slug)s || i)::uuid"
_TRIAL = "md5('trial' || %(slug)s || i || '-' || {})::uuid"

PLACES = f"""
INSERT INTO annotations_place (id, study_id, batch_id, number, rank, turn, session_id)
SELECT %(first_place)s + i, %(study)s, %(first_batch)s + {_BATCH}, i / %(batches)s + 1, i %% %(batches)s,
       i / %(batches)s + 1, CASE WHEN i < %(wanted)s THEN {_SESSION} END
FROM generate_series(%(low)s::bigint, %(high)s) AS i"""

PEOPLE = """
INSERT INTO annotations_participant (id, study_id, annotator, platform_id_sealed, platform_id_key, created_at)
SELECT %(first_person)s + i, %(study)s, 'a' || left(md5(%(slug)s || i), 10), %(sealed)s,
       md5('person' || i) || md5(%(slug)s || i), %(began)s + i * %(step)s
FROM generate_series(%(low)s::bigint, %(high)s) AS i"""

# The last of those with a place are at work; those beyond came, read, and left.
SESSIONS = f"""
INSERT INTO annotations_session (id, study_id, participant_id, token, status, consent_id, consented_at, category_order,
    questionnaire, seen_at, trials_begun_at, completed_at, comprehension_attempts, exclusion_reason, exclusion_note,
    arms_drawn_from)
SELECT {_SESSION}, %(study)s, %(first_person)s + i, left(md5(random()::text) || md5(%(slug)s || i), 32),
       CASE WHEN done THEN 'completed' WHEN i < %(wanted)s THEN 'trials' ELSE 'abandoned' END, %(consent)s, began,
       '[3, 1, 4, 0, 5, 9, 2, 6, 8, 7]', CASE WHEN done THEN '{{"clarity": 9}}' ELSE '{{}}' END::jsonb,
       CASE WHEN done THEN began + interval '9 minutes' WHEN i < %(wanted)s THEN %(now)s - random() * interval '4 minutes'
            ELSE began + interval '1 minute' END,
       CASE WHEN i < %(wanted)s THEN began + interval '1 minute' END, CASE WHEN done THEN began + interval '9 minutes' END,
       1, '', '', '[]'
FROM (SELECT i, i < %(wanted)s - %(open)s AS done, %(began)s + (i %% %(wanted)s) * %(step)s AS began
      FROM generate_series(%(low)s::bigint, %(high)s) AS i) AS each"""

ARRIVALS = f"""
INSERT INTO annotations_arrival (id, study_id, participant_id, session_id, platform, submission_sealed, submission_key,
    status, arrived_at, verified_at, heard_at, entered)
SELECT %(first_arrival)s + i, %(study)s, %(first_person)s + i, {_SESSION}, 'prolific', %(sealed)s,
       md5('submission' || i) || md5(%(slug)s || i),
       CASE WHEN i < %(wanted)s * 0.99 THEN 'APPROVED' WHEN i < %(wanted)s - %(open)s THEN 'AWAITING REVIEW'
            WHEN i < %(wanted)s THEN 'ACTIVE' ELSE 'RETURNED' END,
       began, began, began + interval '10 minutes', CASE WHEN i < %(wanted)s - %(open)s THEN 'completed' ELSE '' END
FROM (SELECT i, %(began)s + (i %% %(wanted)s) * %(step)s AS began
      FROM generate_series(%(low)s::bigint, %(high)s) AS i) AS each"""

TRIALS = f"""
INSERT INTO annotations_trial (id, session_id, image_id, position, kind, framing, place_id, repeat_of_id)
SELECT {_TRIAL.format("p")}, {_SESSION}, %(first_image)s + slot * %(spread)s %% %(images)s, p,
       CASE WHEN p <= {PER_SESSION} THEN 'main' ELSE 'repeat' END, 'others',
       CASE WHEN p <= {PER_SESSION} THEN %(first_place)s + i END,
       CASE WHEN p > {PER_SESSION} THEN {_TRIAL.format("q")} END
FROM (SELECT i, p, q, (b * {PER_SESSION} + (q - 1 + i) %% {PER_SESSION})::bigint AS slot
      FROM (SELECT i, {_BATCH} AS b FROM generate_series(%(low)s::bigint, %(high)s) AS i) AS sat,
           LATERAL (SELECT p, CASE WHEN p <= {PER_SESSION} THEN p ELSE 1 + i %% 6 + (p - {PER_SESSION + 1}) * 6 END AS q
                    FROM generate_series(1, {PER_SITTING}) AS p) AS shown) AS each""".replace(
    "slot * %(spread)s %%", "(slot * %(spread)s + 12345) %%"
)

# Three in four name the image's own class first, most are fairly sure, and times are skewed.
RESPONSES = f"""
INSERT INTO annotations_response (id, trial_id, revision, current, named, impossible, top_category, top_percentage,
    sum_percentage, duration_ms, hidden_ms, input_device, first_touch_ms, changes, process, received_at)
SELECT gen_random_uuid(), {_TRIAL.format("p")}, 1, true,
       format('[[%%s, %%s], [%%s, %%s]]', top, share, (top + 1) %% 10, (100 - share) / 2)::jsonb,
       format('[%%s, %%s, %%s]', (top + 4) %% 10, (top + 6) %% 10, (top + 8) %% 10)::jsonb,
       top, share, share + (100 - share) / 2, took, 0, CASE WHEN i %% 3 = 0 THEN 'mouse' ELSE 'keyboard' END, took / 4, 3,
       format('{{"fields": [{{"field": "top", "category": %%s, "first_ms": %%s, "last_ms": %%s, "changes": 1, "input": '
              '"keyboard"}}, {{"field": "percentage", "category": %%s, "first_ms": %%s, "last_ms": %%s, "changes": 2, '
              '"input": "keyboard"}}], "warnings": []}}', top, took / 4, took / 4, top, took / 2, took)::jsonb,
       began + p * interval '15 seconds'
FROM (SELECT i, p, CASE WHEN random() < 0.75 THEN class ELSE (class + 1 + floor(random() * 9)::int) %% 10 END AS top,
             (20 + 80 * sqrt(random()))::int AS share, (4000 * exp(0.6 * sqrt(-2 * ln(1 - random())) * cos(6.2832 * random())))::int AS took,
             began
      FROM (SELECT i, p, ((({_BATCH} * {PER_SESSION} + (q - 1 + i) %% {PER_SESSION}) * %(spread)s + 12345) %% %(images)s %% 10)::int AS class,
                   %(began)s + i * %(step)s + interval '1 minute' AS began
            FROM generate_series(%(low)s::bigint, %(high)s) AS i,
                 LATERAL (SELECT p, CASE WHEN p <= {PER_SESSION} THEN p ELSE 1 + i %% 6 + (p - {PER_SESSION + 1}) * 6 END AS q
                          FROM generate_series(1, CASE WHEN i < %(wanted)s - %(open)s THEN {PER_SITTING} ELSE 10 END) AS p) AS shown
            OFFSET 0) AS known
      OFFSET 0) AS said"""

PAYMENTS = f"""
INSERT INTO annotations_payment (id, study_id, session_id, arrival_id, kind, amount_minor, currency, state, key, ordered,
    due_at, sending_at, claim, settled_at, reference, note, images)
SELECT %(first_pay)s + i, %(study)s, {_SESSION}, %(first_arrival)s + i, 'base', 120, 'GBP',
       CASE WHEN i < %(wanted)s * 0.99 THEN 'paid' ELSE 'due' END, md5('pay' || i) || md5(%(slug)s || i), i < %(wanted)s * 0.99,
       %(began)s + i * %(step)s, NULL, '', CASE WHEN i < %(wanted)s * 0.99 THEN %(now)s END::timestamptz, '', '', 0
FROM generate_series(%(low)s::bigint, %(high)s) AS i"""

CHECKS = f"""
INSERT INTO annotations_consistencycheck (id, session_id, rule_version, verdict, repeats, same_top, mean_distance,
    mean_change, checked_at)
SELECT %(first_check)s + i, {_SESSION}, %(rule_version)s, CASE WHEN i %% 30 = 0 THEN 'inconsistent' ELSE 'consistent' END,
       2, 2, 0.1 + random() * 0.2, 5, %(began)s + i * %(step)s + interval '10 minutes'
FROM generate_series(%(low)s::bigint, %(high)s) AS i"""

QUALITIES = f"""
INSERT INTO annotations_sessionquality (id, session_id, measures, version, computed_at)
SELECT %(first_quality)s + i, {_SESSION}, %(measures)s::jsonb, %(version)s, %(now)s
FROM generate_series(%(low)s::bigint, %(high)s) AS i"""

BREAKS = """
INSERT INTO annotations_sessionquality_breaks (id, sessionquality_id, qualityrule_id)
SELECT %(first_break)s + i / 30, %(first_quality)s + i, %(rule)s
FROM generate_series(%(low)s::bigint, %(high)s, 30) AS i"""

JOBS = f"""
INSERT INTO jobs_job (id, kind, subject, status, attempts, most_attempts, due_at, rung_at, owner, stage, done, total, error,
    created_at, finished_at)
SELECT %(first_job)s + i, 'annotations.check_session', {_SESSION}::text, 'done', 1, 5, at, at, md5('worker'), '', 0, 0, '',
       at, at
FROM (SELECT i, %(began)s + i * %(step)s + interval '10 minutes' AS at
      FROM generate_series(%(low)s::bigint, %(high)s) AS i) AS each"""


def _audit_log(cursor: Any, entries: int) -> None:
    from django.contrib.auth.models import User
    from django.contrib.contenttypes.models import ContentType
    from django.utils import timezone

    from annotations.models import Session, Study

    curator = User.objects.create_superuser("curator")
    study = Study.objects.get(slug=HUGE)
    cursor.execute(
        """INSERT INTO auditlog_logentry (content_type_id, object_pk, object_repr, action, changes, timestamp, actor_id,
            additional_data, changes_text)
        SELECT %s, md5('session' || i), left(md5('session' || i), 8), 1, '{"exclusion_note": ["", "looked at"]}',
               %s - i * interval '5 seconds', %s, jsonb_build_object('by', 'curator', 'study', %s::bigint), ''
        FROM generate_series(1, %s) AS i""",
        [ContentType.objects.get_for_model(Session).pk, timezone.now(), curator.pk, study.pk, entries],
    )


def _one_by_one(slug: str, dataset: Any, timed: Any, prefix: str) -> None:
    """A study whose images are handed out one by one, made and launched as a curator does, and a few sittings."""
    import numpy as np

    from annotations.models import Assignment, Study
    from annotations.presets import CIFAR10S
    from annotations.services import studies
    from tests import factories as make

    study = studies.create_study(
        name=slug.title(),
        slug=slug,
        dataset=dataset,
        preset=CIFAR10S,
        overrides={
            "assignment": Assignment.LEAST_FILLED,
            "labels_per_image": FRESH_LABELS,
            "comprehension": [],
            "practice": [],
        },
    )
    with timed(f"{prefix}chosen"):
        studies.choose_images(study, None, np.random.default_rng(1))
    with timed(f"{prefix}launched"):
        studies.launch(study.pk, np.random.default_rng(1))
    study = Study.objects.get(pk=study.pk)
    with timed(f"{prefix}{FRESH_SESSIONS} sittings"):
        for number in range(FRESH_SESSIONS):
            make.complete_session(study, seed=number)


def _releases() -> None:
    """One that a worker built, copies of its row, and a large one of the huge study: a .zip of 4 GB of nothing."""
    from django.conf import settings

    from annotations.models import Study
    from exports.models import Release
    from tests import factories as make

    built = make.make_release(Study.objects.get(slug="small-1"))
    if not built.is_ready:
        raise SystemExit(f"No release was built: {built}")
    rows = [
        Release(
            study=study,
            version=built.version + number,
            recipe=built.recipe,
            requested_at=built.requested_at,
            ready_at=built.ready_at,
            folder=f"{study.slug}-{number}",
            manifest=built.manifest,
            digest=built.digest,
            zip_sha256=built.zip_sha256,
            zip_bytes=LARGE_ZIP,
        )
        for study in Study.objects.filter(slug__in=[HUGE, "small-2"])
        for number in range(RELEASES // 2)
    ]
    Release.objects.bulk_create(rows)
    large = next(row for row in rows if row.study.slug == HUGE)
    folder = Path(settings.RELEASES_ROOT) / large.folder
    folder.mkdir(parents=True)
    with (folder / f"{large.name}.zip").open("wb") as file:
        file.truncate(LARGE_ZIP)
