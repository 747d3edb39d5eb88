"""Rows for tests, made through the services wherever these make them in life."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from celery import current_app
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from annotations import selectors
from annotations.models import Category, Dataset, Image, Session, Study, Trial, TrialKind
from annotations.presets import CIFAR10S
from annotations.services import images as pictures
from annotations.services import responses, sessions, studies
from annotations.services.responses import Accepted, Making
from elicit.archives import CIFAR10_CATEGORIES, open_cifar10
from elicit.labels.elicited import AnswerRules, Elicited, check
from elicit.labels.release_files import Recipe
from exports.models import Release
from exports.services import request_release
from jobs.models import Job, Status

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Named = Sequence[tuple[object, object]]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_dataset(images: int = 20, categories: Sequence[str] = CIFAR10_CATEGORIES, slug: str = "pictures") -> Dataset:
    """A ready dataset whose images exist as rows only: nothing lies in the image storage."""
    dataset = Dataset.objects.create(slug=slug, name=slug.title(), origin="made up", ready_at=NOON)
    Category.objects.bulk_create(
        Category(dataset=dataset, index=index, name=name) for index, name in enumerate(categories)
    )
    Image.objects.bulk_create(
        Image(dataset=dataset, index=i, sha256=f"{i:064x}", width=32, height=32, reference=i % len(categories))
        for i in range(images)
    )
    return dataset


def make_study(*, dataset: Dataset | None = None, launch: bool = True, name: str = "Birds", **settings: Any) -> Study:
    """A study of the CIFAR-10S preset on all images of the dataset, live unless asked otherwise."""
    study = studies.create_study(name=name, dataset=dataset or make_dataset(), preset=CIFAR10S, overrides=settings)
    studies.choose_images(study, None, rng())
    return studies.launch(study.pk, rng()) if launch else study


def make_session(study: Study, *, platform_id: str = "", now: datetime = NOON, seed: int = 0) -> Session:
    """A session that has agreed and reads the instructions."""
    consent = selectors.current_consent(study)
    assert consent is not None
    return sessions.begin_session(
        study=study, consent_version=consent.version, platform_id=platform_id, now=now, rng=rng(seed)
    )


def begin(session: Session, *, now: datetime = NOON, seed: int = 0) -> Session:
    """Take the session to its trials."""
    return sessions.begin_trials(session_id=session.pk, now=now, rng=rng(seed))


def respond(
    trial: Trial,
    named: Named = ((3, 80.0),),
    impossible: Sequence[object] = (),
    *,
    response_id: uuid.UUID | None = None,
    now: datetime = NOON,
    duration_ms: int = 5000,
    revises: uuid.UUID | None = None,
) -> Accepted:
    """Answer one trial through the service."""
    return responses.submit_response(
        session=trial.session,
        trial_id=trial.pk,
        response_id=response_id or uuid.uuid4(),
        named=named,
        impossible=impossible,
        making=Making(duration_ms),
        revises=revises,
        now=now,
    )


def answer_all(
    session: Session, named: Named = ((3, 80.0),), repeats: Named | None = None, *, now: datetime = NOON
) -> Session:
    """Answer every open trial, the repeats differently where `repeats` says so."""
    for trial in selectors.open_trials(session):
        respond(trial, repeats if repeats and trial.kind == TrialKind.REPEAT else named, now=now)
    session.refresh_from_db()
    return session


def complete_session(
    study: Study, named: Named = ((3, 80.0),), repeats: Named | None = None, *, platform_id: str = "", seed: int = 0
) -> Session:
    """A whole sitting, questionnaire and all."""
    session = answer_all(begin(make_session(study, platform_id=platform_id, seed=seed), seed=seed), named, repeats)
    return sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=NOON)


def elicited(named: Named, impossible: Sequence[object] = ()) -> Elicited:
    """An answer on ten categories, checked as the server checks it."""
    return check(named, impossible, AnswerRules(categories=10))


def make_curator(username: str = "curator") -> User:
    return User.objects.create_superuser(username, password="correct horse battery")


def make_staff(username: str = "helper", *permissions: str) -> User:
    """A member of staff who may do just that: `app.codename`s."""
    user = User.objects.create_user(username, password="correct horse battery", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return user


# --- Pictures that can be looked at


def write_archive(folder: Path, images: int = 12) -> Path:
    """A small archive in the official binary layout, test images only: image i is of class i modulo ten."""
    random = rng(images)
    records = b"".join(bytes([i % 10]) + random.integers(0, 256, 3072, dtype=np.uint8).tobytes() for i in range(images))
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.size = len(records)
        tar.addfile(entry, io.BytesIO(records))
    return path


def import_pictures(folder: Path, images: int = 12, slug: str = "photographs") -> Dataset:
    """A dataset whose images lie in the image storage."""
    dataset = Dataset(slug=slug, name=slug.title())
    pictures.fill_dataset(dataset, open_cifar10(write_archive(folder, images)), "test", lambda _: None)
    return dataset


# --- Work in the background


# Once, and not while a test runs: Celery sets Django up again for it, and the log's handlers anew.
current_app.loader.import_default_modules()


def run_jobs() -> list[Job]:
    """Do what is due, as a worker would; returns those jobs as they stand now."""
    due = Job.objects.filter(status=Status.QUEUED, due_at__lte=timezone.now()).order_by("pk")
    keys = list(due.values_list("pk", "kind"))
    for pk, kind in keys:
        current_app.tasks[kind](pk)
    return list(Job.objects.filter(pk__in=[pk for pk, _ in keys]).order_by("pk"))


def make_release(
    study: Study, recipe: Recipe | None = None, *, build: bool = True, user: User | None = None
) -> Release:
    """A release of what is completed, built unless asked otherwise."""
    release = request_release(study_id=study.pk, recipe=recipe or Recipe(), user=user)
    if build:
        run_jobs()
        release.refresh_from_db()
    return release


def migrated_to(where: list[tuple[str, str]]) -> Any:
    """The database taken there and back; returns the models as they were then."""
    executor = MigrationExecutor(connection)
    executor.migrate(where)
    return executor.loader.project_state(where).apps
