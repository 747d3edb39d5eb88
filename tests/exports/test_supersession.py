from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from annotations.models import ExclusionReason, Session, Study
from annotations.services import leaving
from elicit.labels import read_release
from elicit.labels.release_files import Recipe, zip_release
from exports import building, selectors
from exports.errors import ExportError
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    """An hour after everything happened, standing still unless a test moves it."""
    with time_machine.travel(make.NOON + timedelta(hours=1), tick=False) as traveller:
        yield traveller


def first(study: Study) -> Session:
    return min(study.sessions.all(), key=lambda session: session.participant.platform_id)


def withdraw(session: Session) -> None:
    leaving.withdraw(session_id=session.pk, now=timezone.now())


def exclude(session: Session, reason: ExclusionReason = ExclusionReason.TECHNICAL) -> None:
    leaving.exclude(session_id=session.pk, reason=reason, note="secret note", by=None, now=timezone.now())


def annotators(release: Release) -> set[str]:
    return set(read_release(selectors.folder(release)).annotators)


def test_a_withdrawal_supersedes_the_release_and_says_why(study: Study) -> None:
    release, gone = make.make_release(study), first(study)

    withdraw(gone)
    make.run_jobs()

    release.refresh_from_db()
    assert release.superseded_at == timezone.now()
    assert release.superseded_reason == "An annotator withdrew, and their answers were erased."
    assert release.superseded_by is not None
    assert release.superseded_by.version == 2
    assert annotators(release.superseded_by) == {study.sessions.exclude(pk=gone.pk).get().participant.annotator}


def test_the_files_of_a_release_with_erased_answers_are_gone(study: Study, releases: Path) -> None:
    release = make.make_release(study)
    folder, archive = selectors.folder(release), selectors.archive(release)
    digest = release.digest

    withdraw(first(study))
    make.run_jobs()

    assert not folder.exists()
    assert not archive.exists()
    assert not [path for path in releases.iterdir() if path.name.startswith(release.name)]
    release.refresh_from_db()
    assert (release.withheld, release.digest) == (True, digest)


def test_a_withheld_release_is_refused_with_the_name_of_its_successor(study: Study, client: Client) -> None:
    release = make.make_release(study)
    client.force_login(make.make_curator())

    # Before any worker has removed a file.
    withdraw(first(study))
    answer = client.get(f"/api/releases/{study.slug}/{release.version}/files/release.zip")

    assert answer.status_code == 410
    assert answer.json()["code"] == "release_withheld"
    assert f"{study.slug}-v2 takes the place" in answer.json()["message"]


def test_an_exclusion_supersedes_but_leaves_the_files(study: Study) -> None:
    release = make.make_release(study)

    exclude(first(study))
    make.run_jobs()

    release.refresh_from_db()
    assert release.superseded_reason == "A session was excluded: a technical fault."
    assert (release.withheld, selectors.archive(release).exists()) == (False, True)
    assert release.superseded_by is not None
    left_out = release.superseded_by.manifest["facts"]["sessions_left_out"]
    assert left_out["excluded_technical"] == 1
    assert "secret note" not in str(release.superseded_by.manifest)


def test_a_release_that_never_held_the_session_stands(study: Study, clock: time_machine.Traveller) -> None:
    before = make.make_release(study)
    clock.shift(timedelta(hours=1))
    late = make.complete_session(study, platform_id="PLATFORM-ID-3", seed=3)
    Session.objects.filter(pk=late.pk).update(completed_at=timezone.now())
    after = make.make_release(study)

    exclude(late)

    before.refresh_from_db()
    after.refresh_from_db()
    assert before.superseded_at is None
    assert after.superseded_at is not None


def test_a_release_without_the_inconsistent_stands_when_one_of_them_leaves(study: Study) -> None:
    release = make.make_release(study, Recipe(leave_out_inconsistent=True))
    inconsistent = study.sessions.get(consistency__verdict="inconsistent")

    exclude(inconsistent)

    release.refresh_from_db()
    assert release.superseded_at is None


def test_releases_of_one_recipe_share_a_successor(study: Study) -> None:
    old = [make.make_release(study), make.make_release(study), make.make_release(study, Recipe(include_repeats=True))]

    exclude(first(study))

    for release in old:
        release.refresh_from_db()
    assert old[0].superseded_by == old[1].superseded_by
    assert old[2].superseded_by != old[0].superseded_by
    assert Release.objects.count() == 5


