"""A site on SQLite, driven from outside: `python -m tests.concurrency.site COMMAND`.

For what only whole processes can show. The environment says where the site is (`ELICIT_VAR`); what a command has to
say it prints as one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import django

from tests.services import ROOT

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")


class Site:
    """The site whose files lie in `folder`, on the settings that a bare machine has: SQLite and a queue of files."""

    def __init__(self, folder: Path) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
        self.environment["ELICIT_VAR"] = str(folder)

    def __call__(self, *command: object) -> Any:
        """Run a command of this module in a process of its own; what it said."""
        with self.start(*command) as process:
            output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"
        return json.loads(output)

    def start(self, *command: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.concurrency.site", *map(str, command)],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def prepare(sessions: int, places: int) -> dict[str, Any]:
    """A new database with a live study of one image, and sessions at its instructions."""
    from django.core.management import call_command

    from tests import factories as make

    call_command("migrate", verbosity=0)
    study = make.make_study(dataset=make.make_dataset(1), labels_per_image=places)
    return {"sessions": [str(make.make_session(study, seed=number).pk) for number in range(sessions)]}


def begin(*session_ids: str) -> dict[str, Any]:
    """Say `ready`, wait for a line on standard input, then take these sessions to their trials one after the other."""
    from django.db import connection

    from annotations.errors import AnnotationError
    from annotations.models import Session
    from tests import factories as make

    people = [Session.objects.get(pk=session_id) for session_id in session_ids]
    connection.ensure_connection()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    said = []
    for person in people:
        try:
            said.append(make.begin(person).status)
        except AnnotationError as refusal:
            said.append(refusal.code)
    return {"said": said}


def complete() -> dict[str, Any]:
    """A whole sitting in the study that is there."""
    from annotations.models import Study
    from tests import factories as make

    return {"session": str(make.complete_session(Study.objects.get()).pk)}


def owe(platform_study: str, submission: str, person: str) -> dict[str, Any]:
    """A new database with one completed session from Prolific, whose bonus is asked for."""
    from django.core.management import call_command

    from annotations import selectors
    from annotations.models import Payment, Platform
    from annotations.recruitment import Visit
    from annotations.services import recruitment
    from tests import factories as make

    call_command("migrate", verbosity=0)
    study = make.make_study(dataset=make.make_dataset(1), repeats_per_session=0, questionnaire=[])
    terms = {"platform": Platform.PROLIFIC, "platform_study": platform_study, "bonus_most_minor": 50}
    recruitment.set_terms(study=study, terms=terms)
    visit = Visit(Platform.PROLIFIC, person=person, submission=submission)
    consent = selectors.current_consent(study)
    assert consent is not None
    session = recruitment.admit(
        study=study, visit=visit, heard=None, consent_version=consent.version, now=make.NOON, rng=make.rng()
    )
    payment = Payment.objects.create(
        study=study,
        session=session,
        arrival=session.arrivals.get(),
        kind="bonus",
        amount_minor=40,
        currency="GBP",
        key="k",
        ordered=True,
        due_at=make.NOON,
    )
    return {"payment": payment.pk}


def pay(payment: int) -> dict[str, Any]:
    """Say `ready`, wait for a line on standard input, then send this payment."""
    from django.db import connection
    from django.utils import timezone

    from annotations.recruitment.prolific_api import Client
    from annotations.services import payments

    connection.ensure_connection()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    return {"paid": payments.send(payment_id=payment, client=Client(), now=timezone.now())}


def settle(payment: int) -> dict[str, Any]:
    """What the next worker does with a payment that was left behind, and how the payment stands then."""
    from django.utils import timezone

    from annotations.models import Payment
    from annotations.recruitment.prolific_api import Client
    from annotations.services import payments

    study = Payment.objects.get(pk=payment).study_id
    payments.settle_study(study, Client(), timezone.now(), everything=True)
    payments.send(payment_id=payment, client=Client(), now=timezone.now())
    return {"state": Payment.objects.get(pk=payment).state}


def look() -> dict[str, Any]:
    """What the database holds."""
    from annotations.models import ConsistencyCheck, Place, Trial, TrialKind
    from jobs.models import Job

    main = Trial.objects.filter(kind=TrialKind.MAIN)
    return {
        "journal": _pragma("journal_mode"),
        "places_taken": Place.objects.filter(session__isnull=False).count(),
        "main_trials": main.count(),
        "sessions_with_trials": main.values("session").distinct().count(),
        "checks": ConsistencyCheck.objects.count(),
        "jobs": [[job.status, job.attempts] for job in Job.objects.order_by("pk")],
    }


def _pragma(name: str) -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        return str(cursor.execute(f"PRAGMA {name}").fetchone()[0])


if __name__ == "__main__":
    django.setup()
    match sys.argv[1:]:
        case ["prepare", sessions, places]:
            answer = prepare(int(sessions), int(places))
        case ["begin", *session_ids]:
            answer = begin(*session_ids)
        case ["owe", platform_study, submission, person]:
            answer = owe(platform_study, submission, person)
        case ["pay", payment]:
            answer = pay(int(payment))
        case ["settle", payment]:
            answer = settle(int(payment))
        case ["complete"]:
            answer = complete()
        case ["look"]:
            answer = look()
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(answer))  # noqa: T201
