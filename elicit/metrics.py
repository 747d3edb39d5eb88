"""`/metrics`, as Prometheus reads it: what all processes have counted, and how things stand in the database.

Nothing here looks through responses, and no query grows with them: a scrape stays cheap with ten million. No sample
names a person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from limits.errors import StorageError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from annotations.selectors import dashboard, running
from elicit import counters, throttling
from exports import selectors as exported
from jobs import selectors as jobs

log = logging.getLogger(__name__)

# A database that takes longer over one of these figures counts as down.
PATIENCE = "5s"


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All metrics, for whoever sends `ELICIT_METRICS_TOKEN` as a bearer token; 404 where the site has none."""
    if not settings.METRICS_TOKEN:
        raise Http404
    keyword, _, token = request.headers.get("Authorization", "").partition(" ")
    if keyword != "Bearer" or not constant_time_compare(token, settings.METRICS_TOKEN):
        who = {"WWW-Authenticate": "Bearer"}
        return HttpResponse("ELICIT_METRICS_TOKEN is missing.\n", "text/plain", 401, headers=who)
    return HttpResponse(generate_latest(_counted()) + generate_latest(_standing), CONTENT_TYPE_LATEST)


def _counted() -> CollectorRegistry:
    """What was counted: by this process, or by all that share its folder."""
    if not counters.FOLDER:
        return counters.REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together, counters.FOLDER)  # type: ignore[no-untyped-call]  # registers itself
    return together


class Standing(Collector):
    """How things stand: everything that is read anew at each scrape, of all parts that answer."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("elicit_up", "Whether a part of the site does its work.", labels=["part"])
        try:
            with _patience():
                found = list(_of_database(timezone.now()))
        except (DatabaseError, InterfaceError) as error:
            log.warning("The database did not tell how things stand: %s", error)
            found = []
        up.add_metric(["database"], float(bool(found)))
        if settings.THROTTLE_STORAGE:
            up.add_metric(["redis"], float(_redis_answers()))
        yield up
        yield from found


_standing = CollectorRegistry()
_standing.register(Standing())


@contextmanager
def _patience() -> Iterator[None]:
    """Wait for no query longer than that. (SQLite has no such limit, and a transaction would take its lock.)"""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [PATIENCE])
        yield


def _redis_answers() -> bool:
    try:
        return throttling.shared_storage(settings.THROTTLE_STORAGE, **throttling.PATIENCE).check()
    except StorageError:
        return False


def _of_database(now: datetime) -> Iterator[GaugeMetricFamily]:
    studies = running.studies(now)
    yield _gauge("elicit_studies", "Studies, by status.", ["status"], running.studies_by_status())
    yield _gauge(
        "elicit_sessions",
        "Sessions of the studies that are live or paused, by status.",
        ["study", "status"],
        running.sessions_by_status(),
    )
    for name, says, value in _OF_STUDY:
        told = {study.slug: value(study) for study in studies}
        yield _gauge(name, says, ["study"], {slug: each for slug, each in told.items() if each is not None})
    machine = dashboard.machine(now, dashboard.limits())
    failed = {(kind, "failed"): number for kind, number in machine.failed.items()}
    yield _gauge(
        "elicit_jobs",
        "Background work that is queued or running, and what failed in the last 24 hours.",
        ["kind", "status"],
        jobs.unfinished() | failed,
    )
    waiting = (now - machine.waiting_since).total_seconds() if machine.waiting_since else 0.0
    yield _gauge(
        "elicit_oldest_due_job_seconds",
        "For how long the oldest due job has waited for a worker; training apart, which may wait for hours.",
        [],
        {(): waiting},
    )
    yield _gauge("elicit_releases", "Releases, by status.", ["status"], exported.releases_by_status())
    yield _gauge(
        "elicit_release_seconds",
        "For how long a release that is not there yet has stood at this stage.",
        ["study", "version", "status", "stage"],
        {
            (each.study, str(each.version), each.status, each.stage): (now - each.since).total_seconds()
            for each in exported.under_way()
        },
    )
    yield _gauge("elicit_disk_free_bytes", "Room left on the disk of ELICIT_VAR.", [], {(): machine.disk_free})
    yield _gauge("elicit_disk_bytes", "Size of the disk of ELICIT_VAR.", [], {(): machine.disk_total})


_OF_STUDY: list[tuple[str, str, Callable[[running.Running], float | None]]] = [
    ("elicit_study_labels", "Labels that count, as of the study's latest summary.", lambda study: study.labels),
    ("elicit_study_labels_wanted", "Labels that the study wants of all its images.", lambda study: study.wanted),
    ("elicit_study_summary_age_seconds", "How old the latest summary is.", lambda study: study.summary_age),
    (
        "elicit_study_places_free",
        f"Places that are free to take, counted up to {running.MOST_PLACES}.",
        lambda study: study.places_free,
    ),
]


def _gauge(name: str, says: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    """`values` by the labels' values: a word, or a tuple of them."""
    gauge = GaugeMetricFamily(name, says, labels=labels)
    for key, value in values.items():
        gauge.add_metric([key] if isinstance(key, str) else list(key), value)
    return gauge
