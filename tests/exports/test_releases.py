from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine

from annotations import selectors as annotated
from annotations.models import ConsistencyCheck, Place, Session, Study
from annotations.services import quality, sessions, studies
from elicit.labels import LabelVariety, read_release
from elicit.labels.release_files import Progress, Recipe, zip_release
from elicit.labels.varieties import Answers, Depth, Redistribution
from exports import building, selectors
from exports.errors import ExportError
from exports.kinds import BUILD_RELEASE
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job, Status
from jobs.services import JobLost
from tests import factories as make

pytestmark = pytest.mark.django_db

FILES = {
    "DATASHEET.md",
    "README.md",
    "annotator_soft_labels.npy",
    "cifar10h-counts.npy",
    "cifar10h-probs.npy",
    "cifar10s.json",
    "cifar10s_answers.json",
    "croissant.json",
    "images.npy",
    "manifest.json",
    "responses.csv",
    "responses.jsonl",
    "responses.parquet",
    "soft_labels.csv",
    "soft_labels.npy",
    "soft_labels.parquet",
}


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    """The time stands still an hour after everything happened unless a test moves it."""
    with time_machine.travel(make.NOON + timedelta(hours=1), tick=False) as traveller:
        yield traveller


def claim(release: Release) -> Job:
    job = jobs.claim(Job.objects.get(kind=BUILD_RELEASE, subject=str(release.pk)).pk)
    assert job is not None
    return job


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- Asking


def test_a_release_is_asked_for_and_queued(study: Study) -> None:
    user = make.make_curator()

    release = make.make_release(study, build=False, user=user)

    assert (release.version, release.requested_by, release.is_ready) == (1, user, False)
    assert release.requested_at == make.NOON + timedelta(hours=1)
    assert Job.objects.filter(kind=BUILD_RELEASE, subject=str(release.pk), status=Status.QUEUED).count() == 1
    assert selectors.build_state(release).status == "requested"


def test_versions_count_up_in_each_study(study: Study) -> None:
    other = make.make_study(dataset=study.dataset, name="Other")
    make.complete_session(other)

    versions = [make.make_release(each, build=False).version for each in (study, study, other, study)]

    assert versions == [1, 2, 1, 3]


def test_a_draft_has_nothing_to_release() -> None:
    draft = make.make_study(launch=False)

    with pytest.raises(ExportError) as refused:
        make.make_release(draft)

    assert refused.value.code == "study_unknown"
    assert not Release.objects.exists()


def test_without_completed_sessions_there_is_nothing_to_release() -> None:
    study = make.make_study()
    make.answer_all(make.begin(make.make_session(study)))

    with pytest.raises(ExportError) as refused:
        make.make_release(study)

    assert refused.value.code == "nothing_to_release"
    assert not Release.objects.exists()
    assert not Job.objects.exists()


def test_where_the_recipe_keeps_nobody_there_is_nothing_to_release(study: Study) -> None:
    ConsistencyCheck.objects.update(verdict="inconsistent")

    with pytest.raises(ExportError) as refused:
        make.make_release(study, Recipe(leave_out_inconsistent=True))

    assert refused.value.code == "nothing_to_release"
    assert make.make_release(study).is_ready


@pytest.mark.parametrize("move", [studies.pause, studies.close])
def test_a_study_that_is_over_can_be_released(study: Study, move: object) -> None:
    assert callable(move)
    move(study.pk)

    assert make.make_release(study).is_ready


# --- Building


def test_a_release_is_built_with_all_its_files(study: Study, releases: Path) -> None:
    release = make.make_release(study)

    assert release.is_ready
    assert selectors.build_state(release).status == "ready"
    assert sorted(path.name for path in releases.iterdir()) == ["birds-v1", "birds-v1.zip", "builds"]
    assert sorted(path.name for path in selectors.folder(release).parent.iterdir()) == ["birds-v1", "birds-v1.zip"]
    assert (releases / "birds-v1").samefile(selectors.folder(release))
    assert (releases / "birds-v1.zip").samefile(selectors.archive(release))
    assert {path.name for path in (releases / "birds-v1").iterdir()} == FILES
    assert set(selectors.file_names(release)) == FILES
    assert Job.objects.get(kind=BUILD_RELEASE).status == Status.DONE


