"""How long a release takes, and how much memory: `python -m benchmarks.release`, some ten minutes.

Fills a database with responses (10 categories, two named each), has releases of them built in all formats, as a worker
does it, each in a process of its own: from the rows of the database to the .zip; by the published recipe (t2-clamp,
mean) and by the recommended one (confusion) in turn. Prints the median of the runs, the highest memory of any, and how
long the rival's export of as many annotations took (Label Studio, JSON, measured on a machine with two cores as well).
With --postgres the database is a PostgreSQL of its own, else SQLite.

Exits with 1 where a million responses take 60 s or 1 GB, or ten thousand more than a thirtieth of the rival's time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import apart
from elicit.labels.release_files import POOLS

MOST_SECONDS, MOST_MB, LEAST_TIMES = {1_000_000: 60.0}, {1_000_000: 1024.0}, {10_000: 30.0}
RIVAL_SECONDS = {"sqlite": {1_000: 2.2, 10_000: 25.0, 100_000: 241.0}, "postgres": {1_000: 2.7, 10_000: 32.0}}
ANNOTATORS = 100


@dataclass(frozen=True)
class Figures:
    """Seconds are wall-clock but for `cpu_seconds`, the building process's own; megabytes are 2**20 bytes, the highest
    resident size of that process. `load`: of the machine, when all was over."""

    database: str
    responses: int
    recipe: str
    pool: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    release_mb: float
    zip_mb: float
    digest: str
    stages: dict[str, float]
    rival_seconds: float | None
    load: float

    @property
    def times_as_fast(self) -> float | None:
        return self.rival_seconds / self.seconds if self.rival_seconds else None

    @property
    def falls_short(self) -> bool:
        return (
            self.seconds >= MOST_SECONDS.get(self.responses, float("inf"))
            or self.peak_mb >= MOST_MB.get(self.responses, float("inf"))
            or (self.times_as_fast or float("inf")) < LEAST_TIMES.get(self.responses, 0.0)
        )


def populate(responses: int) -> None:
    """The study that the builds are of."""
    from django.core.management import call_command

    from tests import crowds

    call_command("migrate", verbosity=0)
    annotators = min(ANNOTATORS, responses // 10)
    crowds.answered_study(responses // annotators, annotators)


def build(recipe: str, pool: str) -> dict[str, Any]:
    """Ask for a release, build it, and say what that took."""
    from annotations.models import Study
    from exports import building, recipes, selectors, services
    from exports.kinds import BUILD_RELEASE
    from jobs import services as jobs
    from jobs.models import Job

    asked = recipes.recipe(recipe, pool=pool or None)
    release = services.request_release(study_id=Study.objects.get().pk, recipe=asked, user=None)
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
    began, cpu_began = time.perf_counter(), time.process_time()
    jobs.run(job.pk, building.build_release, retry_on=())
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    release.refresh_from_db()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "release_mb": sum(path.stat().st_size for path in selectors.folder(release).iterdir()) / 2**20,
        "zip_mb": release.zip_bytes / 2**20,
        "digest": release.digest,
        "pool": asked.pool,
        "stages": {stage: round(spent, 2) for stage, spent in stages.items() if spent >= 0.05},
    }


def measure(responses: int, runs: int, *, recipes: list[str], pool: str, postgres: bool) -> list[Figures]:
    """The figures of each recipe, built in turn, from one database."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
    found: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in recipes}
    with TemporaryDirectory(prefix="elicit-release-") as folder:
        environment["ELICIT_VAR"] = folder
        if postgres:
            from tests import services

            environment["ELICIT_DATABASE_URL"] = services.postgres()
        apart.run("release", environment, "populate", responses)
        for _ in range(runs):
            for recipe in recipes:
                found[recipe].append(apart.run("release", environment, "build", recipe, pool))
    return [figures("postgres" if postgres else "sqlite", responses, recipe, each) for recipe, each in found.items()]


def figures(database: str, responses: int, recipe: str, runs: list[dict[str, Any]]) -> Figures:
    [digest] = {each["digest"] for each in runs}
    return Figures(
        database=database,
        responses=responses,
        recipe=recipe,
        pool=runs[0]["pool"],
        seconds=statistics.median(each["seconds"] for each in runs),
        cpu_seconds=statistics.median(each["cpu_seconds"] for each in runs),
        peak_mb=max(each["peak_mb"] for each in runs),
        release_mb=runs[0]["release_mb"],
        zip_mb=runs[0]["zip_mb"],
        digest=digest,
        stages=runs[-1]["stages"],
        rival_seconds=RIVAL_SECONDS[database].get(responses),
        load=os.getloadavg()[0],
    )


def tell(found: Figures, runs: int) -> None:
    print(
        f"{found.responses} responses on {found.database}, {found.recipe} ({found.pool}): {found.seconds:.2f} s "
        f"(median of {runs}; {found.cpu_seconds:.1f} s of a core), {found.peak_mb:.0f} MB at most, "
        f"{found.release_mb:.1f} MB of files, {found.zip_mb:.1f} MB zipped; load {found.load:.1f}"
    )
    if found.times_as_fast:
        print(f"  Label Studio's JSON: {found.rival_seconds:g} s, {found.times_as_fast:.0f} times as long")
    print("  " + ", ".join(f"{stage} {spent:.2f}" for stage, spent in found.stages.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[10_000, 1_000_000], metavar="N")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=["published", "recommended"], metavar="RECIPE")
    parser.add_argument("--pool", default="", choices=["", *POOLS], help="other than the recipes'")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    short = False
    for responses in options.responses:
        measured = measure(
            responses, options.runs, recipes=options.recipes, pool=options.pool, postgres=options.postgres
        )
        for found in measured:
            short |= found.falls_short
            if options.json:
                print(json.dumps(asdict(found)), flush=True)
            else:
                tell(found, options.runs)
    raise SystemExit(short)


if __name__ == "__main__":
    if sys.argv[1:2] in (["populate"], ["build"]):
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
        django.setup()
        if sys.argv[1] == "populate":
            populate(int(sys.argv[2]))
            print("null")
        else:
            print(json.dumps(build(sys.argv[2], sys.argv[3])))
    else:
        main()
