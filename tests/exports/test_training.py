"""Training runs: what may be asked for, and the worker that keeps the process which trains."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connections, transaction
from django.test import Client
from django.utils import timezone
from PIL import Image as Picture
from pytest_django.fixtures import Settings

from annotations import selectors as annotated
from annotations.models import Image
from annotations.selectors import dashboard
from annotations.services import leaving
from elicit.labels.errors import Refusal
from exports import selectors, services, training, training_settings
from exports.kinds import TRAIN
from exports.models import Release, TrainingRun
from jobs import services as jobs
from jobs.models import Job, Status
from tests import factories as make
from tests import services as started
from tests.exports import stand_in

pytestmark = pytest.mark.django_db
PAGE = "/admin/exports/trainingrun/"
REAL = training.command


@pytest.fixture(autouse=True)
def folders(settings: Settings, tmp_path: Path) -> Path:
    settings.TRAINING_ROOT = tmp_path / "training"
    return tmp_path / "training"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY", 0.02)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Twelve images that lie in the storage, labelled by two people."""
    study = make.make_study(
        dataset=make.import_pictures(tmp_path, 12), images_per_session=12, repeats_per_session=0, labels_per_image=2
    )
    for seed in range(2):
        make.complete_session(study, platform_id=f"PLATFORM-{seed}", seed=seed)
    make.run_jobs()
    return make.make_release(study)


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stand-in trains; more words for it may be added."""
    more: list[str] = []

    def command(run: TrainingRun) -> list[str]:
        words = REAL(run)
        return [words[0], str(stand_in.__file__), *words[words.index("compare") + 1 :], *more]

    monkeypatch.setattr(training, "command", command)
    return more


def ask(release: Release, **settings: Any) -> TrainingRun:
    return services.request_training(release_id=release.pk, user=None, **settings)


def job_of(run: TrainingRun) -> Job:
    return Job.objects.filter(kind=TRAIN, subject=str(run.pk)).latest("pk")


def state(run: TrainingRun) -> str:
    return selectors.training_state(TrainingRun.objects.get(pk=run.pk)).status


# --- What may be asked for


def test_a_run_is_queued_with_what_was_asked_for(release: Release) -> None:
    run = ask(release, label_sets=["hard", "t2-clamp@1:each"], annotators="1,all", seeds=3)

    assert (run.label_sets, run.seeds, state(run)) == (["hard", "t2-clamp@1:each"], 3, "waiting")
    assert job_of(run).status == Status.QUEUED


def test_the_number_of_runs_is_label_sets_by_annotators_by_seeds() -> None:
    # hard once, recommended for 1, 2 and all, t2-clamp@3 once, one more release: six by four seeds.
    assert training_settings.runs_of(["hard", "recommended", "t2-clamp@3"], "1,2,all", 4, 1) == 24


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"label_sets": []}, "label_sets_missing"),
        ({"label_sets": ["kind"]}, "label_set_unknown"),
        ({"annotators": "few"}, "label_set_unknown"),
        ({"network": "vgg99"}, "setting_invalid"),
        ({"epochs": 0}, "setting_invalid"),
        ({"holdout": 1.0}, "setting_invalid"),
        ({"seeds": 0}, "setting_invalid"),
        ({"seeds": 1001}, "too_many_runs"),
        ({"use_reference": True}, "reference_missing"),
        ({"label_sets": ["h"]}, "reference_missing"),
        ({"other_ids": [999]}, "release_unknown"),
    ],
)
def test_what_training_would_refuse_is_refused_when_it_is_asked_for(
    release: Release, asked: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refusal) as refused:
        ask(release, **asked)

    assert refused.value.code == code
    assert not TrainingRun.objects.exists()


def test_every_label_set_that_is_offered_is_one_that_training_knows() -> None:
    names = [name for name, _ in training_settings.offered(reference=True)]

    assert len(names) == len(set(names)) == 17
    assert len(training_settings.planned(names, "all")) == 17


def test_a_release_of_other_images_is_not_compared(release: Release) -> None:
    other = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0, name="Cats")
    make.complete_session(other, platform_id="PLATFORM-9", seed=9)

    with pytest.raises(Refusal, match="shows other images"):
        ask(release, other_ids=[make.make_release(other).pk])


def test_a_run_can_t_be_both_finished_and_cancelled(release: Release) -> None:
    run = ask(release)

    with pytest.raises(IntegrityError), transaction.atomic():
        TrainingRun.objects.filter(pk=run.pk).update(finished_at=make.NOON, cancelled_at=make.NOON)


def test_a_run_that_waits_for_its_own_queue_alarms_nobody(release: Release) -> None:
    ask(release)

    assert dashboard.machine(timezone.now(), dashboard.limits()).waiting_since is None


def test_a_run_that_waits_long_is_not_rung_for_at_every_sweep(release: Release) -> None:
    run = ask(release)
    Job.objects.filter(pk=job_of(run).pk).update(rung_at=timezone.now() - 2 * jobs.PATIENCE)
    assert jobs.sweep() == 0

    Job.objects.filter(pk=job_of(run).pk).update(rung_at=timezone.now() - jobs.LONG_PATIENCE)
    assert jobs.sweep() == 1


# --- What the child gets


def test_the_child_reads_the_release_and_the_images_by_their_numbers(release: Release, stood_in: list[str]) -> None:
    run = ask(release)
    training._write_input(run, _made(selectors.training_folder(run.pk) / "input"), _claimed(run))

    archive = selectors.training_folder(run.pk) / "input" / "images.zip"
    with zipfile.ZipFile(archive) as packed:
        assert {each.compress_type for each in packed.infolist()} == {zipfile.ZIP_STORED}
        rows = list(csv.DictReader(io.StringIO(packed.read("metadata.csv").decode())))
        assert len(rows) == 12
        assert rows[3] == {"file_name": "images/3.png", "label": "Cat"}
        with Picture.open(io.BytesIO(packed.read("images/3.png"))) as picture:
            shown = np.asarray(picture)
    stored = {each.index: each.sha256 for each in annotated.stored_images(release.study_id)}
    with Picture.open(io.BytesIO(annotated.stored_png(stored[3]))) as picture:
        assert np.array_equal(np.asarray(picture), shown)
    words = training.command(run)
    assert words[words.index("--release") + 1] == str(selectors.archive(release))


def test_images_are_read_a_page_at_a_time(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotations.selectors.releases._STORED_AT_ONCE", 5)

    assert [each.index for each in annotated.stored_images(release.study_id)] == list(range(12))


def test_the_reference_distributions_go_along_where_they_judge(release: Release) -> None:
    Image.objects.update(reference_distribution=[0.5, 0.5, *[0.0] * 8])
    run = ask(release, use_reference=True, label_sets=["h", "hard"])
    training._write_input(run, _made(selectors.training_folder(run.pk) / "input"), _claimed(run))

    table = np.load(selectors.training_folder(run.pk) / "input" / "reference.npy")
    assert table.shape == (12, 10)
    assert table[7].tolist() == [0.5, 0.5, *[0.0] * 8]
    words = training.command(run)
    assert words[words.index("--reference") + 1].endswith("reference.npy")
    assert words[words.index("--labels") + 1] == "h@all,hard"


def test_the_child_s_environment_holds_no_secret(
    release: Release, stood_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ELICIT_SECRET_KEY", "DJANGO_SETTINGS_MODULE", "AWS_SECRET_ACCESS_KEY", "ELICIT_DATABASE_URL"):
        monkeypatch.setenv(name, "SECRET")
    run = ask(release)
    make.run_jobs()

    told = json.loads((selectors.training_folder(run.pk) / "home" / "environment.json").read_text())
    given = {"PATH", "HOME", "LANG", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    # What Python and the linker add by themselves.
    assert set(told) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} == given
    assert told["HOME"] == str(selectors.training_folder(run.pk) / "home")


# --- The keeper


def test_a_run_is_done_and_its_findings_are_kept(release: Release, stood_in: list[str]) -> None:
    run = ask(release)
    make.run_jobs()

    run.refresh_from_db()
    assert (state(run), job_of(run).status) == ("finished", Status.DONE)
    assert run.summary["best"] == {"label_set": "released", "cross_entropy": 0.75}
    assert run.summary["findings"] == ["released − hard: −0.5000 nats."]
    assert run.summary["figures"] == [["gaps", "Of <labels>."]]
    assert run.summary["table"][0] == ["hard", "1.250 ± 0.250", "–", "–", "0.500", "–", "–"]
    # The images were a copy, and nobody needs it any more.
    assert not (selectors.training_folder(run.pk) / "input").exists()


def test_progress_is_told_in_the_child_s_words(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert training._progress(path) is None
    path.write_text("{")
    assert training._progress(path) is None
    told = {"done": 3, "total": 40, "run": 1, "runs": 4, "epoch": 3, "epochs": 10, "seconds_left": 400.0}
    path.write_text(json.dumps(told))

    assert training._progress(path) == ("run 1 of 4, epoch 3 of 10, about 7 min left", 3, 40)


def test_the_child_s_last_words_are_the_reason_of_a_failure(release: Release, stood_in: list[str]) -> None:
    stood_in.append("--fail")
    run = ask(release)
    make.run_jobs()

    found = selectors.training_state(run)
    assert (found.status, found.error) == ("failed", "runs holds a run of other data.")


def test_without_torch_the_job_says_how_to_get_it(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_settings, "has_torch", lambda: False)
    run = ask(release)
    make.run_jobs()

    assert selectors.training_state(run).error == training_settings.NO_TORCH


def test_a_run_that_was_cancelled_while_it_waited_is_not_begun(release: Release, stood_in: list[str]) -> None:
    run = ask(release)
    services.cancel_training(run, user=None)
    make.run_jobs()

    assert state(run) == "cancelled"
    assert not selectors.training_folder(run.pk).exists()


def meanwhile(run: TrainingRun, do: Callable[[], object]) -> None:
    """Do the job, and ``do`` once the child is at its second epoch."""
    epochs = selectors.training_output(run) / "epochs"

    def later() -> None:
        deadline = time.monotonic() + 20
        while not (epochs.exists() and len(epochs.read_text().split()) >= 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        do()
        connections.close_all()

    thread = threading.Thread(target=later)
    thread.start()
    make.run_jobs()
    thread.join()


def child_is_gone(run: TrainingRun) -> bool:
    pid = int((selectors.training_folder(run.pk) / "home" / "pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# SQLite's database in memory refuses a second thread at once, where one in a file would let it wait.
@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_cancelling_kills_the_child_and_going_on_takes_up_where_it_was(release: Release, stood_in: list[str]) -> None:
    stood_in += ["--wait", "0.3"]
    run = ask(release)
    meanwhile(run, lambda: services.cancel_training(run, user=None))

    assert (state(run), job_of(run).status) == ("cancelled", Status.DONE)
    assert child_is_gone(run)
    before = (selectors.training_output(run) / "epochs").read_text()
    assert 2 <= len(before.split()) < stand_in.RUNS * stand_in.EPOCHS

    stood_in[-1] = "0"
    services.go_on_training(run)
    make.run_jobs()

    assert state(run) == "finished"
    after = (selectors.training_output(run) / "epochs").read_text()
    assert after.startswith(before)
    assert after.split() == [str(number) for number in range(10)]


# SQLite's database in memory refuses a second thread at once, where one in a file would let it wait.
@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_lost_the_job_kills_its_child(
    release: Release, stood_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "REPORT_EVERY", 0.05)
    stood_in += ["--wait", "0.3"]
    run = ask(release)
    meanwhile(run, lambda: Job.objects.filter(pk=job_of(run).pk).update(owner="another"))

    assert child_is_gone(run)
    assert state(run) == "training"


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_told_to_stop_puts_the_run_back_uncounted(
    release: Release, stood_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(training, "_stopping", stopping)
    stood_in += ["--wait", "0.3"]
    run = ask(release)
    meanwhile(run, stopping.set)

    job = job_of(run)
    assert (job.status, job.attempts, job.lease_until) == (Status.QUEUED, 0, None)
    assert child_is_gone(run)


def test_an_attempt_that_came_further_does_not_count_against_the_run(release: Release, stood_in: list[str]) -> None:
    stood_in += ["--wait", "0.05"]
    run = ask(release)
    Job.objects.filter(pk=job_of(run).pk).update(attempts=4)
    make.run_jobs()

    assert job_of(run).attempts == 1


@pytest.mark.django_db(transaction=True)
def test_a_killed_child_fails_the_run_in_words(release: Release, stood_in: list[str]) -> None:
    stood_in += ["--wait", "0.3"]
    run = ask(release)
    pid = selectors.training_folder(run.pk) / "home" / "pid"
    meanwhile(run, lambda: os.kill(int(pid.read_text()), signal.SIGKILL))

    assert "is there enough memory?" in selectors.training_state(run).error


@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_takes_its_child_along_and_the_next_goes_on(release: Release, stood_in: list[str]) -> None:
    """The worker is a fork: its end closes the child's standard input, and nothing else tells the child."""
    stood_in += ["--wait", "0.3"]
    run = ask(release)
    connections.close_all()
    if not (worker := os.fork()):
        jobs.run(job_of(run).pk, training.train, retry_on=())
        os._exit(0)
    epochs = selectors.training_output(run) / "epochs"
    wait_until(lambda: epochs.exists() and len(epochs.read_text().split()) >= 2)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    wait_until(lambda: child_is_gone(run))
    done = len(epochs.read_text().split())
    assert done < 10
    Job.objects.filter(pk=job_of(run).pk).update(lease_until=make.NOON)

    stood_in[-1] = "0"
    assert jobs.claim(job_of(run).pk + 1) is None
    jobs.run(job_of(run).pk, training.train, retry_on=())

    assert state(run) == "finished"
    assert epochs.read_text().split() == [str(number) for number in range(10)]


