"""A site that is backed up, wiped and restored, driven from outside: `python -m tests.backed_up COMMAND [+ COMMAND]`.

The environment says where the site is; what the commands have to say is printed as a list, one line of JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

PASSWORD = "correct horse battery"
ANSWERED = 3


def prepare(labels: str = "6") -> dict[str, Any]:
    """A study under way with room for so many people: two who are done, one who withdrew, two in the middle; a release,
    and one that waits for a worker; a curator with an authenticator and recovery codes."""
    from django.core.management import call_command
    from django.utils import timezone

    from annotations import selectors
    from annotations.services import leaving
    from tests import factories as make

    call_command("migrate", verbosity=0)
    with tempfile.TemporaryDirectory() as folder:
        study = make.make_study(
            dataset=make.import_pictures(Path(folder)), images_per_session=12, labels_per_image=int(labels)
        )
    done = [make.complete_session(study, platform_id=f"done-{number}", seed=number) for number in range(3)]
    leaving.withdraw(session_id=done[2].pk, now=timezone.now())
    make.make_release(study)
    half = []
    for number in range(2):
        now = timezone.now()
        session = make.begin(make.make_session(study, platform_id=f"half-{number}", now=now, seed=number), now=now)
        for trial in list(selectors.open_trials(session))[:ANSWERED]:
            make.respond(trial, now=now)
        half.append(session.token)
    make.make_release(study, build=False)
    make.make_curator()
    return {"half": half, "codes": _two_factor()}


def _two_factor() -> list[str]:
    """Set up the curator's authenticator; the recovery codes."""
    from django.test import Client
    from django_otp.oath import TOTP

    client = Client(SERVER_NAME="localhost")
    client.post("/login/", {"username": "curator", "password": PASSWORD})
    shown = re.search(r"Key: <code>([A-Z2-7 ]+)</code>", client.get("/login/two-factor/").content.decode())
    assert shown is not None
    totp = TOTP(base64.b32decode(shown[1].replace(" ", "")))
    totp.time = time.time()
    page = client.post("/login/two-factor/", {"code": f"{totp.token():06d}"}).content.decode()
    return re.findall(r"<code>([0-9a-z]{5}-[0-9a-z]{5})</code>", page)


def backup(target: str) -> None:
    from django.core.management import call_command

    call_command("backup", to=target, verbosity=0, stdout=sys.stderr)


def look() -> dict[str, Any]:
    """What there is: platform ids as they are decrypted, releases as they are downloaded, pictures as they are read."""
    from django.contrib.auth.models import User
    from django.test import Client

    from annotations import image_store
    from annotations.models import Image, Participant, Response, Session
    from elicit.archives import pixel_sha256
    from exports import selectors

    client = Client(SERVER_NAME="localhost")
    ready = client.get("/readyz").status_code
    client.force_login(User.objects.get(username="curator"))
    releases = {}
    for release in selectors.ready_releases().filter(withheld=False):
        names = [*selectors.file_names(release), "release.zip"]
        releases[release.name] = {name: _downloaded(client, release, name) for name in names}
    return {
        "ready": ready,
        "platform_ids": sorted(person.platform_id for person in Participant.objects.all()),
        "sessions": sorted(map(list, Session.objects.values_list("token", "status"))),
        "responses": sorted(str(pk) for pk in Response.objects.values_list("pk", flat=True)),
        "releases": releases,
        "pictures": {
            sha256: pixel_sha256(image_store.pixels(sha256)) == sha256
            for sha256 in Image.objects.values_list("sha256", flat=True)
        },
    }


def _downloaded(client: Any, release: Any, name: str) -> str:
    answer = client.get(f"/releases/{release.study.slug}/{release.version}/files/{name}")
    assert answer.status_code == 200, (name, answer.status_code)
    return hashlib.sha256(b"".join(answer.streaming_content)).hexdigest()


def work() -> list[str]:
    """Do the jobs that wait; how each of them ended."""
    from tests import factories as make

    return [f"{job.kind} {job.status}{job.error}" for job in make.run_jobs()]


def finish(*tokens: str) -> dict[str, Any]:
    """Go on with these sessions as a browser would, the first trial over HTTP; how many trials were left, and where
    each session stands then."""
    import uuid

    from django.test import Client
    from django.utils import timezone

    from annotations import selectors
    from annotations.services import sessions
    from tests import factories as make

    said: dict[str, Any] = {}
    for token in tokens:
        client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Session {token}"})
        assert client.get(f"/session/{token}/").status_code == 200
        session = selectors.session_by_token(token)
        assert session is not None
        left = list(selectors.open_trials(session))
        answer = {"named": [{"category": 3, "percentage": 80}], "impossible": [0], "duration_ms": 900}
        address = f"/api/trials/{left[0].pk}/responses/{uuid.uuid4()}"
        assert client.put(address, answer, content_type="application/json").status_code == 201
        for trial in left[1:]:
            make.respond(trial, now=timezone.now())
        sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=timezone.now())
        session.refresh_from_db()
        said[token] = [len(left), session.status]
    return said


