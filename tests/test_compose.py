"""docker-compose.yml without Docker: its commands and health checks are read from the file and run by hand.

Replaced are only the addresses of PostgreSQL and Redis, the folder `/var/lib/elicit` and the port of the site.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests import services
from tests.pictures import png
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


# --- The image without Docker: its files, its user, and its root that nobody can write to

UID = 10001
HOME, STATIC = "/srv/elicit", "/srv/static"


def box(image_files: Path, volume: Path) -> list[str]:
    """What gives a command the container's view of the disk, and its user.

    The volume and a /tmp of its own can be written; the image's files and all else are there to be read.
    """
    as_root = os.geteuid() == 0
    lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs none /srv", "mount -t tmpfs none /var/lib"]
    for source, target in ((image_files / "tree", HOME), (image_files / "static", STATIC), (volume, STATE)):
        lines += [f"mkdir {target}", f"mount --bind {shlex.quote(str(source))} {target}"]
    for number, needed in enumerate({sys.prefix, sys.base_prefix}):
        # Python may lie in root's own home, where the container's user may not look.
        closed = [each for each in reversed(Path(needed).parents) if not each.stat().st_mode & 0o001]
        if as_root and closed:
            there = shlex.quote(needed)
            lines += [f"mkdir /srv/python{number}", f"mount --bind {there} /srv/python{number}"]
            lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed[0]))}"]
            lines += [f"mkdir -p {there}", f"mount --bind /srv/python{number} {there}"]
    lines += [f"mount -o remount,bind,ro {each}" for each in ("/", "/srv", "/var/lib", HOME, STATIC)]
    lines += ["mount -t tmpfs -o mode=1777 none /tmp", f"cd {HOME}"]
    user = f"setpriv --reuid {UID} --regid {UID} --clear-groups --no-new-privs --bounding-set=-all "
    lines.append(f'exec {user if as_root else ""}"$@"')
    return ["unshare", "--mount", *([] if as_root else ["--map-root-user"]), "sh", "-c", "\n".join(lines), "sh"]


def context() -> set[str]:
    """The files that `docker build` would see, by .dockerignore: it leaves everything out and lets some back in."""
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in "#"]
    assert lines[0] == "*"
    found: set[str] = set()
    for line in lines[1:]:
        if line.startswith("!"):
            there = ROOT / line[1:]
            assert there.exists(), line
            files = there.rglob("*") if there.is_dir() else [there]
            found |= {path.relative_to(ROOT).as_posix() for path in files if path.is_file()}
        elif line.startswith("**/"):
            found = {name for name in found if line.removeprefix("**/") not in Path(name).parts}
        else:
            found = {name for name in found if not name.startswith(f"{line}/")}
    return found


def final_stage() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]


@dataclass
class Stack:
    """The services of the file, as far as they can run here."""

    folder: Path
    image_files: Path
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
        text = final_stage()
        set_there = dict(re.findall(r"\b([A-Z_]+)=(\S+)", text[text.index("ENV ") : text.index("RUN ")]))
        assert set_there["ELICIT_VAR"] == STATE
        return {**set_there, "ELICIT_VAR": str(self.folder), "ELICIT_STATIC_ROOT": str(self.folder / "static")}

    def boxed(self, name: str, words: list[str]) -> dict[str, Any]:
        """What starts a command of a service in the image, for `subprocess`; without the box where none may be made."""
        if not can_box():
            return {"args": self.command(words), "env": self.environment(name), "cwd": ROOT}
        inside = {"ELICIT_VAR": STATE, "ELICIT_STATIC_ROOT": STATIC, "HOME": HOME}
        return {
            "args": [*box(self.image_files, self.folder), *self.command(words, folder=STATE)],
            "env": {**self.environment(name), **inside},
        }

    def command(self, words: list[str], folder: str = "") -> list[str]:
        here = [
            word.replace(STATE, folder or str(self.folder))
            .replace("0.0.0.0:8000", f"127.0.0.1:{self.port}")
            .replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
            for word in (interpolate(word, {}) for word in words)
        ]
        if here[0] == "CMD-SHELL":
            return ["sh", "-c", *here[1:]]
        return here[1:] if here[0] == "CMD" else here

    def start(self, name: str, ready: Callable[[Service], bool]) -> Service:
        boxed = self.boxed(name, COMPOSE["services"][name]["command"])
        return services._start(
            boxed.pop("args"), services.temporary_folder(f"elicit-compose-{name}-"), ready=ready, **boxed
        )

    def run(self, name: str, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        boxed = self.boxed(name, words)
        boxed["env"] |= environment
        return subprocess.run(**boxed, capture_output=True, text=True, check=False)

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


@cache
def can_box() -> bool:
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tree", "static", "var"):
            Path(folder, name).mkdir()
        probe = [*box(Path(folder), Path(folder, "var")), sys.executable, "-c", "import django"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def made_image(folder: Path) -> None:
    """The files of the image: the context, and the static files that the Dockerfile collects."""
    folder.chmod(0o755)
    for name in context():
        target = folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    (folder / "static").mkdir()
    environment = {"ELICIT_SECRET_KEY": "for-this-command-only", "ELICIT_VAR": str(folder / "build")}
    subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--noinput"],
        cwd=folder / "tree",
        env={**environment, "ELICIT_STATIC_ROOT": str(folder / "static"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=True,
    )
    shutil.rmtree(folder / "build")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """On a database of its own, empty but for what the service `migrate` does."""
    server = os.environ["ELICIT_DATABASE_URL"]
    database = services.new_database(server)
    folder, image_files = (services.temporary_folder(f"elicit-compose-{what}-") for what in ("var", "image"))
    made_image(image_files)
    if os.geteuid() == 0 and can_box():
        os.chown(folder, UID, UID)
    stack = Stack(folder, image_files, database, os.environ["ELICIT_BROKER_URL"])
    migrated = stack.run("migrate", COMPOSE["services"]["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    yield stack
    shutil.rmtree(folder)
    shutil.rmtree(image_files)
    services.drop_database(server, database)


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


def test_every_container_has_a_root_that_can_not_be_written_and_gains_no_privilege() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name != "db":
            assert service["cap_drop"] == ["ALL"], name
        if name in APP:
            folders = {each.partition(":")[0] for each in service["tmpfs"]}
            volumes = {each.partition(":")[2] for each in service.get("volumes", [])}
            # ELICIT_VAR is a volume, or memory where there is nothing to keep.
            assert (folders | volumes, folders & volumes) == ({"/tmp", STATE}, set()), name  # noqa: S108
    assert re.search(rf"^USER {UID}:{UID}$", final_stage(), re.MULTILINE)
    assert "pip" not in final_stage()


def test_the_image_holds_what_the_dockerfile_copies_and_neither_tests_nor_documents() -> None:
    files = context()
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)", text, re.MULTILINE) for word in line.split()[:-1]]
    assert [word for word in copied if word != "." and word not in files] == []
    assert {name.split("/")[0] for name in files} <= {
        *("LICENSE", "annotations", "elicit", "exports", "frontend", "gunicorn.conf.py", "jobs", "locale", "manage.py"),
        *("pyproject.toml", "requirements", "training"),
    }
    assert [name for name in files if "/tests/" in name or name.endswith((".pyc", ".md"))] == []


def test_the_image_asks_after_its_health_as_compose_does() -> None:
    check = re.search(r"^HEALTHCHECK (.*) CMD (\[.*\])$", final_stage(), re.MULTILINE)
    assert check is not None
    service = COMPOSE["services"]["web"]["healthcheck"]
    assert ["CMD", *json.loads(check[2])] == service["test"]
    told = dict(re.findall(r"--([a-z-]+)=(\S+)", check[1]))
    assert told == {
        name.replace("_", "-"): str(service[name]) for name in ("interval", "timeout", "start_period", "retries")
    }


needs_the_box = pytest.mark.skipif(not can_box(), reason="no mount namespace may be made here")


@needs_the_box
def test_in_the_box_nothing_can_be_written_but_the_volume_and_tmp(stack: Stack) -> None:
    code = """
