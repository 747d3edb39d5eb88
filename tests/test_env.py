from __future__ import annotations

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from elicit import env

NAME = "ELICIT_SOMETHING"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ELICIT_SECRET_KEY", "ELICIT_FIELD_KEYS", "ELICIT_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


# --- Words, flags, numbers


def test_what_is_not_set_has_its_default() -> None:
    assert env.text(NAME, "x") == "x"
    assert env.text(NAME) == ""
    assert env.flag(NAME, default=True) is True
    assert env.number(NAME, 2.5) == 2.5
    assert env.words(NAME, "a, b") == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        ("1", True),
        ("TRUE", True),
        (" yes ", True),
        ("on", True),
        ("0", False),
        ("False", False),
        ("no", False),
        ("", True),
    ],
)
def test_flags_are_read_in_the_usual_words(monkeypatch: pytest.MonkeyPatch, value: str, flag: bool) -> None:
    monkeypatch.setenv(NAME, value)

    assert env.flag(NAME, default=True) is flag


def test_one_of_a_few_words_is_chosen_and_another_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.choice(NAME, ("line", "json")) == "line"
    monkeypatch.setenv(NAME, "json")
    assert env.choice(NAME, ("line", "json")) == "json"
    monkeypatch.setenv(NAME, "xml")
    with pytest.raises(ImproperlyConfigured, match="write line or json"):
        env.choice(NAME, ("line", "json"))


def test_a_token_is_long_or_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.token(NAME) == ""
    monkeypatch.setenv(NAME, "a" * 24)
    assert env.token(NAME) == "a" * 24
    monkeypatch.setenv(NAME, "hush")
    with pytest.raises(ImproperlyConfigured, match="24 characters") as told:
        env.token(NAME)
    assert "hush" not in str(told.value)


@pytest.mark.parametrize("value", ["2", "ja", "truee", "-1"])
def test_a_flag_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NAME, value)

    with pytest.raises(ImproperlyConfigured, match=f"{NAME} is '{value}'"):
        env.flag(NAME)


@pytest.mark.parametrize(("value", "number"), [("3", 3.0), ("0.5", 0.5), ("1e2", 100.0), ("", 7.0)])
def test_numbers_are_read(monkeypatch: pytest.MonkeyPatch, value: str, number: float) -> None:
    monkeypatch.setenv(NAME, value)

    assert env.number(NAME, 7) == number


@pytest.mark.parametrize("value", ["ten", "1,5", "15s", "nan", "inf", "-inf", "0", "-1", "1e999"])
def test_a_number_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NAME, value)

    with pytest.raises(ImproperlyConfigured, match=f"{NAME} is '{value}'"):
        env.number(NAME, 7)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " a,, b ,")

    assert env.words(NAME, "x") == ["a", "b"]


# --- Secrets in files


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from the file\n", encoding="utf-8")
    monkeypatch.setenv(NAME, "from the environment")
    monkeypatch.setenv(f"{NAME}_FILE", str(file))

    assert env.text(NAME) == "from the file"


@pytest.mark.parametrize("kind", ["missing", "folder", "latin"])
def test_a_secret_file_that_can_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / kind))

    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_FILE: .*{kind} cannot be read"):
        env.text(NAME)


# --- The secret key


def test_the_key_of_the_environment_is_taken_and_none_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELICIT_SECRET_KEY", "mine")

    assert env.secret_key(tmp_path) == "mine"
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_drawn_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    key = env.secret_key(tmp_path)

    assert len(key) >= 50
    assert env.secret_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "secret-key").stat().st_mode) == 0o600


def test_two_installations_never_share_a_key(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert env.secret_key(tmp_path / "a") != env.secret_key(tmp_path / "b")


def test_processes_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(env.secret_key, [tmp_path] * 16))

    assert len(keys) == 1


def test_a_key_that_another_process_is_just_writing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    path.touch()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(env.secret_key, tmp_path)
        path.write_text("written late", encoding="utf-8")

        assert waiting.result(timeout=10) == "written late"


def test_an_empty_key_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    (tmp_path / "secret-key").touch()

    with pytest.raises(ImproperlyConfigured, match="is empty: delete it"):
        env.secret_key(tmp_path)


# --- The database