def wait_until(condition: Callable[[], bool], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _claimed(run: TrainingRun) -> Job:
    job = jobs.claim(job_of(run).pk)
    assert job is not None
    return job


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# --- Removal


def test_a_removed_run_leaves_nothing(release: Release, stood_in: list[str], folders: Path) -> None:
    run = ask(release)
    make.run_jobs()
    services.remove_training(run)
    make.run_jobs()

    assert list(folders.iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_a_run_that_is_removed_while_it_trains_leaves_nothing_either(
    release: Release, stood_in: list[str], folders: Path
) -> None:
    stood_in += ["--wait", "0.3"]
    run = ask(release)
    meanwhile(run, lambda: services.remove_training(run))

    assert list(folders.iterdir()) == []


@pytest.mark.parametrize("as_other", [False, True])
def test_a_withdrawal_removes_what_was_trained_on_the_withheld_release(
    release: Release, stood_in: list[str], client: Client, as_other: bool
) -> None:
    second = make.make_release(release.study)
    run = ask(second, other_ids=[release.pk]) if as_other else ask(release)
    make.run_jobs()
    assert state(run) == "finished"
    session = release.study.sessions.order_by("pk").first()
    assert session is not None

    leaving.withdraw(session_id=session.pk, now=timezone.now())
    run.refresh_from_db()
    assert run.summary == {}
    client.force_login(make.make_curator())
    # Before any worker has removed a file.
    assert client.get(f"{PAGE}{run.pk}/report.html").status_code == 404
    make.run_jobs()

    assert not selectors.training_folder(run.pk).exists()
    text = client.get(f"{PAGE}{run.pk}/change/").content.decode()
    assert "An annotator withdrew, and their answers were erased." in text
    with pytest.raises(Refusal, match="withdrew"):
        services.go_on_training(run)


# --- The pages


@pytest.fixture
def console(client: Client) -> Client:
    client.force_login(make.make_curator())
    return client


def member(role: str) -> Client:
    client = Client()
    user = User.objects.create_user(role, password="correct horse battery", is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    return client


FORM: dict[str, Any] = {
    "label_sets": ["hard", "released"],
    "annotators": "all",
    "seeds": 2,
    "network": "small",
    "epochs": 3,
}


def test_a_curator_asks_for_a_run_from_a_release(release: Release, console: Client) -> None:
    assert f"?release={release.pk}" in console.get(f"/admin/exports/release/{release.pk}/change/").content.decode()
    page = console.get(f"{PAGE}add/?release={release.pk}").content.decode()
    assert "That makes 20 networks: 4 label sets × 5 seeds, 800 epochs in all." in page

    sent = console.post(f"{PAGE}add/?release={release.pk}", {**FORM, "holdout": 0.3, "more": "t2-clamp@1"})

    run = TrainingRun.objects.get()
    assert sent.headers["Location"] == f"{PAGE}{run.pk}/change/"
    assert run.label_sets == ["hard", "released", "t2-clamp@1"]
    assert run.requested_by is not None
    assert f"{PAGE}{run.pk}/change/" in console.get(f"/admin/exports/release/{release.pk}/change/").content.decode()
    again = console.get(f"{PAGE}add/?from={run.pk}").content.decode()
    assert 'value="t2-clamp@1"' in again


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"label_sets": []}, "Choose at least one label set."),
        ({"more": "kind"}, "There is no label set"),
        ({"annotators": "0"}, "Annotators per image are numbers from 1"),
        ({"holdout": "2"}, "less than or equal to 0.9"),
        ({"network": "huge"}, "Select a valid choice"),
    ],
)
def test_a_form_that_can_t_be_done_is_refused_in_words(
    release: Release, console: Client, said: dict[str, Any], words: str
) -> None:
    answer = console.post(f"{PAGE}add/?release={release.pk}", {**FORM, "holdout": 0.3, **said})

    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not TrainingRun.objects.exists()


