"""Who is told to wait, for how long, and who is not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import time_machine
from django.conf import settings as configured
from django.test import Client, RequestFactory
from limits import RateLimitItemPerMinute, parse
from pytest_django.fixtures import Settings

from annotations.models import Session, Study
from elicit import throttling
from elicit.throttling import Counts, address_of, shared_storage
from tests import factories as make
from tests.services import ROOT, free_port

GENEROUS = "1000/minute"


@pytest.fixture(autouse=True)
def clock(settings: Settings) -> Iterator[time_machine.Traveller]:
    settings.THROTTLE_STORAGE = ""
    settings.RATES = {"address": GENEROUS, "begin": GENEROUS, "sign-in": GENEROUS, "holder": GENEROUS}
    throttling.counts.cache_clear()
    with time_machine.travel(make.NOON, tick=False) as traveller:
        yield traveller
    throttling.counts.cache_clear()


@pytest.fixture
def study(db: None) -> Study:
    return make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0)


@pytest.fixture
def session(study: Study) -> Session:
    return make.begin(make.make_session(study))


def standing(session: Session) -> int:
    return Client().get("/api/session", headers={"Authorization": f"Session {session.token}"}).status_code


def test_a_fresh_process_counts_from_its_first_requests_on() -> None:
    """`limits` looks for Redis's client among what is loaded: a thread may be only half way through loading it."""
    loaded = "import django; django.setup(); import elicit.throttling, sys; assert 'redis' in sys.modules"
    subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, check=True)


# --- Who is told to wait


def test_whoever_asks_too_often_by_one_link_waits_and_nobody_else(
    settings: Settings, study: Study, session: Session, clock: time_machine.Traveller
) -> None:
    other = make.begin(make.make_session(study, platform_id="other"))
    settings.RATES |= {"holder": "3/minute"}

    assert [standing(session) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert standing(other) == 200
    clock.shift(61)
    assert standing(session) == 200


def test_the_page_and_the_api_count_one_link_together(settings: Settings, session: Session) -> None:
    settings.RATES |= {"holder": "2/minute"}

    assert Client().get(f"/session/{session.token}/").status_code == 200
    assert standing(session) == 200
    assert standing(session) == 429
    assert Client().get(f"/session/{session.token}/").status_code == 429


def test_the_refusal_says_how_long_to_wait_to_programs_and_to_people(settings: Settings, session: Session) -> None:
    settings.RATES |= {"holder": "1/minute"}
    standing(session)

    told = Client().get("/api/session", headers={"Authorization": f"Session {session.token}"})
    assert told.json()["code"] == "throttled"
    assert told.headers["Retry-After"] == "60"
    page = Client().get(f"/session/{session.token}/", headers={"Accept-Language": "en"})
    assert "Nothing that you gave is lost" in page.content.decode()
    assert "Please wait 60 seconds" in page.content.decode()
    assert "请求过于频繁" in Client().get(
        f"/session/{session.token}/", headers={"Accept-Language": "zh-hans"}
    ).content.decode()  # fmt: skip


def test_an_answer_that_was_refused_for_haste_is_taken_later(
    settings: Settings, session: Session, clock: time_machine.Traveller
) -> None:
    settings.RATES |= {"holder": "1/minute"}
    trial = session.trials.order_by("position").first()
    assert trial is not None
    standing(session)

    def answer() -> int:
        return Client().put(
            f"/api/trials/{trial.pk}/responses/{trial.pk}",
            {"named": [{"category": 0, "percentage": 60}], "duration_ms": 900},
            content_type="application/json",
            headers={"Authorization": f"Session {session.token}"},
        ).status_code  # fmt: skip

    assert answer() == 429
    clock.shift(61)
    assert answer() == 201


def test_many_beginnings_from_one_address_wait_while_those_who_answer_go_on(
    settings: Settings, study: Study, session: Session
) -> None:
    settings.RATES |= {"begin": "2/minute"}

    def begin(path: str, **said: str) -> int:
        return Client().post(path, {"agree": "on", "version": 1}, **said).status_code  # type: ignore[arg-type]

    assert begin(f"/study/{study.slug}/") != 429
    assert begin(f"/api/studies/{study.slug}/sessions") != 429
    assert begin(f"/study/{study.slug}/") == 429
    assert begin(f"/study/{study.slug}/", REMOTE_ADDR="192.0.2.7") != 429
    assert Client().get(f"/study/{study.slug}/").status_code == 200
    assert standing(session) == 200


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/login/", "/admin/login/", "/login/code/", "/login/two-factor/"])
def test_guessing_at_a_sign_in_waits(settings: Settings, path: str) -> None:
    settings.RATES |= {"sign-in": "2/minute"}

    statuses = [Client().post(path, {"username": f"u{n}", "password": "x"}).status_code for n in range(3)]
    assert statuses[:2] != [429, 429]
    assert statuses[2] == 429
    assert Client().get("/login/").status_code == 200


@pytest.mark.django_db
def test_probes_of_a_load_balancer_are_never_told_to_wait(settings: Settings) -> None:
    settings.RATES |= {"address": "1/minute"}

    assert [Client().get(path).status_code for path in ("/healthz", "/readyz") * 3] == [200] * 6
    assert [Client().get("/api/schema").status_code for _ in range(2)] == [200, 429]


@pytest.mark.django_db
def test_with_the_rates_off_nobody_waits(settings: Settings, session: Session) -> None:
    settings.RATES = {}

    assert {standing(session) for _ in range(20)} == {200}


# --- Whose address it is


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "", "192.0.2.1"),
        (0, "198.51.100.9", "192.0.2.1"),
        (1, "198.51.100.9", "198.51.100.9"),
        (1, "203.0.113.5, 198.51.100.9", "198.51.100.9"),
        (2, "203.0.113.5, 198.51.100.9", "203.0.113.5"),
        (2, "198.51.100.9", "198.51.100.9"),
        (1, "", "192.0.2.1"),
        (1, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (1, "nonsense", "192.0.2.1"),
    ],
)
def test_only_what_our_own_proxies_heard_is_believed(
    settings: Settings, proxies: int, forwarded: str, expected: str
) -> None:
    settings.PROXIES = proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}

    assert address_of(RequestFactory().get("/", headers=headers, REMOTE_ADDR="192.0.2.1")) == expected


