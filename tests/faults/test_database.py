"""PostgreSQL dies, hangs, is full, is read only or takes no more connections, under a real site."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from django.conf import settings
from django.db import connection

from annotations import selectors
from annotations.models import Participant, Response, Session
from tests import factories as make
from tests import services
from tests.faults.conftest import Until

pytestmark = [pytest.mark.worker, pytest.mark.postgres]

STATEMENT_SECONDS, GRACE_SECONDS, CONNECT_SECONDS = 1.0, 5.0, 1.0
# On top of what the site may take, on a busy machine.
SLACK = 4.0
IMPATIENT = {
    "ELICIT_DATABASE_STATEMENT_SECONDS": f"{STATEMENT_SECONDS}",
    "ELICIT_DATABASE_LOCK_SECONDS": "0.5",
    "ELICIT_DATABASE_CONNECT_SECONDS": f"{CONNECT_SECONDS}",
}
SAID = {"named": [{"category": 3, "percentage": 80}], "impossible": [], "duration_ms": 1000, "hidden_ms": 0}


@dataclass(frozen=True)
class Told:
    status: int
    text: str
    retry_after: str
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(url: str, *, token: str = "", body: object = None, method: str | None = None, language: str = "en") -> Told:
    headers = {"Accept-Language": language, "Content-Type": "application/json"}
    headers |= {"Authorization": f"Session {token}"} if token else {}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 (our own address)
    began = time.monotonic()
    try:
        answer: Any = urllib.request.urlopen(request, timeout=60)  # noqa: S310 (our own address)
    except urllib.error.HTTPError as error:
        answer = error
    with closing(answer):
        text = answer.read().decode()
        return Told(answer.status, text, answer.headers.get("Retry-After", ""), time.monotonic() - began)


def is_unavailable(told: Told) -> bool:
    return (told.status, told.json["code"], told.retry_after) == (503, "unavailable", "5")


# --- A PostgreSQL of the test's own: it dies and hangs


def on_its_own_postgres(test: Callable[..., None]) -> Callable[..., None]:
    """In one process, for all of them; an installation takes its time on a busy machine."""
    for mark in (pytest.mark.xdist_group("own-postgres"), pytest.mark.slow, pytest.mark.timeout(400)):
        test = mark(test)
    return test


@dataclass
class Place:
    server: services.Server
    environment: dict[str, str]
    token: str

    @contextmanager
    def site(self) -> Iterator[services.Service]:
        with services.web({**self.environment, **IMPATIENT}) as site:
            yield site


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An installation with one session that answers."""
    with ExitStack() as stack:
        server = services.own_postgres({"max_connections": "20"})
        stack.callback(server.service.stop)
        environment = {
            "ELICIT_DATABASE_URL": server.url,
            "ELICIT_BROKER_URL": settings.CELERY_BROKER_URL,
            "ELICIT_VAR": str(tmp_path_factory.mktemp("own")),
            "ELICIT_STATIC_ROOT": str(settings.STATIC_ROOT),
        }

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=services.ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return done.stdout

        run("manage.py", "migrate", "--verbosity", "0")
        [token] = json.loads(run("-m", "benchmarks.faults", "populate", "1", "2"))
        yield Place(server, environment, token)


def take_one_more(place: Place, stack: ExitStack) -> bool:
    """Open a connection that stays for as long as the stack. Whether it was one too many."""
    try:
        stack.callback(psycopg2.connect(place.server.url).close)
    except psycopg2.OperationalError as error:
        return "too many clients" in str(error)
    return False


@on_its_own_postgres
def test_without_its_database_the_site_says_so_and_goes_on_when_it_is_back(
    place: Place, until: Until, collected: Path
) -> None:
    with place.site() as site:
        page, api = f"{site.url}/session/{place.token}/", f"{site.url}/api/session"
        assert (ask(page).status, ask(api, token=place.token).status) == (200, 200)

        place.server.kill()
        for _ in range(3):
            assert is_unavailable(ask(api, token=place.token))
        told = ask(page, language="zh-CN")
        assert (told.status, told.retry_after) == (503, "5")
        assert "网站暂时无法响应" in told.text
        assert ask(f"{site.url}/readyz").status == 503
        assert ask(f"{site.url}/healthz").status == 200
        assert "Traceback" not in site.output()

        place.server.start_again()
        until(lambda: ask(api, token=place.token).status == 200)
        assert ask(page).status == 200


