"""The product at the size of a large campaign: `python -m benchmarks.simulate_scale`, see --help.

Starts a PostgreSQL of its own with the settings of a small server, fills it in bulk (`benchmarks/filling.py`: one huge
live study in batches, small ones, two handed out one by one and just launched), and asks in a process of its own for
what annotators, curators and researchers ask for: milliseconds, queries, and of what falls short the slowest query.
Then what the beat asks for, minute by minute, and what a new index and a new column cost while answers come in. Exits
with 1 where something takes longer than it may.

The database is removed at the end unless `--keep FOLDER` names a place for it; one that is filled there is used again,
with the migrations that it lacks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import apart
from benchmarks.filling import FRESH, FRESH_SMALL, HUGE, LARGE_ZIP

# Of a small server; what tests switch off for speed is on.
POSTGRES = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "2GB",
    "effective_cache_size": "6GB",
    "work_mem": "32MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
}
START_MS, ANSWER_MS, PAGE_MS, SWEEP_MS = 100.0, 30.0, 1000.0, 5000.0


@dataclass
class Measured:
    """`times`: milliseconds of the server's own time, each; `most`: what their 95th percentile may be."""

    name: str
    most: float
    times: list[float]
    queries: int
    query_ms: float
    slowest: str
    slowest_ms: float
    note: str = ""
    p50: float = field(init=False)
    p95: float = field(init=False)

    def __post_init__(self) -> None:
        self.p50 = float(np.median(self.times))
        self.p95 = float(np.quantile(self.times, 0.95))

    @property
    def falls_short(self) -> bool:
        return self.p95 >= self.most


def measure(runs: int, explain: bool, only: str) -> list[dict[str, Any]]:
    """Everything of the filled database that is there whose name has `only` in it."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connection

    settings.ALLOWED_HOSTS = ["testserver"]
    began = time.perf_counter()
    call_command("migrate", verbosity=0)
    print(f"migrations that it lacked: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    found: list[Measured] = []
    measuring = _Measuring(runs, explain, only, found)
    curator = User.objects.get(username="curator")
    _annotators(measuring)
    _pages(measuring, curator)
    _sweeps(measuring)
    _changes(measuring)
    connection.close()
    return [asdict(each) for each in found]


class _Measuring:
    def __init__(self, runs: int, explain: bool, only: str, found: list[Measured]) -> None:
        self.runs, self.explain, self.only, self.found = runs, explain, only, found

    def wants(self, name: str) -> bool:
        return self.only in name

    def __call__(self, name: str, most: float, do: Callable[[], object], *, runs: int = 0, warm: int = 1) -> None:
        """Do it `warm` times unmeasured, then so often measured, and once with its queries watched. What takes long is
        done less often."""
        if not self.wants(name):
            return
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        began = time.perf_counter()
        for _ in range(warm):
            do()
        long = (time.perf_counter() - began) / max(1, warm) > 2
        times, note = [], ""
        for _ in range(2 if long and not runs else runs or self.runs):
            began = time.perf_counter()
            note = str(do() or "")
            times.append((time.perf_counter() - began) * 1000)
        with CaptureQueriesContext(connection) as seen:
            do()
        asked = [(float(each["time"]) * 1000, each["sql"]) for each in seen.captured_queries]
        slowest = max(asked, default=(0.0, ""))
        self.add(Measured(name, most, times, len(asked), sum(ms for ms, _ in asked), slowest[1], slowest[0], note))

    def add(self, row: Measured) -> None:
        self.found.append(row)
        tell(row)
        if row.falls_short:
            print(f"      {row.slowest_ms:.0f} ms: {row.slowest[:300]}", file=sys.stderr)
            if self.explain and row.slowest.startswith("SELECT"):
                print(_plan(row.slowest), file=sys.stderr)


def _plan(query: str) -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) " + query.replace("%", "%%"))
        return "\n".join(f"      {line}" for (line,) in cursor.fetchall())


def _annotators(measuring: _Measuring) -> None:
    """Sittings through the pages and the API, as a browser's requests: the start of each, and its answers."""
    from annotations.models import Study

    for slug, name in (
        (FRESH, "one by one, large"),
        (FRESH_SMALL, "one by one, 1,000 images"),
        (HUGE, "batches, huge"),
    ):
        if not (measuring.wants(f"session start, {name}") or measuring.wants(f"answer, {name}")):
            continue
        if not Study.objects.filter(slug=slug, status="live").exists():
            continue
        starts: list[Measured] = []
        answers: list[Measured] = []
        for number in range(measuring.runs + 1):
            start, said = _sitting(slug, number)
            if number:  # the first one warms up
                starts.append(start)
                answers += said
        for kind, most, rows in (("session start", START_MS, starts), ("answer", ANSWER_MS, answers)):
            worst = max(rows, key=lambda row: row.slowest_ms)
            times = [row.times[0] for row in rows]
            measuring.add(
                Measured(
                    f"{kind}, {name}", most, times, max(row.queries for row in rows),
                    float(np.median([row.query_ms for row in rows])), worst.slowest, worst.slowest_ms,
                )
            )  # fmt: skip


