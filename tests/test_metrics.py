"""What `/metrics` tells, to whom, and at what price."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django.fixtures import Settings

from annotations import selectors
from annotations.models import Place, Session, Study, Trial
from annotations.selectors import running
from annotations.services import studies, summaries
from elicit import metrics, throttling
from elicit.labels.release_files import Recipe
from exports.kinds import BUILD_RELEASE
from exports.services import request_release
from jobs import services as jobs
from jobs.models import Job, Status
from tests import factories as make
from tests import services
from tests.services import Service

TOKEN = "a token for the tests, and long enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
Key = tuple[str, frozenset[tuple[str, str]]]


def read(text: str) -> dict[Key, float]:
    """The samples of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())


def scrape() -> dict[Key, float]:
    answer = Client().get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    return read(answer.content.decode())


@contextmanager
def counting() -> Iterator[Callable[..., float]]:
    """How far a counter has come since then."""
    before = scrape()

    def more(name: str, **labels: str) -> float:
        return scrape().get(key(name, **labels), 0.0) - before.get(key(name, **labels), 0.0)

    yield more


@pytest.fixture(autouse=True)
def _token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


@pytest.fixture
def study(db: None) -> Study:
    return make.make_study(
        dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0, labels_per_image=3
    )


@pytest.fixture
def session(study: Study) -> Session:
    return make.begin(make.make_session(study, platform_id="PERSON-5f2"))


def put(session: Session, trial: Trial, response_id: uuid.UUID | None = None, percentage: float = 60) -> int:
    return (
        Client()
        .put(
            f"/api/trials/{trial.pk}/responses/{response_id or uuid.uuid4()}",
            {"named": [{"category": 0, "percentage": percentage}], "duration_ms": 900},
            content_type="application/json",
            headers={"Authorization": f"Session {session.token}"},
        )
        .status_code
    )


# --- Who may read


@pytest.mark.django_db
def test_without_a_token_the_site_has_no_such_page(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""

    for headers in ({}, BEARER, {"Authorization": "Bearer "}):
        assert Client().get("/metrics", headers=headers).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    "said", ["", "Bearer", "Bearer wrong", f"Token {TOKEN}", f"bearer {TOKEN}", f"Bearer {TOKEN} ", "Bearer \xe9"]
)
def test_without_the_right_token_nothing_is_told(said: str) -> None:
    answer = Client().get("/metrics", headers={"Authorization": said})

    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert b"elicit_" not in answer.content


@pytest.mark.django_db
def test_whoever_signs_in_gets_no_further(client: Client) -> None:
    client.force_login(make.make_curator())

    assert client.get("/metrics").status_code == 401


