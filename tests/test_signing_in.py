"""A password, then a code: for the console, the researcher's pages and the API alike."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest
import time_machine
from auditlog.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from knox.models import get_token_model
from pytest_django.fixtures import Settings

from annotations.sealing import unseal
from elicit import signing_in, throttling
from elicit.models import Authenticator
from tests import factories as make

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"
KEY = "3132333435363738393031323334353637383930"


@pytest.fixture(autouse=True)
def clock(settings: Settings) -> Iterator[time_machine.Traveller]:
    settings.THROTTLE_STORAGE = ""
    throttling.counts.cache_clear()
    with time_machine.travel(make.NOON, tick=False) as traveller:
        yield traveller
    throttling.counts.cache_clear()


@pytest.fixture
def curator() -> User:
    return make.make_curator()


@pytest.fixture
def device(curator: User) -> Authenticator:
    device: Authenticator = Authenticator.objects.create(user=curator, name="app", key=KEY)
    return device


def code(key: str = KEY) -> str:
    totp = TOTP(bytes.fromhex(key))
    totp.time = time.time()
    return f"{totp.token():06d}"


def password(client: Client, where: str = "/login/", username: str = "curator", word: str = PASSWORD) -> str:
    response = client.post(where, {"username": username, "password": word})
    return str(response.headers.get("Location", response.status_code))


def may_enter(client: Client, where: str = "/admin/") -> bool:
    return client.get(where).status_code == 200


# --- Without a device


def test_where_it_is_not_compulsory_a_password_is_enough(client: Client, curator: User) -> None:
    assert password(client, "/admin/login/?next=/admin/") == "/admin/"
    assert may_enter(client)


@pytest.mark.parametrize("where", ["/login/", "/admin/login/"])
def test_where_it_is_compulsory_the_set_up_comes_before_anything_else(
    client: Client, curator: User, settings: Settings, where: str
) -> None:
    settings.REQUIRE_TWO_FACTOR = True

    assert password(client, where) == "/login/two-factor/"

    for page in ("/admin/", "/releases/", "/api/releases", "/admin/annotations/study/"):
        assert not may_enter(client, page)


def test_the_set_up_shows_key_and_picture_and_ends_signed_in_with_recovery_codes(
    client: Client, curator: User, settings: Settings
) -> None:
    settings.REQUIRE_TWO_FACTOR = True
    password(client, "/admin/login/?next=/admin/")
    page = client.get("/login/two-factor/").content.decode()
    assert 'src="data:image/svg+xml' in page
    key = unseal(client.session[signing_in.NEW_KEY])

    wrong = client.post("/login/two-factor/", {"code": "000000"})
    assert (wrong.status_code, Authenticator.objects.count()) == (422, 0)
    done = client.post("/login/two-factor/", {"code": code(key)}).content.decode()

    codes = re.findall(r"<code>([0-9a-z]{5}-[0-9a-z]{5})</code>", done)
    assert len(set(codes)) == signing_in.RECOVERY_CODES
    assert 'href="/admin/"' in done
    assert may_enter(client)
    assert signing_in.NEW_KEY not in client.session
    # Kept as hashes: whoever reads the database signs in with none of them.
    assert not StaticToken.objects.filter(token__in=[each.replace("-", "") for each in codes]).exists()


def test_a_session_from_before_it_was_compulsory_ends(client: Client, curator: User, settings: Settings) -> None:
    client.force_login(curator)
    assert may_enter(client)

    settings.REQUIRE_TWO_FACTOR = True

    assert not may_enter(client)
    assert not may_enter(client, "/api/releases")


def test_annotators_are_asked_for_nothing(client: Client, settings: Settings) -> None:
    settings.REQUIRE_TWO_FACTOR = True
    study = make.make_study()

    response = client.get(f"/study/{study.slug}/")

    assert response.status_code == 200
    assert "sessionid" not in response.cookies


# --- With one


@pytest.mark.parametrize(("where", "following"), [("/login/", "/releases/"), ("/admin/login/", "/admin/")])
def test_a_password_alone_opens_nothing_once_there_is_a_device(
    client: Client, device: Authenticator, where: str, following: str
) -> None:
    assert password(client, where) == "/login/code/"
    for page in ("/admin/", "/releases/", "/api/releases", "/login/two-factor/"):
        assert not may_enter(client, page)

    before = client.session.session_key
    response = client.post("/login/code/", {"code": code()})

    assert response["Location"] == following
    assert may_enter(client)
    assert may_enter(client, "/api/releases")
    assert client.session.session_key != before


def test_a_code_with_a_gap_is_understood(client: Client, device: Authenticator) -> None:
    password(client)

    assert client.post("/login/code/", {"code": f" {code()[:3]} {code()[3:]} "}).status_code == 302


def test_a_code_works_once(client: Client, device: Authenticator) -> None:
    password(client)
    client.post("/login/code/", {"code": code()})
    second = Client()
    password(second)

    assert second.post("/login/code/", {"code": code()}).status_code == 422
    assert not may_enter(second)


def test_wrong_codes_make_wait_longer_each_time(
    client: Client, device: Authenticator, clock: time_machine.Traveller
) -> None:
    password(client)
    for wait in (1, 2, 4, 8):
        assert "not right" in client.post("/login/code/", {"code": "000000"}).content.decode()
        told = client.post("/login/code/", {"code": code()}).content.decode()
        assert f"Please wait: {wait} s" in told
        clock.shift(wait)

    assert client.post("/login/code/", {"code": code()}).status_code == 302


def test_a_code_page_without_a_password_before_leads_to_the_sign_in(client: Client, device: Authenticator) -> None:
    assert client.post("/login/code/", {"code": code()})["Location"] == "/login/"


def test_between_password_and_code_there_are_ten_minutes(
    client: Client, device: Authenticator, clock: time_machine.Traveller
) -> None:
    password(client)
    clock.shift(601)

    assert client.post("/login/code/", {"code": code()})["Location"] == "/login/"


def test_a_password_that_is_changed_meanwhile_ends_the_half_way(
    client: Client, curator: User, device: Authenticator
) -> None:
    password(client)
    curator.set_password("another horse altogether")
    curator.save()

    assert client.post("/login/code/", {"code": code()})["Location"] == "/login/"


def test_the_code_of_somebody_else_opens_nothing(client: Client, curator: User, device: Authenticator) -> None:
    other = make.make_staff("other")
    Authenticator.objects.create(user=other, name="app", key="00" * 20)
    password(client, username="other")

    assert client.post("/login/code/", {"code": code()}).status_code == 422


@pytest.mark.parametrize("address", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
def test_nobody_is_led_away(client: Client, device: Authenticator, address: str) -> None:
    client.post("/login/", {"username": "curator", "password": PASSWORD, "next": address})

    assert client.post("/login/code/", {"code": code()})["Location"] == "/releases/"


@pytest.mark.parametrize("typed", ["", "x", "12345", "1234567", "٠١٢٣٤٥", "²²²²²²", "a" * 500, "\0"])
def test_a_code_that_is_none_is_refused(client: Client, device: Authenticator, typed: str) -> None:
    password(client)

    assert client.post("/login/code/", {"code": typed}).status_code == 422
    assert not may_enter(client)


def test_a_recovery_code_lets_in_once(client: Client, curator: User, device: Authenticator) -> None:
    codes = signing_in._new_recovery_codes(curator)
    for attempt, expected in ((codes[0].upper(), 302), (codes[0], 422)):
        browser = Client()
        password(browser)
        assert browser.post("/login/code/", {"code": attempt}).status_code == expected
    assert StaticToken.objects.count() == signing_in.RECOVERY_CODES - 1


def test_new_recovery_codes_end_the_old_ones(client: Client, curator: User, device: Authenticator) -> None:
    old = signing_in._new_recovery_codes(curator)
    password(client)
    client.post("/login/code/", {"code": code()})

    page = client.post("/login/two-factor/codes/").content.decode()

    assert old[0] not in page
    browser = Client()
    password(browser)
    assert browser.post("/login/code/", {"code": old[0]}).status_code == 422


def test_another_authenticator_takes_the_place_of_the_first(client: Client, device: Authenticator) -> None:
    password(client)
    client.post("/login/code/", {"code": code()})
    client.get("/login/two-factor/")
    key = unseal(client.session[signing_in.NEW_KEY])

    client.post("/login/two-factor/", {"code": code(key)})

    assert Authenticator.objects.get().key == key


def test_half_way_nobody_sets_up_a_second_authenticator(client: Client, device: Authenticator) -> None:
    password(client)

    assert client.get("/login/two-factor/")["Location"] == "/login/"


# --- Passwords


def test_many_wrong_passwords_close_the_account_for_a_while(
    client: Client, curator: User, clock: time_machine.Traveller
) -> None:
    for _ in range(signing_in.MOST_WRONG_PASSWORDS):
        password(client, word="guess")

    answer = client.post("/login/", {"username": "CURATOR ".strip(), "password": PASSWORD})
    assert "Too many wrong passwords" in answer.content.decode()
    assert "Too many" in client.post("/admin/login/", {"username": "curator", "password": PASSWORD}).content.decode()
    make.make_staff("other")
    assert password(Client(), username="other") == "/releases/"
    clock.shift(601)
    assert password(client) == "/releases/"


def test_a_right_password_forgets_the_wrong_ones(client: Client, curator: User) -> None:
    for _ in range(3):
        for _ in range(signing_in.MOST_WRONG_PASSWORDS - 1):
            password(client, word="guess")
        assert password(client) == "/releases/"


def test_a_new_password_ends_every_other_session(client: Client, curator: User) -> None:
    other = Client()
    for browser in (client, other):
        password(browser)
    key = client.session.session_key
    new = "a much better horse"

    client.post("/admin/password_change/", {"old_password": PASSWORD, "new_password1": new, "new_password2": new})

    assert may_enter(client)
    assert client.session.session_key != key
    assert not may_enter(other)


def test_whoever_is_no_staff_can_not_sign_in_to_the_console(client: Client) -> None:
    User.objects.create_user("reader", password=PASSWORD)

    assert password(client, "/admin/login/", username="reader") == "200"
    assert password(client, "/login/", username="reader") == "/releases/"


# --- Tokens, reset, and what the log holds


def test_no_token_is_made_without_the_second_factor(client: Client, device: Authenticator) -> None:
    password(client)
    client.post("/releases/token")
    assert get_token_model().objects.count() == 0

    client.post("/login/code/", {"code": code()})
    client.post("/releases/token")
    assert get_token_model().objects.count() == 1


def test_a_reset_lets_set_up_anew(client: Client, curator: User, device: Authenticator, settings: Settings) -> None:
    settings.REQUIRE_TWO_FACTOR = True
    call_command("reset_two_factor", "curator", stdout=io.StringIO())

    assert password(client) == "/login/two-factor/"
    assert LogEntry.objects.filter(additional_data__what="took away the second factor").exists()
    with pytest.raises(CommandError, match="no account 'nobody'"):
        call_command("reset_two_factor", "nobody", stdout=io.StringIO())


def test_the_log_tells_of_sign_ins_and_of_failures_and_holds_no_secret(client: Client, device: Authenticator) -> None:
    password(client, word="guess-me")
    password(client, username="my-password-by-mistake")
    password(client)
    client.post("/login/code/", {"code": "000001"})
    entries = list(LogEntry.objects.filter(additional_data__what__isnull=False).order_by("pk"))

    assert [entry.additional_data["what"] for entry in entries] == [
        "gave a wrong password", "gave a wrong password", "gave a wrong code at sign-in",
    ]  # fmt: skip
    everything = str(list(LogEntry.objects.values()))
    for secret in ("guess-me", "my-password-by-mistake", KEY, "000001", PASSWORD):
        assert secret not in everything
    assert set(LogEntry.objects.values_list("remote_addr", flat=True)) == {None}


def test_the_database_holds_no_key_of_an_authenticator_that_can_be_read(client: Client, device: Authenticator) -> None:
    password(client)
    client.post("/login/code/", {"code": code()})
    client.get("/login/two-factor/")
    drawn = unseal(client.session[signing_in.NEW_KEY])

    told = str(list(Authenticator.objects.values())) + str([each.get_decoded() for each in Session.objects.all()])

    assert Authenticator.objects.get().key == KEY
    for key in (KEY, drawn):
        assert len(key) == 40
        assert key not in told


def test_an_authenticator_outlives_a_rotation_of_the_field_keys(
    client: Client, device: Authenticator, settings: Settings
) -> None:
    old, new = settings.FIELD_KEYS, ["another field key, long enough for it"]
    settings.FIELD_KEYS = [*new, *old]
    out = io.StringIO()
    call_command("reseal", stdout=out)
    settings.FIELD_KEYS = new

    password(client)

    assert "elicit.Authenticator: 1 rows" in out.getvalue()
    assert client.post("/login/code/", {"code": code()}).status_code == 302
    assert may_enter(client)


def test_a_field_key_that_is_lost_opens_nothing_and_says_whom_to_ask(
    client: Client, device: Authenticator, settings: Settings
) -> None:
    settings.FIELD_KEYS = ["another field key, long enough for it"]
    password(client)

    answer = client.post("/login/code/", {"code": code()})

    assert answer.status_code == 422
    assert "ask for a reset" in answer.content.decode()
    assert not may_enter(client)


@pytest.mark.django_db(transaction=True)
def test_authenticators_from_before_are_sealed_and_go_on(client: Client, curator: User) -> None:
    before = [("elicit", "0001_authenticators"), ("otp_totp", "0003_add_timestamps")]
    latest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    try:
        old = make.migrated_to(before).get_model("otp_totp", "TOTPDevice")
        made = old.objects.create(
            user_id=curator.pk, name="app", key=KEY, drift=1, last_t=7, throttling_failure_count=0
        )
        make.migrated_to(latest)

        device = Authenticator.objects.get()
        assert (device.user, device.key, device.drift, device.last_t) == (curator, KEY, 1, 7)
        assert device.created_at == made.created_at
        assert not TOTPDevice.objects.exists()
        password(client)
        assert client.post("/login/code/", {"code": code()}).status_code == 302

        old = make.migrated_to(before).get_model("otp_totp", "TOTPDevice")
        assert list(old.objects.values_list("key", flat=True)) == [KEY]
    finally:
        make.migrated_to(latest)


def test_the_keys_of_authenticators_are_shown_nowhere_in_the_console(client: Client, device: Authenticator) -> None:
    client.force_login(device.user)

    assert client.get("/admin/otp_totp/totpdevice/").status_code == 404
    assert client.get("/admin/elicit/authenticator/").status_code == 404
    assert client.get("/admin/otp_static/staticdevice/").status_code == 404
