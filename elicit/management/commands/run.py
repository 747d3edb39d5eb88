"""`manage.py run`: everything on one machine, in one terminal. `make run` calls it."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from annotations.models import Dataset, Study

CURATOR = "curator"
STARTS_WITHIN = 60.0
STOPS_WITHIN = 15.0
# A process that ends sooner than this after its start would only end again.
TOO_SOON = 5.0
STUDIES = {"cifar10-sample": "cifar10-sample-study", "cifar10-test": "cifar10s-study"}


class Command(BaseCommand):
    help = "Set up what is missing, then run the site, its worker and its clock. Ctrl-C stops all of it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8000))
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--images", default=os.environ.get("CIFAR10") or None, help="as import_cifar10 --source")

    def handle(self, *, port: int, host: str, images: str | None, **_: Any) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # The links should show at once in a file or a pipe too.
            sys.stdout.reconfigure(line_buffering=True)
        _refuse_taken_port(host, port)
        _refuse_full_disk(settings.VAR)
        with _clear_words_for_a_full_disk():
            call_command("migrate", verbosity=0, interactive=False)
            call_command("collectstatic", verbosity=0, interactive=False)
            password = _curator()
            study = self._study(images)
        url = f"http://{host}:{port}"
        with _Processes(_commands(host, port), self.stderr.write) as processes:
            processes.wait_for(f"{url}/readyz")
            self._welcome(url, study, password)
            processes.watch()
        self.stdout.write("Stopped.")

    def _study(self, images: str | None) -> Study:
        """The study to open: that of the images asked for, or the newest that is there."""
        dataset = _ready_dataset(images)
        if dataset is None:
            call_command("import_cifar10", source=images, stdout=self.stdout)
            dataset = Dataset.objects.filter(ready_at__isnull=False).latest("ready_at")
        else:
            self.stdout.write(f"Images: {dataset.images.count():,}, {dataset.origin}.")
        slug = STUDIES.get(dataset.slug, f"{dataset.slug}-study")
        if not Study.objects.filter(slug=slug).exists():
            name = "What is in the picture?"
            call_command("create_study", name=name, slug=slug, dataset=dataset.slug, launch=True, stdout=self.stdout)
        return Study.objects.get(slug=slug)

    def _welcome(self, url: str, study: Study, password: str | None) -> None:
        signed_in = f"user {CURATOR}, password {password}  (shown this once)" if password else "as before"
        self.stdout.write(
            f"\n  Annotate   {url}/study/{study.slug}/\n  Curate     {url}/admin/   {signed_in}\n\n"
            f"Everything is kept in {settings.VAR}. Ctrl-C stops."
        )


def _ready_dataset(images: str | None) -> Dataset | None:
    """What a second run finds. Images that are named are taken even where the sample was imported before."""
    ready = Dataset.objects.filter(ready_at__isnull=False)
    if images and images != "sample":
        ready = ready.exclude(slug="cifar10-sample")
    return ready.order_by("-ready_at").first()


def _curator() -> str | None:
    """Make the first account; its password, or None where somebody can sign in already."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(CURATOR, password=password)
    return password


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise CommandError(
                f"Port {port} on {host} can't be used ({error}). Choose another: make run PORT={port + 1}"
            ) from error


def _refuse_full_disk(folder: Path) -> None:
    free, least = shutil.disk_usage(folder).free >> 20, settings.LEAST_FREE_MB
    if free < least:
        raise CommandError(
            f"The disk of {folder} has {free} MB left, {least} MB are needed. "
            "Make room, or name another folder: ELICIT_VAR=/path make run"
        )


@contextmanager
def _clear_words_for_a_full_disk() -> Iterator[None]:
    try:
        yield
    except (OSError, DatabaseError) as error:
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        if full or "disk is full" in str(error):
            raise CommandError(f"The disk of {settings.VAR} is full. Make room and run again.") from error
        raise


def _commands(host: str, port: int) -> dict[str, list[str]]:
    python = [sys.executable, "-m"]
    # Whoever runs this as root on a machine of their own has been told often enough.
    celery = [
        sys.executable, "-W", "ignore:You're running the worker", "-m", "celery", "--quiet", "--app", "elicit",
        "worker", "--pool", "threads", "--loglevel", "WARNING", "--without-gossip", "--without-mingle",
    ]  # fmt: skip
    return {
        "web server": [
            *python, "gunicorn", "elicit.wsgi", "--bind", f"{host}:{port}", "--worker-class", "gthread",
            "--workers", "1", "--threads", "8", "--no-control-socket", "--log-level", "warning",
        ],
        "worker": [*celery, "--beat", "--concurrency", "2", "--queues", "celery"],
        # A process of its own: a run of hours keeps neither of the other's two threads.
        "trainer": [*celery, "--concurrency", "1", "--queues", "training", "--hostname", "trainer@%h"],
    }  # fmt: skip


def _die_with_parent() -> None:
    """In the child: be stopped by the kernel when this command is killed (Linux; elsewhere there is no such thing)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class _Processes:
    """The site's processes: restarted when one dies, stopped together."""

    def __init__(self, commands: dict[str, list[str]], say: Any) -> None:
        self.commands = commands
        self.say = say
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.started: dict[str, float] = {}
        self.stopping = False

    def __enter__(self) -> _Processes:
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, self._stop)
        for name in self.commands:
            self._start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _start(self, name: str) -> None:
        # A session of its own: Ctrl-C reaches this command alone, which then stops the others in order.
        self.running[name] = subprocess.Popen(
            self.commands[name],
            cwd=settings.BASE_DIR,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self.started[name] = time.monotonic()

    def wait_for(self, url: str) -> None:
        """Until the site answers."""
        deadline = time.monotonic() + STARTS_WITHIN
        while not self.stopping:
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310 (our own address)
                    return
            except (urllib.error.URLError, OSError):
                self._mend()
            if time.monotonic() > deadline:
                raise CommandError(f"The site does not answer at {url}.")
            time.sleep(0.1)

    def watch(self) -> None:
        """Until Ctrl-C."""
        while not self.stopping:
            self._mend()
            time.sleep(0.3)

    def _mend(self) -> None:
        for name, process in list(self.running.items()):
            if self.stopping or process.poll() is None:
                continue
            if time.monotonic() - self.started[name] < TOO_SOON:
                raise CommandError(f"The {name} ended as soon as it began; its last words are above.")
            self.say(f"The {name} ended ({process.returncode}); starting it again.")
            self._start(name)