@on_its_own_postgres
def test_a_database_that_hangs_holds_no_thread_for_ever(place: Place, until: Until, collected: Path) -> None:
    with place.site() as site:
        api = f"{site.url}/api/session"
        with ThreadPoolExecutor(16) as crowd:
            # Every thread of both processes has its connection.
            assert {told.status for told in crowd.map(lambda _: ask(api, token=place.token), range(32))} == {200}
            place.server.signal(signal.SIGSTOP)
            try:
                hung = list(crowd.map(lambda _: ask(api, token=place.token), range(16)))
                assert all(map(is_unavailable, hung))
                # A thread finds out that its connection is dead, and after that none: whoever is served next by it
                # waits for that alone. At worst one process has all sixteen.
                rounds = 16 / 4
                longest = STATEMENT_SECONDS + GRACE_SECONDS + rounds * CONNECT_SECONDS
                assert max(told.seconds for told in hung) < longest + SLACK
                assert ask(f"{site.url}/healthz").status == 200
                once_more = ask(api, token=place.token)
                assert is_unavailable(once_more)
                assert once_more.seconds < STATEMENT_SECONDS + GRACE_SECONDS + CONNECT_SECONDS + SLACK
            finally:
                place.server.signal(signal.SIGCONT)
            until(lambda: ask(api, token=place.token).status == 200)


@on_its_own_postgres
def test_a_database_without_a_free_connection_is_told_as_one_that_is_away(
    place: Place, until: Until, collected: Path
) -> None:
    with place.site() as site, ExitStack() as stack:
        api = f"{site.url}/api/session"
        while not take_one_more(place, stack):
            pass
        assert is_unavailable(ask(api, token=place.token))
        assert "网站暂时无法响应" in ask(f"{site.url}/session/{place.token}/", language="zh-CN").text
        stack.close()
        until(lambda: ask(api, token=place.token).status == 200)


# --- The tests' own PostgreSQL: it refuses


@pytest.fixture
def session(transactional_db: None) -> Session:
    return make.begin(make.make_session(make.make_study(dataset=make.make_dataset(4), images_per_session=4)))


@pytest.fixture
def site(server_environment: dict[str, str], session: Session, collected: Path) -> Iterator[services.Service]:
    with services.web({**server_environment, **IMPATIENT}) as site:
        yield site


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def put(site: services.Service, session: Session, response_id: uuid.UUID) -> Told:
    trial = selectors.open_trials(session)[0]
    url = f"{site.url}/api/trials/{trial.pk}/responses/{response_id}"
    return ask(url, token=session.token, body=SAID, method="PUT")


@contextmanager
def on_each_answer(does: str) -> Iterator[None]:
    """Let the database do this after it has taken an answer in, and before the session is moved on."""
    execute(f"CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; RETURN NULL; END $$")
    execute("CREATE TRIGGER fault AFTER INSERT ON annotations_response FOR EACH ROW EXECUTE FUNCTION fault()")
    try:
        yield
    finally:
        execute("DROP TRIGGER fault ON annotations_response")
        execute("DROP FUNCTION fault")


FAULTS = {
    "the disk is full": "RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file'",
    "a statement takes for ever": "PERFORM pg_sleep(600)",
    "a deadlock": "RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'",
    "it is shut down": "PERFORM pg_terminate_backend(pg_backend_pid())",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_the_database_cannot_take_is_not_half_stored_and_is_taken_when_it_can(
    site: services.Service, session: Session, fault: str
) -> None:
    seen_at, response_id = session.seen_at, uuid.uuid4()
    with on_each_answer(FAULTS[fault]):
        told = put(site, session, response_id)
    assert is_unavailable(told)
    assert told.seconds < STATEMENT_SECONDS + SLACK
    session.refresh_from_db()
    assert (Response.objects.count(), session.seen_at) == (0, seen_at)

    assert [put(site, session, response_id).status, Response.objects.count()] == [201, 1]


def test_whoever_finds_their_session_locked_waits_no_longer_than_the_limit(
    site: services.Service, session: Session
) -> None:
    address = urlsplit(os.environ["ELICIT_DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    response_id = uuid.uuid4()
    with closing(psycopg2.connect(address.geturl())) as other, other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM annotations_session WHERE id = %s FOR UPDATE", [str(session.pk)])
        told = put(site, session, response_id)
        assert is_unavailable(told)
        assert told.seconds < 0.5 + SLACK
    assert put(site, session, response_id).status == 201


def test_a_database_that_is_read_only_is_read_and_nothing_is_half_written(
    server_environment: dict[str, str], session: Session, collected: Path
) -> None:
    name = connection.settings_dict["NAME"]
    execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    people = Participant.objects.count()
    try:
        with services.web({**server_environment, **IMPATIENT}) as site:
            assert ask(f"{site.url}/api/studies/{session.study.slug}").status == 200
            assert is_unavailable(put(site, session, uuid.uuid4()))
            began = ask(f"{site.url}/api/studies/{session.study.slug}/sessions", body={"consent_version": 1})
            assert is_unavailable(began)
    finally:
        execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert (Response.objects.count(), Participant.objects.count()) == (0, people)