import os, pathlib
places = ["/", "/etc", "/srv/elicit", "/srv/elicit/elicit", "/srv/static", "/var/lib", "/tmp", "/var/lib/elicit"]
for place in places:
    try:
        pathlib.Path(place, "written").write_text("x")
    except OSError:
        continue
    print(place)
"""
    done = stack.run("web", ["python", "-c", code])

    assert done.stdout.split() == ["/tmp", STATE], done.stderr  # noqa: S108
    (stack.folder / "written").unlink()


@needs_the_box
def test_images_a_study_annotators_and_a_release_need_no_other_folder(stack: Stack) -> None:
    """The whole loop, from the image's own files, with a worker beside."""
    pictures = stack.folder / "pictures"
    for name, content in {"cat/1.png": png(1), "cat/2.png": png(2), "dog/1.png": png(3), "dog/2.png": png(4)}.items():
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(content)
    manage = ["python", "manage.py"]
    worker = stack.start("worker", lambda service: " ready." in service.output())
    try:
        for words in (
            ["import_images", f"{STATE}/pictures", "--name", "Pets"],
            [
                *("create_study", "--name", "Pets", "--dataset", "pets", "--labels-per-image", "2", "--launch"),
                *("--images-per-session", "4", "--repeats-per-session", "0"),
            ],
            ["simulate_annotators", "--study", "pets", "--count", "2"],
            ["request_release", "--study", "pets", "--wait"],
        ):
            # The simulation's own server speaks no https.
            done = stack.run("web", [*manage, *words], ELICIT_PUBLIC_URL="")
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        worker.stop()
    assert list((stack.folder / "releases").rglob("*.zip"))


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
