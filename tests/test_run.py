"""`make run` on a machine of its own: SQLite, a queue of files, no server to install."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services

pytestmark = [pytest.mark.xdist_group("run"), pytest.mark.timeout(400)]

STARTS_WITHIN = 90.0


def bare_environment(var: Path) -> dict[str, str]:
    """What a newcomer's shell holds: nothing of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ELICIT_", "DJANGO_", "PYTEST_"))}
    return {**kept, "ELICIT_VAR": str(var), "CIFAR10": "sample"}


class Run:
    """`manage.py run`, from its start until Ctrl-C."""

    def __init__(self, var: Path, *arguments: str, **environment: str) -> None:
        self.var = var
        self.port = services.free_port()
        self.log = var.with_suffix(f".{self.port}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "run", "--port", str(self.port), *arguments],
                cwd=services.ROOT,
                env={**bare_environment(var), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_welcome(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while "Ctrl-C stops." not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def children(self) -> list[int]:
        """Process ids of the web server and the worker."""
        pid = self.process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
        return [int(child) for child in listed.split()]

    def ctrl_c(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(40)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Whatever a test starts is ended."""
    started: list[Run] = []
    yield started
    for run in started:
        run.kill()


def gone(pids: list[int], within: float = 30.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes under /proc, as Linux has them")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@linux
def test_the_first_run_prints_two_links_that_open_and_the_second_reuses_everything(var: Path, runs: list[Run]) -> None:
    runs.append(first := Run(var))
    first.wait_until_welcome()
    study = re.search(r"Annotate +(\S+)", first.said)
    console = re.search(r"Curate +(\S+) +user (\S+), password (\S+)", first.said)
    assert study is not None
    assert console is not None
    assert "sample of the package foolbox" in first.said
    for url in (study[1], console[1]):
        with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 (the site's own links)
            assert page.status == 200
    pids = first.children()
    assert len(pids) == 3
    assert first.ctrl_c() == 0
    assert gone(pids)

    runs.append(second := Run(var))
    second.wait_until_welcome()
    assert console[3] not in second.said
    assert "password" not in second.said
    assert second.said.count("Images: 20") == 1
    assert re.search(r"Annotate +(\S+)", second.said)[1].endswith(study[1].split("/", 3)[3])  # type: ignore[index]
    assert second.ctrl_c() == 0


@linux
def test_a_process_that_dies_is_started_again_and_none_outlives_a_killed_command(var: Path, runs: list[Run]) -> None:
    runs.append(run := Run(var))
    run.wait_until_welcome()
    # One that ends right after its start is not started again: let it live first.
    time.sleep(5.5)
    worker = next(pid for pid in run.children() if "celery" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 20
    # It says so, and then does it.
    while "starting it again" not in run.said or len(pids := run.children()) < 3:
        assert time.monotonic() < deadline, run.said
        time.sleep(0.1)
    assert worker not in pids
    assert len(pids) == 3
    run.kill()
    assert gone(pids)


def refused(var: Path, *arguments: str, **environment: str) -> str:
    """What a run says that can't go on: one line, exit code 1."""
    done = subprocess.run(
        [sys.executable, "manage.py", "run", *arguments],
        cwd=services.ROOT,
        env={**bare_environment(var), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_a_taken_port_gets_one_clear_line(var: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(var, "--port", str(port))
    assert f"Port {port}" in said
    assert f"make run PORT={port + 1}" in said


def test_images_that_are_not_there_get_one_clear_line(var: Path, tmp_path: Path) -> None:
    said = refused(var, "--port", str(services.free_port()), CIFAR10=str(tmp_path / "nowhere.tar.gz"))
    assert "nowhere.tar.gz" in said


def test_a_broken_archive_gets_one_clear_line_and_leaves_nothing(var: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cifar-10-python.tar.gz"
    broken.write_bytes(b"\x1f\x8b no archive")
    said = refused(var, "--port", str(services.free_port()), CIFAR10=str(broken))
    assert "cifar-10-python.tar.gz" in said


def test_a_full_disk_gets_one_clear_line(var: Path) -> None:
    # More than any disk has: the same branch as a disk with too little left.
    said = refused(var, "--port", str(services.free_port()), ELICIT_LEAST_FREE_MB=str(1 << 50))
    assert "MB left" in said


def test_a_missing_python_gets_one_clear_line(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements"):
        (tmp_path / name).symlink_to(services.ROOT / name)
    done = subprocess.run(
        ["make", "run", "PYTHON="], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is missing" in done.stdout