def sign_in(code: str) -> str:
    """Where a password and then this code lead."""
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    asked = client.post("/login/", {"username": "curator", "password": PASSWORD})
    assert asked.headers["Location"].startswith("/login/code/")
    return str(client.post("/login/code/", {"code": code}).headers.get("Location", "refused"))


def pulled(target: str) -> str:
    """Back up while somebody deletes a dataset between the copy of the database and the hold on the files, and where
    a picture was lost long before; what the command said."""
    import io
    import threading
    from unittest import mock

    from django.core.management import call_command

    from annotations import image_store
    from annotations.models import Dataset
    from annotations.services import images
    from elicit.backups import contents
    from tests import factories as make

    with tempfile.TemporaryDirectory() as folder:
        make.import_pictures(Path(folder), 20, slug="passing")
    lost = Dataset.objects.get(slug="photographs").images.get(index=0).sha256
    image_store.remove(lost)
    hold = contents.held

    def delete() -> None:
        for dataset in Dataset.objects.filter(slug="passing"):
            images.delete_dataset(dataset)
            make.run_jobs()

    def held(*arguments: Any) -> set[str]:
        # By a connection of its own.
        thread = threading.Thread(target=delete)
        thread.start()
        thread.join()
        return hold(*arguments)

    out = io.StringIO()
    with mock.patch.object(contents, "held", held):
        call_command("backup", to=target, stdout=out)
    return out.getvalue().replace(lost, "the lost one")


def withdraw(token: str) -> None:
    from django.utils import timezone

    from annotations import selectors
    from annotations.services import leaving

    session = selectors.session_by_token(token)
    assert session is not None
    leaving.withdraw(session_id=session.pk, now=timezone.now())


def answer() -> int:
    """Whole sittings, one after the other, until standard input ends; how many."""
    from annotations.models import Study
    from tests import factories as make

    study = Study.objects.get()
    count = 0
    with _until_told() as going_on:
        while going_on():
            make.complete_session(study, platform_id=f"busy-{count}", seed=100 + count)
            count += 1
    return count


def change() -> int:
    """Build releases and have them withheld, import pictures and remove them, until standard input ends; how often."""
    from django.utils import timezone

    from annotations.models import Session, SessionStatus, Study
    from annotations.services import images, leaving
    from tests import factories as make

    study = Study.objects.get()
    count = 0
    with _until_told() as going_on, tempfile.TemporaryDirectory() as folder:
        while going_on():
            pictures = make.import_pictures(Path(folder), 40 + count, slug=f"passing-{count}")
            make.make_release(study)
            session = Session.objects.filter(status=SessionStatus.COMPLETED).order_by("-completed_at").first()
            if session is not None:
                leaving.withdraw(session_id=session.pk, now=timezone.now())
            images.delete_dataset(pictures)
            make.run_jobs()
            count += 1
    return count


def _until_told() -> Any:
    """Says `ready`; what is given then tells whether standard input is open still."""
    import select
    from contextlib import contextmanager

    @contextmanager
    def telling() -> Any:
        print("ready", flush=True)  # noqa: T201
        yield lambda: not select.select([sys.stdin], [], [], 0)[0]

    return telling()


def named() -> dict[str, list[str]]:
    """The files that rows name and that are not there; and the releases whose files are not those of their rows."""
    from django.core.management import call_command
    from django.db import DEFAULT_DB_ALIAS, connection

    from elicit.backups import contents
    from exports import selectors

    call_command("check", verbosity=0)
    connection.check_constraints()
    roots = contents.roots()
    gone = []
    for name in contents.named(DEFAULT_DB_ALIAS):
        folder, _, rest = name.partition("/")
        if not (roots[folder] / rest).exists():
            gone.append(name)
    wrong = []
    for release in selectors.ready_releases().filter(withheld=False):
        zipped = selectors.archive(release)
        if not zipped.exists() or hashlib.sha256(zipped.read_bytes()).hexdigest() != release.zip_sha256:
            wrong.append(release.name)
    return {"gone": gone, "wrong": wrong, "releases": [str(release) for release in selectors.ready_releases()]}


COMMANDS = {
    run.__name__: run for run in (prepare, backup, look, work, finish, sign_in, pulled, withdraw, answer, change, named)
}


def main(words: list[str]) -> list[Any]:
    said = []
    while words:
        end = words.index("+") if "+" in words else len(words)
        said.append(COMMANDS[words[0]](*words[1:end]))
        words = words[end + 1 :]
    return said


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(sys.argv[1:])))  # noqa: T201