def test_without_an_address_the_database_is_a_file_in_the_folder(tmp_path: Path) -> None:
    found = env.database(tmp_path)

    assert found["ENGINE"] == "django.db.backends.sqlite3"
    assert found["NAME"] == str(tmp_path / "elicit.sqlite3")
    assert found["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


@pytest.mark.parametrize("folder", ["a b", "a#b", "a?b", "50%25", "ä"])
def test_the_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    assert env.database(tmp_path / folder)["NAME"] == str(tmp_path / folder / "elicit.sqlite3")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_an_address_of_postgresql_is_taken_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str) -> None:
    monkeypatch.setenv("ELICIT_DATABASE_URL", f"{scheme}://us%40er:p%2Fw%3A@db.example:5433/na%20me?sslmode=require")

    found = env.database(tmp_path)

    assert {key: found[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")} == {
        "NAME": "na me",
        "USER": "us@er",
        "PASSWORD": "p/w:",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }


def test_the_port_of_postgresql_is_the_usual_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELICIT_DATABASE_URL", "postgres://db/elicit")

    found = env.database(tmp_path)

    assert (found["HOST"], found["PORT"], found["USER"]) == ("db", "5432", "")


@pytest.mark.parametrize(
    ("url", "name"), [("sqlite:///here.db", "here.db"), ("sqlite:////var/lib/there.db", "/var/lib/there.db")]
)
def test_an_address_of_sqlite_is_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, name: str) -> None:
    monkeypatch.setenv("ELICIT_DATABASE_URL", url)

    assert env.database(tmp_path)["NAME"] == name


@pytest.mark.parametrize("url", ["mysql://u:hush@db/x", "elicit.db", "http://db", "://"])
def test_a_database_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setenv("ELICIT_DATABASE_URL", url)

    with pytest.raises(ImproperlyConfigured, match="use postgres://") as told:
        env.database(tmp_path)
    assert "hush" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["postgres://u:hush@db:port/x", "postgres://u:hush@db:99999/x", "postgres://u:hush@[::1/x"]
)
def test_an_address_that_is_none_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.setenv("ELICIT_DATABASE_URL", url)

    with pytest.raises(ImproperlyConfigured, match="ELICIT_DATABASE_URL") as told:
        env.database(tmp_path)
    assert "hush" not in str(told.value)


# --- The keys of sealed fields


def test_field_keys_are_taken_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELICIT_FIELD_KEYS", f"{'a' * 32}, {'b' * 64},")

    assert env.field_keys(tmp_path) == ["a" * 32, "b" * 64]
    assert list(tmp_path.iterdir()) == []


def test_without_field_keys_one_is_drawn_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    [key] = env.field_keys(tmp_path)

    assert len(key) >= 50
    assert env.field_keys(tmp_path) == [key] != [env.secret_key(tmp_path)]
    assert stat.S_IMODE((tmp_path / "field-keys").stat().st_mode) == 0o600


def test_a_short_field_key_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELICIT_FIELD_KEYS", f"{'a' * 32},hush")

    with pytest.raises(ImproperlyConfigured, match="32 characters") as told:
        env.field_keys(tmp_path)
    assert "hush" not in str(told.value)


# --- Rates, proxies


RATES = {"begin": "300/minute", "holder": "600/minute"}


def test_a_rate_that_is_named_takes_the_place_of_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.rates(NAME, RATES) == RATES
    monkeypatch.setenv(NAME, "holder:10/second")
    assert env.rates(NAME, RATES) == {**RATES, "holder": "10/second"}
    monkeypatch.setenv(NAME, " OFF ")
    assert env.rates(NAME, RATES) == {}


@pytest.mark.parametrize("value", ["holder", "holder:", "holder:fast", "holder:-1/minute", "someone:1/minute", "0"])
def test_a_rate_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NAME, value)

    with pytest.raises(ImproperlyConfigured, match="begin, holder"):
        env.rates(NAME, RATES)


def test_whole_numbers_may_be_nought_and_nothing_less(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.whole(NAME, 1) == 1
    monkeypatch.setenv(NAME, "0")
    assert env.whole(NAME, 1) == 0
    for value in ("-1", "1.5", "one"):
        monkeypatch.setenv(NAME, value)
        with pytest.raises(ImproperlyConfigured, match="whole number"):
            env.whole(NAME, 1)