def test_the_estimate_follows_the_form(release: Release, console: Client) -> None:
    asked = {**FORM, "holdout": 0.3, "release": release.pk}

    assert console.get(f"{PAGE}estimate/", asked).json() == {
        "says": "That makes 4 networks: 2 label sets × 2 seeds, 12 epochs in all."
    }
    assert "Choose at least one" in console.get(f"{PAGE}estimate/", {**asked, "label_sets": []}).json()["says"]


def test_the_form_says_how_to_get_torch_where_it_is_missing(
    release: Release, console: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_settings, "has_torch", lambda: False)

    assert "`make training` installs it" in console.get(f"{PAGE}add/?release={release.pk}").content.decode()


def test_without_a_release_the_form_asks_for_one(console: Client) -> None:
    assert "no release yet" in console.get(f"{PAGE}add/").content.decode()
    assert "Nothing has been trained yet." in console.get(PAGE).content.decode()


def test_the_report_can_run_nothing_and_reach_nobody(release: Release, stood_in: list[str], console: Client) -> None:
    run = ask(release)
    assert console.get(f"{PAGE}{run.pk}/report.html").status_code == 404
    make.run_jobs()

    report = console.get(f"{PAGE}{run.pk}/report.html")
    assert report.headers["Content-Security-Policy"] == (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    drawing = console.get(f"{PAGE}{run.pk}/figures/gaps.svg")
    assert drawing.headers["Content-Type"] == "image/svg+xml"
    assert drawing.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert console.get(f"{PAGE}{run.pk}/figures/other.svg").status_code == 404
    assert console.get(f"{PAGE}{run.pk}/result.json").json()["seconds"] == 1.0
    page = console.get(f"{PAGE}{run.pk}/change/").content.decode()
    assert "Of &lt;labels&gt;." in page
    assert "0.750 (released)" in console.get(PAGE).content.decode()


@pytest.mark.parametrize(("role", "reads", "asks"), [("curator", 1, 1), ("researcher", 1, 0), ("reviewer", 0, 0)])
def test_each_role_may_do_what_the_table_says(
    release: Release, stood_in: list[str], role: str, reads: int, asks: int
) -> None:
    run = ask(release)
    make.run_jobs()
    client = member(role)

    for name in ("change/", "report.html", "result.json", "figures/gaps.svg"):
        assert (client.get(f"{PAGE}{run.pk}/{name}").status_code == 200) == reads, name
    page = client.get(f"{PAGE}{run.pk}/change/").content.decode()
    assert ("Another run like this" in page) == bool(asks)
    assert (client.get(f"{PAGE}add/?release={release.pk}").status_code == 200) == asks
    assert (client.get(f"{PAGE}{run.pk}/delete/").status_code == 200) == asks
    for name in ("cancel/", "go-on/"):
        assert (client.post(f"{PAGE}{run.pk}/{name}").status_code == 302) == asks, name
        assert client.get(f"{PAGE}{run.pk}/{name}").status_code == (405 if asks else 403)


def test_a_curator_cancels_goes_on_and_removes(release: Release, stood_in: list[str], console: Client) -> None:
    run = ask(release)
    console.post(f"{PAGE}{run.pk}/cancel/")
    assert "Cancelled by curator." in console.get(f"{PAGE}{run.pk}/change/").content.decode()
    refused = console.post(f"{PAGE}{run.pk}/go-on/", follow=True)
    assert "about to stop" in refused.content.decode()
    make.run_jobs()

    console.post(f"{PAGE}{run.pk}/go-on/")
    assert state(run) == "waiting"
    make.run_jobs()
    assert state(run) == "finished"
    console.post(f"{PAGE}{run.pk}/delete/", {"post": "yes"})
    make.run_jobs()
    assert not TrainingRun.objects.exists()
    assert not selectors.training_folder(run.pk).exists()


# --- The site and its queue


def test_the_site_never_imports_torch() -> None:
    code = (
        "import django, sys; django.setup(); import exports.admin, exports.tasks, elicit.urls;"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=started.ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "elicit.settings"},
        check=False,
    )
    assert done.returncode == 0
