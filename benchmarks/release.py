"""How long a release takes, and how much memory: `python -m benchmarks.release`, a few minutes.

Fills a database with responses (10 categories, two named each), has releases of them built in all formats, as a worker
does it, each in a process of its own: from the rows of the database to the .zip. Prints the median of the runs, the
highest memory of any, and how long the rival's export of as many annotations took (Label Studio, JSON, measured on a
machine with two cores as well). With --postgres the database is a PostgreSQL of its own, else SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any

from elicit.labels.release_files import POOLS

RIVAL_SECONDS = {"sqlite": {1_000: 2.2, 10_000: 25.0, 100_000: 241.0}, "postgres": {1_000: 2.7, 10_000: 32.0}}
ANNOTATORS = 100


@dataclass(frozen=True)
class Figures:
    """Seconds are wall-clock; megabytes are 2**20 bytes, the highest resident size of the building process."""

    database: str
    responses: int
    seconds: float
    peak_mb: float
    release_mb: float
    zip_mb: float
    digest: str
    stages: dict[str, float]
    rival_seconds: float | None


def populate(responses: int) -> None:
    """The study that the builds are of."""
    from django.core.management import call_command

    from tests.exports.killed import populate as fill

    call_command("migrate", verbosity=0)
    annotators = min(ANNOTATORS, responses // 10)
    fill(responses // annotators, annotators)


def build(pool: str) -> dict[str, Any]:
    """Ask for a release, build it, and say what that took."""
    from annotations.models import Study
    from elicit.labels.release_files import Recipe
    from exports import selectors, services
    from exports.kinds import BUILD_RELEASE
    from jobs import services as jobs
    from jobs.models import Job

    release = services.request_release(study_id=Study.objects.get().pk, recipe=Recipe(pool=pool), user=None)
    job = Job.objects.get(kind=BUILD_RELEASE, subject=str(release.pk))
    stages: dict[str, float] = {}
    report, told_at, stage_now = jobs.report, time.perf_counter(), "start"

    def listen(job: Job, stage: str, done: int = 0, total: int = 0) -> None:
        nonlocal told_at, stage_now
        now = time.perf_counter()
        stages[stage_now] = stages.get(stage_now, 0.0) + now - told_at
        told_at, stage_now = now, stage
        report(job, stage, done, total)

    jobs.report = listen
    began = time.perf_counter()
    jobs.run(job.pk, services.build_release, retry_on=())
    seconds = time.perf_counter() - began
    release.refresh_from_db()
    return {
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "release_mb": sum(path.stat().st_size for path in selectors.folder(release).iterdir()) / 2**20,
        "zip_mb": release.zip_bytes / 2**20,
        "digest": release.digest,
        "stages": {stage: round(spent, 2) for stage, spent in stages.items() if spent >= 0.05},
    }


def in_a_process(environment: dict[str, str], *command: object) -> Any:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.release", *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


def measure(responses: int, runs: int, *, pool: str, postgres: bool) -> Figures:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
    with TemporaryDirectory(prefix="elicit-release-") as folder:
        environment["ELICIT_VAR"] = folder
        if postgres:
            from tests import services

            environment["ELICIT_DATABASE_URL"] = services.postgres()
        in_a_process(environment, "populate", responses)
        found = [in_a_process(environment, "build", pool) for _ in range(runs)]
    database = "postgres" if postgres else "sqlite"
    [digest] = {each["digest"] for each in found}
    return Figures(
        database=database,
        responses=responses,
        seconds=statistics.median(each["seconds"] for each in found),
        peak_mb=max(each["peak_mb"] for each in found),
        release_mb=found[0]["release_mb"],
        zip_mb=found[0]["zip_mb"],
        digest=digest,
        stages=found[-1]["stages"],
        rival_seconds=RIVAL_SECONDS[database].get(responses),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[10_000, 1_000_000], metavar="N")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pool", default="mean", choices=POOLS)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    for responses in options.responses:
        found = measure(responses, options.runs, pool=options.pool, postgres=options.postgres)
        if options.json:
            print(json.dumps(asdict(found)))
            continue
        print(
            f"{found.responses} responses on {found.database}: {found.seconds:.2f} s (median of {options.runs}), "
            f"{found.peak_mb:.0f} MB at most, {found.release_mb:.1f} MB of files, {found.zip_mb:.1f} MB zipped"
        )
        if found.rival_seconds:
            times = found.rival_seconds / found.seconds
            print(f"  Label Studio's JSON: {found.rival_seconds:g} s, {times:.0f} times as long")
        print("  " + ", ".join(f"{stage} {spent:.2f}" for stage, spent in found.stages.items()))


if __name__ == "__main__":
    if sys.argv[1:2] in (["populate"], ["build"]):
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
        django.setup()
        if sys.argv[1] == "populate":
            populate(int(sys.argv[2]))
            print("null")
        else:
            print(json.dumps(build(sys.argv[2])))
    else:
        main()
