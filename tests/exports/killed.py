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
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

if TYPE_CHECKING:
    from annotations.models import Study
    from exports.models import Release

KILLS = 10


def populate(images: int, annotators: int) -> Study:
    """A study whose `images` were each answered by all `annotators`, as if they had completed it at noon."""
    from annotations import selectors
    from annotations.models import Image, Participant, Response, Session, SessionStatus, Trial, TrialKind
    from tests import factories as make

    study = make.make_study(
        dataset=make.make_dataset(images),
        labels_per_image=annotators,
        images_per_session=min(images, 500),
        repeats_per_session=0,
    )
    consent = selectors.current_consent(study)
    assert consent is not None
    places = list(study.places.order_by("batch__number", "number"))
    people = Participant.objects.bulk_create(
        (Participant(study=study, annotator=f"a{number:06}") for number in range(len(places))), batch_size=1000
    )
    random = make.rng(1)
    sat = Session.objects.bulk_create(
        (
            Session(
                study=study,
                participant=person,
                status=SessionStatus.COMPLETED,
                consent=consent,
                consented_at=make.NOON,
                seen_at=make.NOON,
                completed_at=make.NOON,
                category_order=random.permutation(10).tolist(),
            )
            for person in people
        ),
        batch_size=1000,
    )
    for place, session in zip(places, sat, strict=True):
        place.session = session
    type(places[0]).objects.bulk_update(places, ["session"], batch_size=500)
    for place, session in zip(places, sat, strict=True):
        shown = list(Image.objects.filter(study_images__batch_id=place.batch_id).order_by("index"))
        trials = Trial.objects.bulk_create(
            (
                Trial(session=session, image=image, position=position, kind=TrialKind.MAIN, place=place)
                for position, image in enumerate(shown, 1)
            ),
            batch_size=1000,
        )
        classes = random.integers(0, 10, len(trials)).tolist()
        percentages = random.integers(10, 100, len(trials)).tolist()
        Response.objects.bulk_create(
            (
                Response(
                    id=uuid.UUID(int=int.from_bytes(random.bytes(16), "big")),
                    trial=trial,
                    named=[[category, float(percentage)], [(category + 1) % 10, (100 - percentage) // 2]],
                    impossible=[(category + 5) % 10, (category + 7) % 10],
                    top_category=category,
                    top_percentage=percentage,
                    sum_percentage=100,
                    duration_ms=5000,
                    received_at=make.NOON,
                )
                for trial, category, percentage in zip(trials, classes, percentages, strict=True)
            ),
            batch_size=1000,
        )
    return study


def start(release: Release) -> int:
    """A process of its own that does the release's job; its id."""
    from django.db import connections
    from django.utils import timezone

    from exports import services
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
        jobs.run(job.pk, services.build_release, retry_on=())
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

    from tests import factories as make

    call_command("migrate", verbosity=0)
    study = populate(150, 40)
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
    left = [path.name for path in Path(settings.RELEASES_ROOT).iterdir() if path.name.startswith(".")]
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