def _sitting(slug: str, number: int) -> tuple[Measured, list[Measured]]:
    """Consent to first trial, and ten answers. The time between is the server's; queries are watched all along."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from annotations.models import Recruitment, SessionStatus, Study
    from annotations.models import Session as Sat
    from annotations.services import sessions

    study = Study.objects.get(slug=slug)
    client = Client()
    query = ""
    if Recruitment.objects.filter(study=study, platform="prolific").exists():
        ids = {name: uuid.uuid4().hex[:24] for name in ("PROLIFIC_PID", "SESSION_ID")}
        query = "?" + "&".join(f"{k}={v}" for k, v in {**ids, "STUDY_ID": "5f0000000000000000000000"}.items())
    door = f"/study/{slug}/{query}"

    def timed(do: Callable[[], Any], name: str) -> tuple[Measured, Any]:
        with CaptureQueriesContext(connection) as seen:
            began = time.perf_counter()
            got = do()
            took = (time.perf_counter() - began) * 1000
        asked = [(float(each["time"]) * 1000, each["sql"]) for each in seen.captured_queries]
        worst = max(asked, default=(0.0, ""))
        return Measured(name, 0, [took], len(asked), sum(ms for ms, _ in asked), worst[1], worst[0]), got

    consent = client.get(door)
    if consent.status_code != 200:
        raise SystemExit(f"{door} answered {consent.status_code}: {consent.content[:500]!r}")
    version = study.consents.order_by("-version").values_list("version", flat=True)[0]
    parts = []
    part, agreed = timed(lambda: client.post(door, {"agree": "on", "version": version}), "agree")
    parts.append(part)
    if agreed.status_code != 302:
        raise SystemExit(f"{door} answered {agreed.status_code}: {agreed.content[:2000]!r}")
    token = agreed["Location"].rstrip("/").rpartition("/")[2]
    parts.append(timed(lambda: client.get(f"/session/{token}/"), "instructions")[0])
    session = Sat.objects.get(token=token)
    if study.comprehension or study.practice:
        # Past what a person does in minutes, to the hand-out itself.
        Sat.objects.filter(pk=session.pk).update(status=SessionStatus.COMPREHENSION)
        parts.append(timed(lambda: _begin(sessions, session.pk), "begin")[0])
    else:
        parts.append(timed(lambda: client.post(f"/session/{token}/instructions"), "begin")[0])
    part, page = timed(lambda: client.get(f"/session/{token}/"), "first trial")
    parts.append(part)
    if b"trial-data" not in page.content and page.headers.get("Content-Encoding") != "gzip":
        raise SystemExit(f"No trial came: {page.content[:500]!r}")
    worst = max(parts, key=lambda each: each.slowest_ms)
    start = Measured(
        "start", 0, [sum(each.times[0] for each in parts)], sum(each.queries for each in parts),
        sum(each.query_ms for each in parts), worst.slowest, worst.slowest_ms,
    )  # fmt: skip
    said = []
    trial = str(session.trials.order_by("position").exclude(kind="practice").values_list("pk", flat=True)[0])
    for _ in range(10):
        body = {
            "named": [{"category": 3, "percentage": 80}, {"category": 5, "percentage": 15}],
            "impossible": [0, 1],
            "duration_ms": 4200,
        }

        def put(trial: str = trial, body: dict[str, Any] = body) -> Any:
            address = f"/api/trials/{trial}/responses/{uuid.uuid4()}"
            head = {"Authorization": f"Session {token}"}
            return client.put(address, json.dumps(body), content_type="application/json", headers=head)

        row, got = timed(put, "answer")
        if got.status_code != 201:
            raise SystemExit(f"An answer was refused: {got.status_code} {got.content!r}")
        said.append(row)
        trial = got.json()["next"]["id"]
    return start, said


def _begin(sessions: Any, pk: uuid.UUID) -> None:
    from django.utils import timezone

    sessions.begin_trials(session_id=pk, now=timezone.now(), rng=np.random.default_rng())


def _pages(measuring: _Measuring, curator: Any) -> None:
    from auditlog.models import LogEntry
    from django.test import Client
    from django.urls import reverse

    from annotations.models import Dataset, Participant, Session, Study
    from exports.models import Release
    from jobs.models import Job

    client = Client()
    client.force_login(curator)
    huge = Study.objects.get(slug=HUGE)
    fresh = Study.objects.filter(slug=FRESH, status="live").first()
    dataset = Dataset.objects.get(slug="large")
    sat = Session.objects.filter(study=huge, status="completed").order_by("-seen_at").select_related("participant")[0]
    person: Participant = sat.participant
    large = Release.objects.filter(study=huge).order_by("version").first()
    built = Release.objects.filter(study__slug="small-1").order_by("version").first()

    def page(name: str, address: str, *, expect: Sequence[int] = (200,)) -> None:
        def get() -> object:
            answer = client.get(address)
            if answer.status_code not in expect:
                raise SystemExit(f"{address} answered {answer.status_code}.")
            if answer.streaming:
                next(iter(answer))
                answer.close()
            return ""

        measuring(name, PAGE_MS, get)

    def of(study: Any, key: str, *args: Any) -> str:
        return reverse(f"admin:annotations_study_{key}", args=[study.pk, *args])

    def lists(model: str) -> str:
        return reverse(f"admin:{model}_changelist")

    page("start page", reverse("admin:index"))
    page("studies", lists("annotations_study"))
    for study, name in ((huge, "huge"), (fresh, "one by one, large")):
        if study is None:
            continue
        page(f"study, {name}", of(study, "change"))
        page(f"dashboard, {name}", of(study, "dashboard"))
        page(f"dashboard refresh, {name}", of(study, "dashboard") + "?part=1")
        for key in ("images", "people", "plan", "privacy", "arms", "quality"):
            page(f"{key}, {name}", of(study, key))
    page("quality, flagged, by score", of(huge, "quality") + "?show=flagged&sort=-score&page=2")
    page("quality rules", of(huge, "quality_rules"))
    page("one annotator's quality", of(huge, "quality_card", sat.pk))
    page("quality as CSV, first line", of(huge, "quality_csv"))
    page("payments to make", of(huge, "people_pay"))
    page("one image's answers", of(huge, "image", 17))

    def last(model: Any) -> int:
        return int(model.objects.count()) // 100 - 1

    images = dataset.images.count()
    sessions = lists("annotations_session")
    page("sessions", sessions)
    page("sessions, in the middle", f"{sessions}?p={last(Session) // 2}")
    page("sessions, last page", f"{sessions}?p={last(Session)}")
    page("sessions of a study and state", f"{sessions}?study__id__exact={huge.pk}&status__exact=completed")
    page("sessions, found by annotator", f"{sessions}?q={person.annotator}")
    page("sessions, by verdict", f"{sessions}?consistency__verdict__exact=inconsistent")
    page("session", reverse("admin:annotations_session_change", args=[sat.pk]))
    people = lists("annotations_participant")
    page("participants", people)
    page("participants, last page", f"{people}?p={last(Participant)}")
    page("participants, found by annotator", f"{people}?q={person.annotator}")
    page("participants of a study", f"{people}?study__id__exact={huge.pk}")
    page("participant", reverse("admin:annotations_participant_change", args=[person.pk]))
    page("datasets", lists("annotations_dataset"))
    own = reverse("admin:annotations_dataset_change", args=[dataset.pk])
    page("dataset", own)
    page("dataset, in the middle", f"{own}?page={images // 200}")
    page("dataset, last page", f"{own}?page={images}")
    page("dataset, one class, deep", f"{own}?category=3&page={images // 2000}")
    page("jobs", lists("jobs_job"))
    page("jobs, failed", f"{lists('jobs_job')}?status__exact=failed")
    page("jobs, last page", f"{lists('jobs_job')}?p={last(Job)}")
    log = lists("auditlog_logentry")
    page("audit log", log)
    page("audit log of a study", f"{log}?study={huge.pk}")
    page("audit log, found by name", f"{log}?q=abcdef")
    page("audit log, last page", f"{log}?p={last(LogEntry)}")
    page("people with access", reverse("access"))
    page("releases in the console", lists("exports_release"))
    if large and built:
        page("release in the console", reverse("admin:exports_release_change", args=[large.pk]))
        page("release", reverse("release", args=[built.study.slug, built.version]))
        download = reverse("release-file", args=[HUGE, large.version, "release.zip"])
        page(f"first byte of {LARGE_ZIP >> 30} GB", download)
    page("a release's form", reverse("admin:exports_release_add"))
    page("releases", reverse("releases"))
    page("API: releases", reverse("releases-api"))
    page("API: releases, deep", reverse("releases-api") + "?offset=250")
    page("API: dashboard", reverse("dashboard-api", args=[HUGE]))

    def request() -> object:
        from django.db import transaction

        from elicit.labels.release_files import Recipe
        from exports import services

        with transaction.atomic():
            services.request_release(study_id=huge.pk, recipe=Recipe(), user=curator)
            transaction.set_rollback(True)
        return ""

    measuring("release asked for", PAGE_MS, request)


def _sweeps(measuring: _Measuring) -> None:
    """What the beat and its jobs do, in this process; megabytes are what its highest resident size grew by."""
    from django.utils import timezone

    from annotations.models import Study
    from annotations.services import erasing, places, quality, recruitment, sessions, summaries
    from jobs import services as jobs

    huge = Study.objects.get(slug=HUGE)
    sat = huge.sessions.filter(status="completed").order_by("-completed_at").values_list("pk", flat=True)[0]
    measuring("beat: touched batches", 100, places.ring_for_touched)
    measuring("beat: idle sessions", 500, lambda: sessions.give_back_places(timezone.now()), warm=0, runs=2)
    measuring("beat: summaries due", 500, lambda: summaries.ask_for_live(timezone.now()))
    measuring("beat: jobs", 500, jobs.sweep)
    measuring("beat: platforms", 500, lambda: recruitment.watch(timezone.now()))
    measuring("beat: retention", SWEEP_MS, lambda: erasing.erase_what_is_due(timezone.now()))
    measuring("job: one session's check", 500, lambda: quality.check_session(str(sat), timezone.now()))

    def grown(do: Callable[[], object]) -> Callable[[], object]:
        def doing() -> str:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            do()
            return f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB more"

        return doing

    once: dict[str, Any] = {"runs": 1, "warm": 0}
    measuring("job: measures, somebody new", 5000, grown(lambda: _measure_some(quality, huge)), **once)
    measuring("job: summary", 120_000, grown(lambda: summaries.summarise(huge.pk, timezone.now)), **once)


def _measure_some(quality: Any, study: Any) -> None:
    """Measure a study in which thirty sessions have ended since the last time."""
    from django.utils import timezone

    from annotations.models import SessionQuality

    newest = SessionQuality.objects.filter(session__study=study).order_by("-pk").values_list("pk", flat=True)[:30]
    SessionQuality.objects.filter(pk__in=list(newest)).delete()
    quality.measure_study(study.pk, timezone.now())


def _changes(measuring: _Measuring) -> None:
    """An index made concurrently and a column with a default, on the table of responses, while somebody answers."""
    from django.db import connection

    table = "annotations_response"
    statements = (
        ("new index, answers meanwhile", f"CREATE INDEX CONCURRENTLY scale_index ON {table} (received_at)"),
        ("new column, answers meanwhile", f"ALTER TABLE {table} ADD COLUMN scale_column integer NOT NULL DEFAULT 0"),
    )
    for name, statement in statements:
        if not measuring.wants(name):
            continue
        over = threading.Event()
        took: list[float] = []

        def answering(over: threading.Event = over, took: list[float] = took) -> None:
            number = 0
            while not over.is_set():
                took.extend(row.times[0] for row in _sitting(FRESH, number)[1])
                number += 1
            connection.close()

        thread = threading.Thread(target=answering)
        thread.start()
        while len(took) < 20 and thread.is_alive():
            time.sleep(0.1)
        del took[:]
        began = time.perf_counter()
        with connection.cursor() as cursor:
            cursor.execute(statement)
        seconds = time.perf_counter() - began
        while len(took) < 20 and thread.is_alive():
            time.sleep(0.1)
        over.set()
        thread.join()
        note = f"{seconds:.2f} s; {len(took)} answers, the slowest {max(took):.0f} ms"
        measuring.add(Measured(name, 250.0, took, 0, 0, "", 0, note))
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS scale_index")
        cursor.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS scale_column")


def tell(row: Measured) -> None:
    mark = "SHORT" if row.falls_short else ""
    times = f"{row.p50:9.1f} {row.p95:9.1f} ms"
    asked = f"{row.queries:5} queries {row.query_ms:9.1f} ms"
    print(f"{row.name:44} {times} {asked} {mark} {row.note}", file=sys.stderr, flush=True)


def sizes() -> list[tuple[str, int, int, int]]:
    """Of the largest tables: rows, bytes of the table, bytes of its indexes."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT relname, reltuples::bigint, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            ORDER BY pg_total_relation_size(oid) DESC LIMIT 14"""
        )
        found: list[tuple[str, int, int, int]] = cursor.fetchall()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--responses", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the filled database there, and use one there")
    parser.add_argument("--fill-only", action="store_true")
    parser.add_argument("--only", default="", metavar="WORDS", help="only what has these words in its name")
    parser.add_argument("--explain", action="store_true", help="the plan of the slowest query of what falls short")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from tests import services

    folder = options.keep or Path(tempfile.mkdtemp(prefix="elicit-scale-", dir="/tmp"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
    environment |= {"ELICIT_VAR": str(folder / "var"), "ELICIT_RATES": "off", "ELICIT_LOG_LEVEL": "ERROR"}
    try:
        environment["ELICIT_DATABASE_URL"] = services.own_postgres(POSTGRES, keep=folder / "postgres").url
        print(f"PostgreSQL: {environment['ELICIT_DATABASE_URL']}", file=sys.stderr)
        filled = folder / "filled.json"
        if not filled.exists():
            made = apart.run("simulate_scale", environment, "fill", options.images, options.responses)
            filled.write_text(json.dumps(made), encoding="utf-8")
        if not options.json:
            print(filled.read_text(encoding="utf-8"))
            for table, rows, heap, index in apart.run("simulate_scale", environment, "sizes"):
                print(f"{table:36} {rows:12,} rows {heap / 1e6:9,.0f} MB {index / 1e6:9,.0f} MB of indexes")
        if options.fill_only:
            return
        rows = apart.run("simulate_scale", environment, "measure", options.runs, int(options.explain), options.only)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    short = [row["name"] for row in rows if row["p95"] >= row["most"]]
    for row in rows:
        if options.json:
            print(json.dumps(row), flush=True)
    if short:
        print(f"Falls short: {', '.join(short)}")
    raise SystemExit(bool(short))


if __name__ == "__main__":
    if sys.argv[1:2] in (["fill"], ["measure"], ["sizes"]):
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
        django.setup()
        if sys.argv[1] == "fill":
            from benchmarks.filling import fill

            print(json.dumps(asdict(fill(int(sys.argv[2]), int(sys.argv[3])))))
        elif sys.argv[1] == "sizes":
            print(json.dumps(sizes()))
        else:
            print(json.dumps(measure(int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4])))
    else:
        main()