def test_several_who_leave_at_once_make_one_successor(study: Study) -> None:
    make.complete_session(study, seed=3)
    release = make.make_release(study)
    sessions = list(study.sessions.all())

    exclude(sessions[0])
    exclude(sessions[1])
    make.run_jobs()

    release.refresh_from_db()
    assert [each.version for each in Release.objects.order_by("version")] == [1, 2]
    assert release.superseded_by is not None
    assert annotators(release.superseded_by) == {sessions[2].participant.annotator}


def test_a_build_that_nobody_has_begun_is_not_superseded(study: Study) -> None:
    release = make.make_release(study, build=False)
    gone = first(study)

    withdraw(gone)
    make.run_jobs()

    release.refresh_from_db()
    assert (release.superseded_at, Release.objects.count()) == (None, 1)
    assert gone.participant.annotator not in annotators(release)


def test_a_build_that_is_under_way_ends_without_a_release(study: Study) -> None:
    release = make.make_release(study, build=False)
    job = jobs.claim(Job.objects.get(kind=BUILD_RELEASE, subject=str(release.pk)).pk)
    assert job is not None

    withdraw(first(study))
    with pytest.raises(ExportError) as refused:
        building.build_release(job)

    assert refused.value.code == "release_superseded"
    release.refresh_from_db()
    assert not release.is_ready
    assert release.superseded_by is not None


def test_a_build_that_has_read_erased_answers_is_not_published(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    release = make.make_release(study, build=False)
    job = jobs.claim(Job.objects.get(kind=BUILD_RELEASE, subject=str(release.pk)).pk)
    assert job is not None

    def leave_while_packing(*args: Any, **options: Any) -> None:
        zip_release(*args, **options)
        withdraw(first(study))

    monkeypatch.setattr("exports.building.zip_release", leave_while_packing)
    with pytest.raises(ExportError) as refused:
        building.build_release(job)

    assert refused.value.code == "release_superseded"
    release.refresh_from_db()
    assert not release.is_ready
    assert not list(selectors.folder(release).parent.glob("*.zip"))


def test_the_last_annotator_leaves_a_superseded_release_without_a_successor(study: Study) -> None:
    for session in study.sessions.all()[1:]:
        exclude(session)
    release = make.make_release(study)

    withdraw(study.sessions.get(excluded_at__isnull=True))

    release.refresh_from_db()
    assert (release.superseded_by, release.withheld) == (None, True)


def test_a_release_that_an_exclusion_has_superseded_is_withheld_once_somebody_in_it_withdraws(study: Study) -> None:
    """Superseded, it would otherwise go on being given out with the erased answers in it."""
    release, (first_one, other) = make.make_release(study), study.sessions.order_by("pk")
    exclude(first_one)
    make.run_jobs()
    release.refresh_from_db()
    by, folder = release.superseded_by, selectors.folder(release)
    assert (release.withheld, folder.exists()) == (False, True)

    withdraw(other)
    make.run_jobs()

    release.refresh_from_db()
    assert (release.withheld, release.superseded_by) == (True, by)
    assert "withdrew" in release.superseded_reason
    assert not folder.exists()


def test_a_release_is_withheld_once_the_person_withdraws_whose_exclusion_superseded_it(study: Study) -> None:
    release, gone = make.make_release(study), first(study)
    exclude(gone)
    make.run_jobs()

    withdraw(gone)
    make.run_jobs()

    release.refresh_from_db()
    assert release.withheld
    assert not selectors.folder(release).exists()
    assert release.superseded_by is not None
    release.superseded_by.refresh_from_db()
    assert not release.superseded_by.withheld


def test_a_release_of_another_study_stands(study: Study) -> None:
    other = make.make_study(dataset=make.make_dataset(2, slug="others"), images_per_session=2, repeats_per_session=0)
    make.complete_session(other)
    release = make.make_release(other)

    withdraw(first(study))

    release.refresh_from_db()
    assert release.superseded_at is None


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_release_asked_for_during_a_withdrawal_waits_for_it(study: Study) -> None:
    """Otherwise it could read the answers before they are erased, unseen by the withdrawal."""
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        make.make_release(study, build=False)
        connection.close()

    asker = threading.Thread(target=ask)
    with transaction.atomic():
        make_sure = Release.objects.count()
        withdraw(first(study))
        asker.start()
        asked.wait()
        asker.join(timeout=0.5)
        waiting = asker.is_alive()
    asker.join()

    assert (make_sure, waiting, Release.objects.count()) == (0, True, 1)
