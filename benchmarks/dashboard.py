"""How long a study's dashboard takes: `python -m benchmarks.dashboard`, some three minutes.

Fills a database with responses (10 categories, 25 images a session, 10 labels an image, given one after the other over
the last six hours). In a process of its own it sums the study up as a worker does,
then asks for the page as a browser does that is signed in, again and again: the seconds that the server takes, the
queries, and what a fragment and a drawing take. With --postgres the database is a PostgreSQL of its own, else SQLite.

Exits with 1 where the page of 100,000 responses takes 500 ms at the 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import apart

MOST_MS = {100_000: 500.0}
LABELS_PER_IMAGE = 10
PER_SESSION = 25


@dataclass(frozen=True)
class Figures:
    """Milliseconds of the server's own time; megabytes are 2**20 bytes, the highest resident size of the process that
    sums up, above what it had before. `first_ms`: the first page of a process. `load`: of the machine, at the end."""

    database: str
    responses: int
    page_ms: float
    page_p95_ms: float
    first_ms: float
    queries: int
    query_ms: float
    part_ms: float
    part_kb: float
    drawing_ms: float
    start_page_ms: float
    summary_seconds: float
    summary_mb: float
    summary_kb: float
    load: float

    @property
    def falls_short(self) -> bool:
        return self.page_p95_ms >= MOST_MS.get(self.responses, float("inf"))


def populate(responses: int) -> None:
    """One study of so many responses, live."""
    from datetime import timedelta

    from django.core.management import call_command
    from django.db import connection
    from django.utils import timezone

    from annotations.models import Place, Session, Study, StudyStatus
    from tests import crowds

    call_command("migrate", verbosity=0)
    study = crowds.answered_study(
        responses // LABELS_PER_IMAGE,
        LABELS_PER_IMAGE,
        per_session=PER_SESSION,
        until=timezone.now(),
        over=timedelta(hours=6),
    )
    Study.objects.filter(pk=study.pk).update(status=StudyStatus.LIVE)
    at_work = list(Session.objects.order_by("-seen_at").values_list("pk", flat=True)[:20])
    Session.objects.filter(pk__in=at_work).update(status="trials", completed_at=None)
    Place.objects.filter(session__in=at_work[:5]).update(session=None)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def measure(runs: int) -> dict[str, Any]:
    """The figures of the database that is there."""
    import numpy as np
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.cache import cache
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext
    from django.urls import reverse
    from django.utils import timezone

    from annotations.models import Response, Study, StudySummary
    from annotations.services import summaries

    study = Study.objects.get()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = summaries.summarise(study.pk, timezone.now)
    if row is None:
        raise SystemExit("The study is gone.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    settings.ALLOWED_HOSTS = ["testserver"]
    client = Client()
    user = User.objects.filter(username="curator").first() or User.objects.create_superuser("curator")
    client.force_login(user)
    here = reverse("admin:annotations_study_dashboard", args=[study.pk])

    def times(address: str, number: int) -> list[float]:
        found = []
        for _ in range(number):
            began = time.perf_counter()
            response = client.get(address)
            found.append((time.perf_counter() - began) * 1000)
            if response.status_code != 200:
                raise SystemExit(f"{address} answered {response.status_code}.")
        return found

    first = times(here, 1)[0]
    page = times(here, runs)
    part = times(here + "?part=1", max(5, runs // 4))
    with CaptureQueriesContext(connection) as seen:
        body = client.get(here + "?part=1").content
    asked = seen.captured_queries
    drawing = reverse("admin:annotations_study_figure", args=[study.pk, "entropy"])
    times(drawing, 1)
    cache.clear()
    return {
        "database": connection.vendor,
        "responses": Response.objects.count(),
        "page_ms": float(np.median(page)),
        "page_p95_ms": float(np.quantile(page, 0.95)),
        "first_ms": first,
        "queries": len(asked),
        "query_ms": sum(float(each["time"]) for each in asked) * 1000,
        "part_ms": float(np.median(part)),
        "part_kb": len(body) / 1024,
        "drawing_ms": float(np.median(times(drawing, 5))),
        "start_page_ms": float(np.median(times(reverse("admin:index"), 5))),
        "summary_seconds": row.seconds,
        "summary_mb": (peak - before) / 1024,
        "summary_kb": len(json.dumps(StudySummary.objects.get().data)) / 1024,
        "load": os.getloadavg()[0],
    }


def tell(found: Figures) -> None:
    print(
        f"{found.responses} responses on {found.database}: the page takes {found.page_ms:.0f} ms (median), "
        f"{found.page_p95_ms:.0f} ms (95th percentile), {found.first_ms:.0f} ms the first time; "
        f"{found.queries} queries, {found.query_ms:.0f} ms of it; load {found.load:.1f}\n"
        f"  a refresh {found.part_ms:.0f} ms and {found.part_kb:.0f} kB, a drawing {found.drawing_ms:.0f} ms, the "
        f"start page {found.start_page_ms:.0f} ms\n"
        f"  the summary, in a worker: {found.summary_seconds:.1f} s, {found.summary_mb:.0f} MB, kept in "
        f"{found.summary_kb:.0f} kB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[100_000], metavar="N")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    short = False
    for responses in options.responses:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
        with TemporaryDirectory(prefix="elicit-dashboard-") as folder:
            environment["ELICIT_VAR"] = folder
            if options.postgres:
                from tests import services

                environment["ELICIT_DATABASE_URL"] = services.postgres()
            apart.run("dashboard", environment, "populate", responses)
            found = Figures(**apart.run("dashboard", environment, "measure", options.runs))
        short |= found.falls_short
        if options.json:
            print(json.dumps(asdict(found)), flush=True)
        else:
            tell(found)
    raise SystemExit(short)


if __name__ == "__main__":
    if sys.argv[1:2] in (["populate"], ["measure"]):
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
        django.setup()
        if sys.argv[1] == "populate":
            populate(int(sys.argv[2]))
            print("null")
        else:
            print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main()