@pytest.mark.django_db
def test_a_made_up_forwarding_does_not_make_anybody_somebody_else(settings: Settings) -> None:
    settings.RATES |= {"address": "2/minute"}

    statuses = [Client().get("/", headers={"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in range(3)]
    assert statuses == [200, 200, 429]


# --- Counting together


def shared() -> str:
    address: str = configured.CELERY_BROKER_URL
    if not address.startswith("redis:"):
        pytest.skip("there is no Redis here")
    return address


def taken(processes: list[Counts], name: str) -> int:
    """How many of 40, who come at once to several processes, are let through where 10 may."""
    rate = parse("10/hour")
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda n: processes[n % len(processes)].take(rate, name), range(40))).count(0.0)


def test_processes_count_together_in_redis_and_each_for_itself_without() -> None:
    name = str(time.monotonic_ns())
    together = [Counts(shared_storage(shared())) for _ in range(2)]
    apart = [Counts(None) for _ in range(2)]

    assert taken(together, name) == 10
    assert taken(apart, name) == 20


def test_wrong_passwords_at_one_process_close_the_account_at_the_other() -> None:
    name, rate = str(time.monotonic_ns()), RateLimitItemPerMinute(3, 10)
    one, other = (Counts(shared_storage(shared())) for _ in "12")
    for _ in range(3):
        assert not other.is_used_up(rate, name)
        one.take(rate, name)

    assert other.is_used_up(rate, name)
    one.forget(rate, name)
    assert not other.is_used_up(rate, name)


def test_without_redis_each_process_goes_on_counting_and_asks_again_later() -> None:
    now = [0.0]
    patience = {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}
    asleep = shared_storage(f"redis://127.0.0.1:{free_port()}", **patience)
    counts = Counts(asleep, clock=lambda: now[0])
    rate = parse("2/minute")

    assert [counts.take(rate, "x") > 0 for _ in range(3)] == [False, False, True]
    assert counts._not_before == throttling.ASK_AGAIN_SECONDS
    now[0] = 11.0
    counts.take(rate, "x")
    assert counts._not_before == 21.0