def test_what_was_said_comes_out_again(study: Study, releases: Path) -> None:
    make.make_release(study)

    read = read_release(releases / "birds-v1.zip")

    assert len(read.images) == 4
    assert read.counts.tolist() == [2, 2, 2, 2]
    assert sorted(set(read.annotators)) == sorted(study.participants.values_list("annotator", flat=True))
    assert read.kinds.tolist().count("repeat") == 2
    for session in study.sessions.all():
        said = [trial.responses.get().elicited for trial in session.trials.filter(kind="main").order_by("image__index")]
        labels = read.response_soft_labels[(read.annotators == session.participant.annotator) & (read.kinds == "main")]
        expected = LabelVariety().soft_labels(Answers.from_elicited(said, categories=10))
        assert labels == pytest.approx(expected)


def test_the_manifest_tells_the_facts_of_the_study(study: Study) -> None:
    release = make.make_release(study)
    facts, counts = release.manifest["facts"], release.manifest["counts"]

    assert facts["study"] == "birds"
    assert facts["study_name"] == "Birds"
    assert facts["dataset"] == "pictures"
    assert facts["dataset_origin"] == "made up"
    assert facts["preset"] == "CIFAR-10S protocol"
    assert facts["framing"] == "what 100 people would say"
    assert facts["labels_per_image_wanted"] == 4
    assert facts["consent_versions"] == [1]
    assert (facts["sessions"], facts["annotators"]) == (2, 2)
    assert facts["sessions_left_out"] == {
        "not_completed": 0,
        "screened_out": 0,
        "withdrawn": 0,
        "place_given_away": 0,
        "inconsistent": 0,
        "not_checked_yet": 0,
    }
    assert (counts["images"], counts["annotators"], counts["responses"], counts["pooled_responses"]) == (4, 2, 10, 8)
    assert release.manifest["version"] == 1
    assert release.digest == release.manifest["digest"]


def test_the_manifest_on_disk_is_the_one_in_the_database(study: Study, releases: Path) -> None:
    release = make.make_release(study)

    assert json.loads((releases / "birds-v1" / "manifest.json").read_text(encoding="utf-8")) == release.manifest


def test_the_recipe_decides_what_is_released(study: Study) -> None:
    recipe = Recipe(LabelVariety(Depth.T1, Redistribution.UNIFORM, 0.2), include_repeats=True)

    release = make.make_release(study, recipe)

    assert release.manifest["recipe"] == release.recipe == recipe.to_dict()
    assert release.manifest["counts"]["pooled_responses"] == 10


