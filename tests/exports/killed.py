"""Builds a release over and over while it is killed: `python -m tests.exports.killed`, on the site of `ELICIT_VAR`.

Prints one line of JSON: what an unbroken build made, and what came of those that were killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

if TYPE_CHECKING:
    from annotations.models import Study
    from exports.models import Release

KILLS = 10


def start(release: Release) -> int:
    """A process of its own that does the release's job; its id."""
    from django.db import connections
    from django.utils import timezone

    from exports import building
    from exports.kinds import BUILD_RELEASE
    from jobs import services as jobs
    from jobs.models import Job

    job = Job.objects.get(kind=BUILD_RELEASE, subject=str(release.pk))
    # As if the lease of whoever was killed had run out.
    Job.objects.filter(pk=job.pk, lease_until__isnull=False).update(lease_until=timezone.now() - timedelta(seconds=1))
    connections.close_all()
    if child := os.fork():
        while Job.objects.get(pk=job.pk).attempts == job.attempts:
            time.sleep(0.001)
        return child
    try:
        jobs.run(job.pk, building.build_release, retry_on=())
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child of a fork must never come back
        traceback.print_exc()
        os._exit(1)


def finish(child: int) -> None:
    assert os.waitpid(child, 0)[1] == 0


def request(study: Study) -> Release:
    from elicit.labels.release_files import Recipe
    from exports.kinds import BUILD_RELEASE
    from exports.services import request_release
    from jobs.models import Job

    release = request_release(study_id=study.pk, recipe=Recipe(), user=None)
    Job.objects.filter(kind=BUILD_RELEASE).update(most_attempts=100)
    return release


def state(release: Release) -> dict[str, Any]:
    """All that can be seen of a release."""
    from exports import selectors
    from jobs.models import Job

    release.refresh_from_db()
    job = Job.objects.get(subject=str(release.pk), kind="exports.build_release")
    folder = selectors.folder(release)
    archive = selectors.archive(release)
    return {
        "ready": release.is_ready,
        "digest": release.digest,
        "job": job.status,
        "attempts": job.attempts,
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.glob("*"))
            if path.name != "manifest.json"
        },
        "zip_is_whole": archive.exists() and hashlib.sha256(archive.read_bytes()).hexdigest() == release.zip_sha256,
    }


def main() -> dict[str, Any]:
    from django.conf import settings
    from django.core.management import call_command

    from exports.models import Release
    from tests import crowds
    from tests import factories as make

    call_command("migrate", verbosity=0)
    study = crowds.answered_study(150, 40)
    unbroken = request(study)
    began = time.monotonic()
    finish(start(unbroken))
    takes = time.monotonic() - began
    random = make.rng(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    builds: list[dict[str, Any]] = []
    kills = seen_while_unfinished = 0
    release = None
    while kills < KILLS or release:
        release = release or request(study)
        child = start(release)
        if kills < KILLS:
            # From where the last one stopped it is less to do: short waits as often as long ones.
            time.sleep(takes * random.random() ** 2)
            os.kill(child, signal.SIGKILL)
            killed = os.waitpid(child, 0)[1] == signal.SIGKILL
            kills += killed
            found = state(release)
            seen_while_unfinished += killed and not found["ready"]
            if found["ready"]:
                assert found["zip_is_whole"], "a release shows that is not whole"
            if killed:
                continue
        else:
            finish(child)
        builds.append(state(release))
        release = None
    root = Path(settings.RELEASES_ROOT)
    published = {root / folder for folder in Release.objects.values_list("folder", flat=True)}
    left = [path.name for path in (root / "builds").iterdir() if path not in published]
    return {
        "unbroken": state(unbroken),
        "builds": builds,
        "left": left,
        "kills": kills,
        "seen_while_unfinished": seen_while_unfinished,
        "seconds": takes,
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main()))  # noqa: T201
