"""The whole chain on real input: `python -m benchmarks.real_input`, about a minute.

Imports the CIFAR-10 test set, makes a study of the 1,000 images of CIFAR-10S in their published batches, lets simulated
annotators walk its pages, and builds a release: on PostgreSQL, Redis, gunicorn and a Celery worker with two processes.
Prints what each step took, or with --json one line for a program to read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks import apart
from elicit.archives import open_cifar10, pixel_sha256
from elicit.labels import read_release
from tests import services

ARCHIVE = "cifar-10-binary-test-only.tar.gz"
BATCHES = "cifar10s/batches.json"
STUDY = "real-input"
WAITS = 60.0


@dataclass(frozen=True)
class Figures:
    """What was measured. Seconds are wall-clock; megabytes are 2**20 bytes, the highest resident size."""

    images: int
    import_seconds: float
    import_peak_mb: float
    study_images: int
    study_seconds: float
    sessions: int
    answers: int
    refused: int
    answers_per_second: float
    checks: int
    slowest_check_seconds: float
    labels_per_image_wanted: int
    most_labels_of_an_image: int
    release_seconds: float
    release_images: int
    release_responses: int
    release_annotators: int
    images_that_differ: int


@dataclass(frozen=True)
class Ran:
    seconds: float
    peak_mb: float
    output: str


@dataclass(frozen=True)
class Installation:
    """A fresh one: an empty database, and a folder for everything else."""

    environment: dict[str, str]

    def manage(self, *arguments: str) -> Ran:
        """Run a command of manage.py.

        Linux starts a process off with the resident size of the one that started it: this script stays small.
        """
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=services.ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
        with process.stdout:
            output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"manage.py {arguments[0]} ended with {process.returncode}")
        unit = 1 if sys.platform == "darwin" else 1024
        return Ran(time.perf_counter() - began, usage.ru_maxrss * unit / 2**20, output)

    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row that a query gives."""
        database = self.environment["ELICIT_DATABASE_URL"]
        with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
        assert row is not None  # noqa: S101 (every query here is an aggregate)
        return row


@contextmanager
def installation() -> Iterator[Installation]:
    """Gone at the end, database and all. Settings of an installation of the reader's own are left aside."""
    apart.forget_settings()
    server = services.postgres()
    database = services.new_database(server)
    folder = services.temporary_folder("elicit-real-input-")
    try:
        yield Installation(
            {
                "ELICIT_VAR": str(folder),
                "ELICIT_DATABASE_URL": database,
                "ELICIT_BROKER_URL": services.redis(),
            }
        )
    finally:
        services.drop_database(server, database)
        shutil.rmtree(folder)


def measure(data: Path, sessions: int) -> Figures:
    """Run the chain on the files of `data`."""
    with installation() as site:
        site.manage("migrate", "--verbosity", "0")
        imported = site.manage("import_cifar10", "--source", str(data / ARCHIVE))
        [images] = site.ask("SELECT count(*) FROM annotations_image")
        made = site.manage(
            *("create_study", "--name", "Real input", "--slug", STUDY, "--dataset", "cifar10-test"),
            *("--batches", str(data / BATCHES), "--launch", "--seed", "0"),
        )
        [study_images, wanted] = site.ask(
            "SELECT count(*), max(labels_per_image) FROM annotations_studyimage, annotations_study"
        )
        with services.web(site.environment) as web, services.worker(site.environment):
            walked = site.manage(
                *("simulate_annotators", "--study", STUDY, "--count", str(sessions)),
                *("--url", web.url, "--at-once", "4"),
            )
            checks, slowest = _wait_for_checks(site, sessions)
            released = site.manage("request_release", "--study", STUDY, "--wait", str(WAITS))
        answers, answering = site.ask(
            "SELECT count(*), extract(epoch FROM max(received_at) - min(received_at)) FROM annotations_response"
        )
        [most] = site.ask(
            "SELECT max(labels) FROM (SELECT count(*) AS labels FROM annotations_trial "
            "WHERE place_id IS NOT NULL GROUP BY image_id) AS counted"
        )
        release = read_release(Path(released.output.strip()))
        pixels, _, indices = open_cifar10(data / ARCHIVE).load("test")
        place = {int(index): number for number, index in enumerate(indices)}
        differ = sum(
            pixel_sha256(pixels[place[int(index)]]) != digest
            for index, digest in zip(release.images, release.image_sha256, strict=True)
        )
    return Figures(
        images=images,
        import_seconds=imported.seconds,
        import_peak_mb=imported.peak_mb,
        study_images=study_images,
        study_seconds=made.seconds,
        sessions=sessions,
        answers=answers,
        refused=int(walked.output.split(" answers stored, ")[1].split()[0].replace(",", "")),
        answers_per_second=answers / float(answering),
        checks=checks,
        slowest_check_seconds=slowest,
        labels_per_image_wanted=wanted,
        most_labels_of_an_image=most,
        release_seconds=released.seconds,
        release_images=len(release.images),
        release_responses=len(release.kinds),
        release_annotators=len(set(release.annotators.tolist())),
        images_that_differ=differ,
    )


def _wait_for_checks(site: Installation, sessions: int) -> tuple[int, float]:
    """How many checks stand, and the longest time from a session's end to its check."""
    deadline = time.monotonic() + WAITS
    while True:
        checks, slowest = site.ask(
            "SELECT count(*), extract(epoch FROM max(checked_at - completed_at)) FROM annotations_consistencycheck "
            "JOIN annotations_session ON annotations_session.id = session_id"
        )
        if checks >= sessions:
            return int(checks), float(slowest)
        if time.monotonic() > deadline:
            raise SystemExit(f"{checks} of {sessions} sessions are checked after {WAITS:.0f} s.")
        time.sleep(0.1)


REPORT = """\
import          {images:,} images in {import_seconds:.1f} s, {import_peak_mb:.0f} MB at most
study           {study_images:,} images, launched in {study_seconds:.1f} s
{sessions} sessions     {answers:,} answers at {answers_per_second:.0f} a second, {refused} contradictions refused
checks          {checks}, the slowest {slowest_check_seconds:.2f} s after its session's end
labels          {most_labels_of_an_image} of {labels_per_image_wanted} wanted, on the image that has most
release         {release_images:,} images, {release_responses:,} responses by {release_annotators} annotators \
in {release_seconds:.1f} s
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("ELICIT_SHARED") or services.ROOT.parent / "shared")
    parser.add_argument("--data", type=Path, default=shared / "data", help="folder that holds " + ARCHIVE)
    parser.add_argument("--sessions", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.data / ARCHIVE).is_file():
        raise SystemExit(f"{ARCHIVE} is not in {options.data}: --data may name its folder.")
    figures = asdict(measure(options.data, options.sessions))
    print(json.dumps(figures) if options.json else REPORT.format(**figures))


if __name__ == "__main__":
    main()
