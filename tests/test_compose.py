"""docker-compose.yml without Docker: its commands and health checks are read from the file and run by hand.

Replaced are only the addresses of PostgreSQL and Redis, the folder `/var/lib/elicit` and the port of the site.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
import yaml

from tests import services
from tests.services import ROOT, Service

pytestmark = [pytest.mark.worker, pytest.mark.xdist_group("compose")]

FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
APP = ("migrate", "web", "worker", "trainer", "beat")
STATE = "/var/lib/elicit"
# What somebody fills in from .env.example.
DOT_ENV = {
    "ELICIT_SECRET_KEY": secrets.token_hex(32),
    "ELICIT_FIELD_KEYS": secrets.token_hex(32),
    "POSTGRES_PASSWORD": secrets.token_hex(32),
    "ELICIT_PUBLIC_URL": "https://elicit.example.org",
}


def interpolate(text: str, values: dict[str, str]) -> str:
    """Compose's own substitution: `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$`."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, operator, word = match["name"], match["operator"], match["word"]
        if values.get(name):
            return values[name]
        if operator == ":-":
            return word
        raise KeyError(f"{name} {word}")

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<word>[^}]*))?\}", replace, text)


@dataclass
class Stack:
    """The services of the file, as far as they can run here."""

    folder: Path
    database: str
    broker: str
    port: int = field(default_factory=services.free_port)

    def environment(self, name: str) -> dict[str, str]:
        """What the container would have, and nothing of this machine's but where programs are."""
        own = COMPOSE["services"][name]["environment"]
        given = {key: interpolate(value, DOT_ENV) for key, value in own.items() if value is not None}
        password = DOT_ENV["POSTGRES_PASSWORD"]
        assert given["ELICIT_DATABASE_URL"] == f"postgres://elicit:{password}@db:5432/elicit"
        assert given["ELICIT_BROKER_URL"] == "redis://redis:6379/0"
        elsewhere = {"ELICIT_DATABASE_URL": self.database, "ELICIT_BROKER_URL": self.broker}
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**given, **elsewhere, **self.image(), "PATH": programs, "HOSTNAME": socket.gethostname()}

    def image(self) -> dict[str, str]:
        """The environment that the Dockerfile sets."""
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        set_there = dict(re.findall(r"\b([A-Z_]+)=(\S+)", text[text.index("ENV ") : text.index("RUN ")]))
        assert set_there["ELICIT_VAR"] == STATE
        return {**set_there, "ELICIT_VAR": str(self.folder), "ELICIT_STATIC_ROOT": str(self.folder / "static")}

    def command(self, words: list[str]) -> list[str]:
        here = [
            word.replace(STATE, str(self.folder))
            .replace("0.0.0.0:8000", f"127.0.0.1:{self.port}")
            .replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
            for word in (interpolate(word, {}) for word in words)
        ]
        if here[0] == "CMD-SHELL":
            return ["sh", "-c", *here[1:]]
        return here[1:] if here[0] == "CMD" else here

    def start(self, name: str, ready: Callable[[Service], bool]) -> Service:
        return services._start(
            self.command(COMPOSE["services"][name]["command"]),
            services.temporary_folder(f"elicit-compose-{name}-"),
            ready=ready,
            cwd=ROOT,
            env=self.environment(name),
        )

    def is_healthy(self, name: str) -> bool:
        """As Docker judges: when one of its `retries` checks passes within its time."""
        return any(self._check(name) for _ in range(COMPOSE["services"][name]["healthcheck"]["retries"]))

    def fails(self, name: str) -> bool:
        """Whether a health check fails, for once."""
        return not self._check(name)

    def _check(self, name: str) -> bool:
        check = COMPOSE["services"][name]["healthcheck"]
        try:
            done = subprocess.run(
                self.command(check["test"]),
                cwd=ROOT,
                env=self.environment(name),
                timeout=float(check["timeout"].removesuffix("s")),
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """On a database of its own, empty but for what the service `migrate` does."""
    server = os.environ["ELICIT_DATABASE_URL"]
    name = f"compose_{secrets.token_hex(6)}"
    with closing(psycopg2.connect(server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    folder = services.temporary_folder("elicit-compose-")
    stack = Stack(folder, urlsplit(server)._replace(path=f"/{name}").geturl(), os.environ["ELICIT_BROKER_URL"])
    migrated = subprocess.run(
        stack.command(COMPOSE["services"]["migrate"]["command"]),
        cwd=ROOT,
        env=stack.environment("migrate"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    yield stack
    shutil.rmtree(folder)
    with closing(psycopg2.connect(server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_file_is_valid_by_the_specification_s_schema() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_variable_that_the_file_wants_is_explained_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    text = FILE.read_text(encoding="utf-8")
    wanted = set(re.findall(r"\$\{(\w+)", text))
    passed_on = {key for name in APP for key, value in COMPOSE["services"][name]["environment"].items() if not value}
    for variable in wanted | passed_on:
        assert re.search(rf"^#?{variable}=", example, re.MULTILINE), f"{variable} is not in .env.example"


def test_a_variable_that_is_missing_is_named_and_nothing_starts_on_a_default_secret() -> None:
    for name in ("ELICIT_SECRET_KEY", "ELICIT_FIELD_KEYS", "POSTGRES_PASSWORD", "ELICIT_PUBLIC_URL"):
        rest = {key: value for key, value in DOT_ENV.items() if key != name}
        values = " ".join(filter(None, COMPOSE["services"]["web"]["environment"].values()))
        with pytest.raises(KeyError, match=f"{name} is missing from .env"):
            interpolate(values, rest)


def test_the_image_has_the_client_programs_of_the_database_s_version() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    version = COMPOSE["services"]["db"]["image"].removeprefix("postgres:")
    assert f"postgresql-client-{version} " in dockerfile


def test_the_image_is_given_what_it_copies_and_every_package() -> None:
    given = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()}
    copied = re.findall(r"requirements/\w+\.txt", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {*copied, *project["tool"]["importlinter"]["root_packages"], "pyproject.toml"} <= given


def test_every_service_has_a_health_check_and_waits_for_the_migration() -> None:
    for name, service in COMPOSE["services"].items():
        if name == "migrate":
            assert service["restart"] == "no"
            continue
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"
        if name in APP:
            assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_site_is_healthy_while_it_runs_and_unhealthy_when_it_is_gone(stack: Stack) -> None:
    assert stack.fails("web")
    site = stack.start("web", lambda service: "Booting worker" in service.output())
    try:
        assert stack.is_healthy("web")
        # Behind a proxy that speaks https: everything but the health checks is led there.
        with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.0\r\nHost: elicit.example.org\r\n\r\n")
            answer = client.makefile("rb").read().decode()
        assert answer.startswith("HTTP/1.0 301")
        assert "Location: https://elicit.example.org/" in answer
        site.kill()
        assert stack.fails("web")
    finally:
        site.stop()


@pytest.mark.parametrize("name", ["worker", "trainer"])
def test_the_worker_is_healthy_while_it_runs_and_unhealthy_when_it_is_gone(stack: Stack, name: str) -> None:
    worker = stack.start(name, lambda service: " ready." in service.output())
    try:
        assert stack.is_healthy(name)
        worker.kill()
        assert stack.fails(name)
    finally:
        worker.stop()


def test_a_worker_that_hangs_is_unhealthy(stack: Stack) -> None:
    worker = stack.start("worker", lambda service: " ready." in service.output())
    try:
        worker.signal(signal.SIGSTOP)
        assert stack.fails("worker")
    finally:
        worker.signal(signal.SIGCONT)
        worker.stop()


def test_the_clock_is_healthy_from_its_start_and_unhealthy_ten_minutes_after_its_end(stack: Stack) -> None:
    assert stack.fails("beat")
    clock = stack.start("beat", lambda _: any(stack.folder.glob("beat-schedule*")))
    try:
        assert stack.is_healthy("beat")
        assert clock.running
    finally:
        clock.stop()
    a_while_ago = time.time() - 601
    for path in stack.folder.glob("beat-schedule*"):
        os.utime(path, (a_while_ago, a_while_ago))
    assert stack.fails("beat")


def test_redis_starts_as_the_file_says_and_its_health_check_passes(stack: Stack) -> None:
    programs = {name: shutil.which(name) for name in ("redis-server", "redis-cli")}
    if not all(programs.values()):
        pytest.skip("redis-server or redis-cli is not on PATH")
    port = str(services.free_port())
    service = COMPOSE["services"]["redis"]
    folder = services.temporary_folder("elicit-compose-redis-")
    check = stack.command(service["healthcheck"]["test"])

    def healthy(_: Service | None = None) -> bool:
        ping = subprocess.run([check[0], "-p", port, *check[1:]], capture_output=True, text=True, check=False)
        return ping.returncode == 0 and ping.stdout.strip() == "PONG"

    server = services._start([*service["command"], "--port", port], folder, ready=healthy, cwd=folder)
    try:
        server.kill()
        assert not healthy()
        assert not list(folder.glob("*.rdb"))
    finally:
        server.stop()


def test_postgresql_s_health_check_passes_where_the_server_answers_and_fails_where_none_does(stack: Stack) -> None:
    check = stack.command(COMPOSE["services"]["db"]["healthcheck"]["test"])
    program = shutil.which(check[0])
    if program is None:
        pytest.skip("pg_isready is not on PATH")
    port = urlsplit(stack.database).port
    at = [program, *check[1:], "--host", "127.0.0.1", "--port"]
    assert subprocess.run([*at, str(port)], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*at, str(services.free_port())], capture_output=True, check=False).returncode != 0