def test_progress_is_told_while_the_release_is_built(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    report = jobs.report

    def listen(job: Job, stage: str, done: int = 0, total: int = 0) -> None:
        told.append(stage)
        report(job, stage, done, total)

    monkeypatch.setattr(jobs, "report", listen)
    make.make_release(study)

    stages = list(dict.fromkeys(told))
    assert {"labels", "responses.csv", "soft_labels.csv"} < set(stages)
    assert stages[-2:] == ["packing", "publishing"]


# --- Who is in it


def test_inconsistent_sessions_are_left_out_when_asked_and_counted(study: Study) -> None:
    release = make.make_release(study, Recipe(leave_out_inconsistent=True))

    facts = release.manifest["facts"]
    assert facts["sessions_left_out"] == {
        "not_completed": 0,
        "screened_out": 0,
        "withdrawn": 0,
        "place_given_away": 0,
        "inconsistent": 1,
        "not_checked_yet": 0,
    }
    assert facts["sessions"] == 1
    kept = next(each.annotator for each in study.participants.all() if each.platform_id == "PLATFORM-ID-1")
    assert {line["annotator"] for line in response_lines(release)} == {kept}


def response_lines(release: Release) -> list[dict[str, object]]:
    text = (selectors.folder(release) / "responses.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_sessions_that_no_worker_has_checked_yet_stay_out_where_inconsistent_ones_do(study: Study) -> None:
    """Whether a worker has been there meanwhile must not change the bytes."""
    ConsistencyCheck.objects.filter(verdict="inconsistent").delete()
    release = make.make_release(study, Recipe(leave_out_inconsistent=True), build=False)
    quality.check_session(str(study.sessions.get(consistency=None).pk), release.requested_at + timedelta(seconds=1))
    building.build_release(claim(release))
    release.refresh_from_db()

    assert release.manifest["facts"]["sessions_left_out"]["not_checked_yet"] == 1
    assert release.manifest["facts"]["sessions"] == 1


def test_sessions_that_are_not_completed_are_left_out_and_counted(study: Study) -> None:
    waiting = make.make_session(study)
    answering = make.begin(make.make_session(study, seed=3))
    make.respond(answering.trials.get(position=1))
    at_the_questionnaire = make.answer_all(make.begin(make.make_session(study, seed=4)))

    release = make.make_release(study)

    assert release.manifest["facts"]["sessions_left_out"]["not_completed"] == 3
    released = {line["annotator"] for line in response_lines(release)}
    assert not released & {s.participant.annotator for s in (waiting, answering, at_the_questionnaire)}


def test_sessions_whose_place_was_given_away_are_left_out_and_counted(study: Study) -> None:
    late = make.answer_all(make.begin(make.make_session(study)))
    later = make.NOON + timedelta(hours=2)
    sessions.give_back_places(later)
    while annotated.has_free_place(study):
        make.begin(make.make_session(study, now=later), now=later)
    sessions.come_back(session_id=late.pk, now=later)
    sessions.save_questionnaire(session_id=late.pk, answers={}, now=later)

    with time_machine.travel(later + timedelta(hours=1)):
        release = make.make_release(study)

    left_out = release.manifest["facts"]["sessions_left_out"]
    assert left_out["place_given_away"] == 1
    assert late.participant.annotator not in {line["annotator"] for line in response_lines(release)}


def test_a_release_holds_what_was_completed_when_it_was_asked_for(study: Study, clock: time_machine.Traveller) -> None:
    release = make.make_release(study, build=False)
    clock.shift(timedelta(minutes=1))
    late = make.answer_all(make.begin(make.make_session(study), now=make.NOON))
    sessions.save_questionnaire(session_id=late.pk, answers={}, now=make.NOON + timedelta(minutes=61))

    make.run_jobs()

    release.refresh_from_db()
    assert release.manifest["facts"]["sessions"] == 2
    assert release.manifest["facts"]["sessions_left_out"]["not_completed"] == 1
    assert make.make_release(study).manifest["facts"]["sessions"] == 3


def test_every_consent_version_that_was_agreed_to_is_named(study: Study) -> None:
    studies.add_consent(study, "Another text.")
    make.complete_session(study, seed=5)

    assert make.make_release(study).manifest["facts"]["consent_versions"] == [1, 2]


def test_no_image_has_more_labels_than_the_study_wanted(study: Study, releases: Path) -> None:
    while annotated.has_free_place(study):
        make.complete_session(study, seed=Session.objects.count())

    make.make_release(study)

    assert read_release(releases / "birds-v1").counts.tolist() == [4, 4, 4, 4]
    assert Place.objects.count() == 4


# --- Who must not be in it


def test_no_byte_of_a_release_gives_a_person_away(study: Study, releases: Path) -> None:
    make.make_release(study)
    secrets = [
        text
        for session in Session.objects.select_related("participant")
        for text in (session.participant.platform_id, session.token, str(session.pk), session.pk.hex)
    ]

    packed = (releases / "birds-v1.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        unpacked = {name: archive.read(name) for name in archive.namelist()}
    everything = {**snapshot(releases), **unpacked, "names": "\n".join(unpacked).encode()}
    for name, content in everything.items():
        for secret in secrets:
            assert secret.encode() not in content, name
    assert {Path(name).name for name in unpacked} == FILES


def test_no_byte_of_a_release_tells_where_it_was_made(study: Study, releases: Path) -> None:
    make.make_release(study)

    for content in snapshot(releases / "birds-v1").values():
        assert str(releases).encode() not in content
        assert b"2026-01-01" not in content


# --- Again


def test_the_same_data_and_recipe_have_the_same_digest(study: Study, releases: Path) -> None:
    first, second = make.make_release(study), make.make_release(study)
    other = make.make_release(study, Recipe(LabelVariety(gamma=0.2)))

    assert first.digest == second.digest != other.digest
    one, two = (snapshot(releases / f"birds-v{version}") for version in (1, 2))
    del one["manifest.json"], two["manifest.json"]
    assert one == two


def test_building_what_is_built_does_nothing(study: Study, releases: Path) -> None:
    release = make.make_release(study)
    before = {path: path.stat().st_mtime_ns for path in releases.rglob("*")}
    row = Release.objects.values().get()
    Job.objects.filter(kind=BUILD_RELEASE).update(status=Status.QUEUED)

    building.build_release(claim(release))

    assert {path: path.stat().st_mtime_ns for path in releases.rglob("*")} == before
    assert Release.objects.values().get() == row


STAGES = ["labels", "responses.csv", "soft_labels.csv", "cifar10s_answers.json", "packing", "publishing"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_build_that_is_killed_shows_nothing_and_is_done_again(
    study: Study,
    releases: Path,
    clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    release = make.make_release(study, build=False)
    report = jobs.report

    def die(job: Job, at: str, done: int = 0, total: int = 0) -> None:
        report(job, at, done, total)
        if at == stage:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "report", die)
        with pytest.raises(KeyboardInterrupt):
            building.build_release(claim(release))
    release.refresh_from_db()
    assert not release.is_ready
    assert [path.name for path in releases.iterdir()] == ["builds"]

    clock.shift(jobs.LEASE + timedelta(seconds=1))
    building.build_release(claim(release))

    release.refresh_from_db()
    assert release.is_ready
    assert read_release(releases / "birds-v1.zip").manifest == release.manifest


def test_what_lies_under_the_name_of_a_release_is_replaced_by_the_link(study: Study, releases: Path) -> None:
    release = make.make_release(study, build=False)
    half = releases / "birds-v1"
    half.mkdir(parents=True)
    (half / "manifest.json").write_text("{", encoding="utf-8")
    (half / "stray.txt").write_text("left over", encoding="utf-8")
    (releases / "birds-v1.zip").write_bytes(b"half")

    building.build_release(claim(release))

    assert {path.name for path in half.iterdir()} == FILES
    release.refresh_from_db()
    assert read_release(half).manifest == read_release(releases / "birds-v1.zip").manifest == release.manifest


def test_a_disk_without_links_has_the_release_all_the_same(
    study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    release = make.make_release(study)

    assert read_release(selectors.archive(release)).manifest == release.manifest
    assert Job.objects.get(kind=BUILD_RELEASE).status == Status.DONE
    assert "not supported" in caplog.text


def test_a_release_of_the_time_before_attempts_had_folders_is_found_by_its_name(study: Study, releases: Path) -> None:
    release = make.make_release(study)
    for path in (selectors.folder(release), selectors.archive(release)):
        (releases / path.name).unlink()
        path.rename(releases / path.name)
    Release.objects.update(folder="")
    release.refresh_from_db()

    assert read_release(selectors.folder(release)).manifest == release.manifest
    assert read_release(selectors.archive(release)).manifest == release.manifest


def test_a_worker_that_lost_the_job_publishes_nothing(
    study: Study, releases: Path, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make.make_release(study, build=False)
    slow = claim(release)

    def take_over(folder: Path, target: Path, progress: Progress) -> Path:
        clock.shift(jobs.LEASE + timedelta(seconds=1))
        assert jobs.claim(slow.pk) is not None
        return zip_release(folder, target, progress=progress)

    monkeypatch.setattr(building, "zip_release", take_over)
    with pytest.raises(JobLost):
        building.build_release(slow)

    release.refresh_from_db()
    assert not release.is_ready
    assert list(releases.glob("**/*")) == [releases / "builds"]


def test_a_build_that_fails_says_why(study: Study, releases: Path) -> None:
    release = make.make_release(study, build=False)
    Session.objects.update(status="abandoned", completed_at=None)

    make.run_jobs()

    state = selectors.build_state(release)
    assert state.status == "failed"
    assert "no response" in state.error
    assert list(releases.glob("**/*")) == [releases / "builds"]


def test_the_state_of_a_build_tells_its_stage(study: Study) -> None:
    release = make.make_release(study, build=False)
    job = claim(release)
    jobs.report(job, "packing", 1, 4)

    state = selectors.build_state(release)

    assert (state.status, state.stage, state.percent) == ("building", "packing", 25)


def test_a_build_that_failed_can_be_revived(study: Study) -> None:
    release = make.make_release(study, build=False)
    job = claim(release)
    jobs.fail(job, "OSError: no disk")
    assert selectors.build_state(release).error == "OSError: no disk"

    jobs.revive(job)
    make.run_jobs()

    release.refresh_from_db()
    assert release.is_ready