@pytest.mark.django_db
def test_probes_may_call_the_site_by_any_name_and_need_no_https(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True

    for path, headers in (("/metrics", BEARER), ("/healthz", {}), ("/readyz", {})):
        answer = Client().get(path, headers={**headers, "Host": "172.18.0.5:8000"})
        assert answer.status_code == 200, path
        assert "no-store" in answer["Cache-Control"]


# --- What is counted


def test_answers_are_counted_once_and_sent_again_apart(session: Session) -> None:
    trial, response_id = selectors.open_trials(session)[0], uuid.uuid4()

    with counting() as more:
        assert [put(session, trial, response_id) for _ in range(3)] == [201, 200, 200]

        assert more("elicit_answers_accepted_total", study="birds") == 1
        assert more("elicit_answers_resent_total", study="birds") == 2


def test_refused_answers_are_counted_by_code(session: Session, study: Study) -> None:
    first, second = selectors.open_trials(session)[:2]
    other = make.begin(make.make_session(study))
    put(session, first)

    with counting() as more:
        assert put(session, first) == 409
        assert put(session, second, percentage=120) == 422
        assert put(other, second) == 404
        assert put(Session(token="nobody"), second) == 401

        assert more("elicit_answers_refused_total", code="trial_already_answered") == 1
        assert more("elicit_answers_refused_total", code="percentage_out_of_range") == 1
        assert more("elicit_answers_refused_total", code="not_found") == 1
        assert more("elicit_answers_refused_total", code="authentication_failed") == 1
        assert more("elicit_answers_accepted_total", study="birds") == 0


def test_a_failure_is_no_refusal(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("annotations.api.submit_response", fails)
    client = Client(raise_request_exception=False)
    trial = selectors.open_trials(session)[0]
    before = {name: value for name, value in scrape().items() if name[0] == "elicit_answers_refused_total"}

    with counting() as more:
        answer = client.put(
            f"/api/trials/{trial.pk}/responses/{uuid.uuid4()}",
            {"named": [{"category": 0, "percentage": 60}], "duration_ms": 900},
            content_type="application/json",
            headers={"Authorization": f"Session {session.token}"},
        )

        assert answer.status_code == 500
        assert more("elicit_request_seconds_count", route="put-response", status="5xx") == 1
    assert {name: value for name, value in scrape().items() if name[0] == "elicit_answers_refused_total"} == before


def test_requests_are_timed_by_route_and_class_of_status(session: Session, client: Client) -> None:
    client.force_login(make.make_curator())

    with counting() as more:
        Client().get(f"/session/{session.token}/")
        Client().get("/session/nobody/")
        Client().get("/nothing/")
        Client().get("/nothing/else/")
        client.get("/admin/annotations/study/")
        client.get("/admin/jobs/job/")

        assert more("elicit_request_seconds_count", route="session", status="2xx") == 1
        assert more("elicit_request_seconds_count", route="session", status="4xx") == 1
        assert more("elicit_request_seconds_count", route="none", status="4xx") == 2
        assert more("elicit_request_seconds_count", route="admin", status="2xx") == 2
        assert more("elicit_request_seconds_sum", route="session", status="2xx") > 0


def test_whoever_is_told_to_wait_is_counted_by_the_rule(session: Session, settings: Settings) -> None:
    settings.THROTTLE_STORAGE, settings.RATES = "", {"holder": "2/minute"}
    throttling.counts.cache_clear()

    with counting() as more:
        for _ in range(5):
            Client().get("/api/session", headers={"Authorization": f"Session {session.token}"})

        assert more("elicit_requests_throttled_total", rule="holder") == 3
    throttling.counts.cache_clear()


# --- How things stand


def test_a_study_tells_its_labels_its_places_and_its_sessions(study: Study) -> None:
    make.complete_session(study)
    make.begin(make.make_session(study, platform_id="PERSON-2"))
    draft = make.make_study(dataset=study.dataset, name="Later", launch=False)
    found = scrape()
    assert key("elicit_study_labels", study="birds") not in found

    with time_machine.travel(make.NOON, tick=False) as clock:
        summaries.summarise(study.pk, timezone.now)
        clock.shift(40)
        found = scrape()

    assert found[key("elicit_study_labels", study="birds")] == 4
    assert found[key("elicit_study_labels_wanted", study="birds")] == 12
    assert found[key("elicit_study_summary_age_seconds", study="birds")] == 40
    assert found[key("elicit_study_places_free", study="birds")] == 1
    assert found[key("elicit_sessions", study="birds", status="completed")] == 1
    assert found[key("elicit_sessions", study="birds", status="trials")] == 1
    assert found[key("elicit_studies", status="live")] == found[key("elicit_studies", status="draft")] == 1
    assert not [name for name in found if ("study", draft.slug) in name[1]]


def test_each_arm_wants_its_labels(db: None) -> None:
    study = make.make_study(
        dataset=make.make_dataset(4), images_per_session=4, labels_per_image=3, launch=False, repeats_per_session=0
    )
    for name in ("a", "b"):
        study.arms.create(name=name, settings={})
    studies.launch(study.pk, make.rng())

    found = scrape()

    assert found[key("elicit_study_labels_wanted", study="birds")] == 24
    assert found[key("elicit_study_places_free", study="birds")] == 6


def test_a_closed_study_is_not_told_any_more(study: Study) -> None:
    studies.close(study.pk)

    assert not [name for name in scrape() if ("study", study.slug) in name[1] and not name[0].endswith("total")]


def test_very_many_free_places_are_not_counted_to_the_end(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scrape()[key("elicit_study_places_free", study="birds")] == Place.objects.count() == 3
    monkeypatch.setattr(running, "MOST_PLACES", 2)
    assert scrape()[key("elicit_study_places_free", study="birds")] == 2


def test_the_queue_tells_what_waits_what_runs_and_what_failed(db: None) -> None:
    with time_machine.travel(make.NOON, tick=False) as clock:
        jobs.claim(jobs.enqueue("tests.slow", 1).pk)
        broken = jobs.claim(jobs.enqueue("tests.broken", 1).pk)
        done = jobs.claim(jobs.enqueue("tests.slow", 0).pk)
        assert broken is not None
        assert done is not None
        jobs.fail(broken, "no")
        jobs.finish(done)
        clock.shift(timedelta(seconds=5))
        for subject in "23":
            jobs.enqueue("tests.slow", subject)
        jobs.enqueue("tests.slow", 4, delay=timedelta(hours=1))
        # Which may wait behind work of hours.
        Job.objects.filter(pk=jobs.enqueue("exports.train", 1).pk).update(due_at=make.NOON - timedelta(days=1))
        clock.shift(timedelta(seconds=20))

        found = scrape()

        assert found[key("elicit_jobs", kind="tests.slow", status="running")] == 1
        assert found[key("elicit_jobs", kind="tests.slow", status="queued")] == 3
        assert found[key("elicit_jobs", kind="tests.broken", status="failed")] == 1
        assert found[key("elicit_oldest_due_job_seconds")] == 20
        clock.shift(timedelta(days=1))
        assert key("elicit_jobs", kind="tests.broken", status="failed") not in scrape()


def test_with_nothing_due_the_oldest_job_is_of_no_age(db: None) -> None:
    assert scrape()[key("elicit_oldest_due_job_seconds")] == 0


def test_releases_tell_how_they_stand_and_for_how_long(study: Study) -> None:
    make.complete_session(study)
    ready = make.make_release(study)
    failed = request_release(study_id=study.pk, recipe=Recipe(), user=None)
    Job.objects.filter(kind=BUILD_RELEASE, subject=str(failed.pk)).update(status=Status.FAILED)
    with time_machine.travel(make.NOON, tick=False) as clock:
        request_release(study_id=study.pk, recipe=Recipe(), user=None)
        building = request_release(study_id=study.pk, recipe=Recipe(), user=None)
        job = jobs.claim(Job.objects.get(kind=BUILD_RELEASE, subject=str(building.pk)).pk)
        assert job is not None
        jobs.report(job, "reading")
        clock.shift(timedelta(seconds=60))
        jobs.report(job, "packing", 1, 9)
        clock.shift(timedelta(seconds=30))

        found = scrape()

    assert ready.is_ready
    for status in ("ready", "failed", "requested", "building"):
        assert found[key("elicit_releases", status=status)] == 1, status
    assert found[key("elicit_release_seconds", study="birds", version="3", status="requested", stage="")] == 90
    assert found[key("elicit_release_seconds", study="birds", version="4", status="building", stage="packing")] == 30
    assert len([name for name in found if name[0] == "elicit_release_seconds"]) == 2


def test_the_disk_is_measured(db: None) -> None:
    found = scrape()

    assert 0 < found[key("elicit_disk_free_bytes")] < found[key("elicit_disk_bytes")]


# --- Down, dear, personal


def test_a_database_that_is_down_is_told_and_what_was_counted_is_told_all_the_same(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(session, selectors.open_trials(session)[0])
    assert scrape()[key("elicit_up", part="database")] == 1

    def away(*_: object) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(running, "sessions_by_status", away)
    found = scrape()

    assert found[key("elicit_up", part="database")] == 0
    assert found[key("elicit_answers_accepted_total", study="birds")] >= 1
    assert not [name for name in found if name[0] == "elicit_studies"]


@pytest.mark.django_db
@pytest.mark.postgres
def test_no_query_of_a_scrape_may_keep_a_thread_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def dawdle(now: object) -> list[object]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(20)")
        return []

    monkeypatch.setattr(metrics, "PATIENCE", "50ms")
    monkeypatch.setattr(running, "studies", dawdle)

    assert scrape()[key("elicit_up", part="database")] == 0


@pytest.mark.django_db
def test_a_redis_that_is_away_is_told_and_none_is_missed_where_there_is_none(settings: Settings) -> None:
    settings.THROTTLE_STORAGE = ""
    assert key("elicit_up", part="redis") not in scrape()
    settings.THROTTLE_STORAGE = f"redis://127.0.0.1:{services.free_port()}/0"
    assert scrape()[key("elicit_up", part="redis")] == 0


@pytest.mark.django_db
@pytest.mark.postgres
def test_a_redis_that_answers_is_up(settings: Settings) -> None:
    settings.THROTTLE_STORAGE = settings.CELERY_BROKER_URL

    assert scrape()[key("elicit_up", part="redis")] == 1


def test_a_scrape_asks_as_much_of_many_answers_as_of_none_and_looks_through_none(study: Study) -> None:
    scrape()
    with CaptureQueriesContext(connection) as before:
        scrape()
    for number in range(2):
        make.complete_session(study, seed=number)
    summaries.summarise(study.pk, timezone.now)

    with CaptureQueriesContext(connection) as after:
        scrape()

    assert len(after) == len(before) <= 20
    asked = " ".join(query["sql"] for query in after)
    assert "annotations_response" not in asked
    assert "annotations_trial" not in asked


def test_no_sample_names_a_person(session: Session, client: Client) -> None:
    user = User.objects.create_superuser("grace.hopper", "grace@example.org", "correct horse battery")
    client.force_login(user)
    client.get("/admin/")
    put(session, selectors.open_trials(session)[0])
    Client().get(f"/session/{session.token}/?pid=PERSON-5f2", headers={"X-Forwarded-For": "198.51.100.77"})

    text = Client().get("/metrics", headers=BEARER).content.decode()

    participant = session.participant
    people = ("PERSON-5f2", session.token, str(session.pk), participant.annotator, "grace", "198.51.100", "127.0.0.1")
    assert [each for each in people if each in text] == []
    labels = {name for found in read(text) for name, _ in found[1]}
    assert labels <= {"study", "code", "rule", "route", "status", "le", "part", "kind", "version", "stage"}


# --- A site in service


def ask(site: Service, path: str, method: str = "GET", data: object = None, **headers: str) -> tuple[int, str]:
    """The status and the body, over a connection of its own."""
    request = urllib.request.Request(  # noqa: S310 (our own address)
        f"{site.url}{path}",
        json.dumps(data).encode() if data is not None else None,
        {"Content-Type": "application/json", **headers},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def answer_all(site: Service, session: Session) -> list[int]:
    return [
        ask(
            site,
            f"/api/trials/{trial.pk}/responses/{trial.pk}",
            "PUT",
            {"named": [{"category": 3, "percentage": 80}], "duration_ms": 1000},
            Authorization=f"Session {session.token}",
        )[0]
        for trial in selectors.open_trials(session)
    ]


@pytest.mark.worker
def test_the_counts_of_all_processes_add_up_and_outlive_one_of_them(
    server_environment: dict[str, str], tmp_path: Path
) -> None:
    study = make.make_study(dataset=make.make_dataset(12), images_per_session=12, labels_per_image=8)
    people = [make.begin(make.make_session(study, seed=number), seed=number) for number in range(8)]
    told = {**server_environment, "ELICIT_METRICS_TOKEN": TOKEN, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    with services.web(told) as site:
        with ThreadPoolExecutor(8) as pool:
            statuses = [each for answers in pool.map(lambda who: answer_all(site, who), people) for each in answers]
        assert set(statuses) == {201}

        def counted() -> dict[Key, float]:
            status, text = ask(site, "/metrics", **BEARER)
            assert status == 200
            return read(text)

        found = counted()
        assert found[key("elicit_answers_accepted_total", study="birds")] == len(statuses)
        times = key("elicit_request_seconds_count", route="put-response", status="2xx")
        assert found[times] == len(statuses)
        # Both have written, and neither all of it.
        written = [path for path in tmp_path.glob("counter_*.db") if b"elicit_answers_accepted" in path.read_bytes()]
        assert len(written) == 2
        assert found[key("elicit_up", part="database")] == found[key("elicit_up", part="redis")] == 1

        workers = [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", site.output())]
        os.kill(workers[0], signal.SIGKILL)
        assert counted()[key("elicit_answers_accepted_total", study="birds")] == len(statuses)


@pytest.mark.worker
def test_a_site_without_its_database_answers_a_scrape(tmp_path: Path) -> None:
    nowhere = f"postgres://nobody:x@127.0.0.1:{services.free_port()}/none"
    told = {"ELICIT_DATABASE_URL": nowhere, "ELICIT_VAR": str(tmp_path), "ELICIT_METRICS_TOKEN": TOKEN}

    with services.web(told) as site:
        assert ask(site, "/readyz")[0] == 503
        status, text = ask(site, "/metrics", **BEARER)

    assert status == 200
    found = read(text)
    assert found[key("elicit_up", part="database")] == 0
    assert found[key("elicit_request_seconds_count", route="readyz", status="5xx")] == 1
