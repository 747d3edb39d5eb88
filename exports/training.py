"""Do a training run, in a worker of the queue `training`.

The networks are trained by a process of its own, `python -m training compare`: torch never comes near the site, and the
child gets nothing of the worker's environment. It stops when its standard input ends, which it does with the worker,
however that dies; the next worker starts the same command, which goes on from the last epoch.

A run's folder holds `input` (what the child reads beside releases), `output` (what it writes), `home` and `log`.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from celery.signals import worker_shutting_down
from django.conf import settings

from annotations import selectors as annotated
from elicit.labels.cifar10h import write_probs
from exports import derived, selectors, services, training_settings
from exports.errors import ExportError
from exports.models import Release, TrainingRun
from jobs import services as jobs
from jobs.models import Job
from jobs.services import PutBack

log = logging.getLogger(__name__)

# Seconds between two looks at the child and at the run's row, and between two reports, which keep the lease.
LOOK_EVERY = 1.0
REPORT_EVERY = min(5.0, settings.JOB_LEASE_SECONDS / 4)
# What a child that won't die of itself is given.
ENDS_WITHIN = 10.0
NICENESS = 10
THREADS = "2"

_stopping = threading.Event()


@worker_shutting_down.connect
def _told_to_stop(**_: object) -> None:
    """A worker waits for its jobs before it stops: this one would be hours."""
    _stopping.set()


def train(job: Job) -> None:
    """Do the run that the job names, or what is left of it; nothing where it was cancelled or removed."""
    try:
        run = selectors.training_runs().filter(pk=int(job.subject)).first()
        if run is None or run.finished_at or not selectors.is_wanted(run.pk):
            return
        if not training_settings.has_torch():
            raise ExportError("torch_missing", training_settings.NO_TORCH)
        folder = selectors.training_folder(run.pk)
        for name in ("input", "output", "home"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _write_input(run, folder / "input", job)
        if not _run_child(run, folder, job):
            return
        if services.finish_training(run, summary_of(folder / "output")):
            shutil.rmtree(folder / "input", ignore_errors=True)
    finally:
        # Removed or withheld meanwhile: whoever was to remove the files may have been here before the child's end.
        if not selectors.may_keep_files(job.subject):
            _discard(selectors.training_folder(job.subject))


def remove(job: Job) -> None:
    """Remove the files of a run that is deleted or withheld. A worker that is at it still does the same at its end."""
    if not selectors.may_keep_files(job.subject):
        _discard(selectors.training_folder(job.subject))


def _discard(folder: Path) -> None:
    """Away at once for whoever looks, then in fact; whatever was left of an earlier try too."""
    doomed = folder.with_name(f".removing-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.replace(doomed)
        shutil.rmtree(doomed)


# What the child reads


def _releases(run: TrainingRun) -> list[Release]:
    return [run.release, *sorted(run.others.all(), key=lambda other: other.pk)]


def _write_input(run: TrainingRun, folder: Path, job: Job) -> None:
    """The images of the first release, and their reference distributions where these judge."""
    archive, reference = folder / "images.zip", folder / "reference.npy"
    if archive.exists() and (reference.exists() or not run.use_reference):
        return
    wanted = set(derived.opened(run.release).images.tolist())
    part = archive.with_suffix(".part")
    rows, labels, told_at = [], [], time.monotonic()
    # Stored: PNG is packed already.
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as packed:
        for image in annotated.stored_images(run.release.study_id):
            if image.index not in wanted:
                continue
            name = f"images/{image.index}.png"
            packed.writestr(name, _png(image.index, image.sha256))
            rows.append((name, image.category))
            if run.use_reference and image.distribution is not None:
                labels.append((image.index, image.distribution))
            if time.monotonic() - told_at >= REPORT_EVERY:
                jobs.report(job, "collecting the images", len(rows), len(wanted))
                told_at = time.monotonic()
        table = io.StringIO()
        csv.writer(table).writerows([("file_name", "label"), *rows])
        packed.writestr("metadata.csv", table.getvalue())
    if run.use_reference:
        images, distributions = zip(*labels, strict=True)
        write_probs(reference, images, np.array(distributions))
    part.replace(archive)


def _png(index: int, sha256: str) -> bytes:
    try:
        return annotated.stored_png(sha256)
    except FileNotFoundError as error:
        raise ExportError("image_missing", f"Image {index} is gone from the image storage.") from error


# The child


def command(run: TrainingRun) -> list[str]:
    """What trains; the same words for the same run, so that it goes on where it stopped."""
    folder, releases = selectors.training_folder(run.pk), _releases(run)
    words = [sys.executable, "-m", "training", "compare"]
    for release in releases:
        words += ["--release", str(selectors.archive(release))]
    words += ["--images", str(folder / "input" / "images.zip")]
    words += ["--labels", ",".join(training_settings.label_names(run.label_sets, [each.name for each in releases[1:]]))]
    words += ["--m", run.annotators, "--seeds", str(run.seeds), "--network", run.network, "--epochs", str(run.epochs)]
    words += ["--holdout", str(run.holdout), "--threads", THREADS, "--output", str(folder / "output")]
    if run.use_reference:
        words += ["--reference", str(folder / "input" / "reference.npy")]
    return [*words, "--until-stdin-closes"]


def environment(folder: Path) -> dict[str, str]:
    """All that the child knows of this machine: no secret, no database."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), THREADS),
    }


def _run_child(run: TrainingRun, folder: Path, job: Job) -> bool:
    """Start it and stay with it; False where the run is not wanted any more.

    Raises:
        JobLost, PutBack: the child is dead by then, as with every other error.
        ExportError: ``training_failed`` with the child's last words.
    """
    jobs.report(job, "starting")
    said = folder / "log"
    with said.open("wb") as words:
        child = subprocess.Popen(
            command(run),
            cwd=settings.BASE_DIR,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
            start_new_session=True,
        )
    try:
        with suppress(OSError):
            # Before people's answers comes nothing.
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        wanted = _watch(run, child, folder / "output" / "progress.json", job)
    finally:
        _end(child)
    if wanted and child.returncode:
        raise ExportError("training_failed", _last_words(said, child.returncode, folder))
    return wanted


def _watch(run: TrainingRun, child: subprocess.Popen[bytes], progress: Path, job: Job) -> bool:
    """Until the child ends; pass on how far it is."""
    first: int | None = None
    told: tuple[str, int, int] = ("starting", 0, 0)
    told_at, counted = time.monotonic(), False
    while True:
        with suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_EVERY)
            return True
        if _stopping.is_set():
            raise PutBack(str(job))
        if not selectors.is_wanted(run.pk):
            return False
        now = _progress(progress) or told
        first = now[1] if first is None else first
        if now != told or time.monotonic() - told_at >= REPORT_EVERY:
            jobs.report(job, *now)
            told, told_at = now, time.monotonic()
        if now[1] > first and not counted:
            jobs.count_anew(job)
            counted = True


def _progress(path: Path) -> tuple[str, int, int] | None:
    """Stage, done and total as the child tells them; None where it doesn't yet."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        left = told["seconds_left"]
        stage = f"run {told['run']} of {told['runs']}, epoch {told['epoch']} of {told['epochs']}"
        return f"{stage}{'' if left is None else f', about {minutes(left)} left'}"[:60], told["done"], told["total"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


def minutes(seconds: float) -> str:
    """A span in words, as rough as it is known."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Whatever it is at: it can go on from its last epoch."""
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(ENDS_WITHIN)


def _last_words(said: Path, status: int, folder: Path) -> str:
    """What the child said last, without this machine's folders."""
    if status < 0:
        return f"The training process was killed (signal {-status}): is there enough memory? It can go on."
    lines = [line.strip() for line in said.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    words = lines[-1] if lines else f"The training process ended with status {status} and said nothing."
    for path in (folder / "output", folder / "input", folder, settings.RELEASES_ROOT):
        words = words.replace(f"{path}/", "").replace(str(path), "the run’s folder")
    return words


# What it found

# Of the table on the run's page: name in result.json, words, digits.
COLUMNS = (
    ("cross_entropy", "Cross-entropy to people, nats"),
    ("kl", "KL to people, nats"),
    ("total_variation", "Total variation"),
    ("accuracy", "Accuracy"),
    ("calibration_error", "Calibration error"),
    ("entropy_correlation", "Entropy correlation"),
)


def summary_of(output: Path) -> dict[str, Any]:
    """What the run's page and the list show: ``findings``, ``best``, ``table`` and ``figures`` [name, words].

    Raises:
        ExportError: ``report_missing``.
    """
    try:
        result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ExportError("report_missing", "The training process left no report.") from error
    means = {name: _mean(found, "cross_entropy") for name, found in result["sets"].items()}
    known = {name: mean for name, mean in means.items() if mean is not None}
    best = min(known, key=lambda name: known[name]) if known else ""
    return {
        "findings": result["findings"],
        "best": {"label_set": best, "cross_entropy": known.get(best)},
        "people": result["people"]["entropy"],
        "images": result["images"],
        "seconds": result["seconds"],
        "head": ["Label set", *(words for _, words in COLUMNS)],
        "table": [
            [name, *(_cell(found["metrics"].get(metric)) for metric, _ in COLUMNS)]
            for name, found in result["sets"].items()
        ],
        "figures": [[name, words] for name, words in result["figures"].items() if (output / f"{name}.svg").exists()],
    }


def _mean(found: Mapping[str, Any], metric: str) -> float | None:
    value = found["metrics"].get(metric)
    return None if value is None else float(value["mean"])


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    half = "" if found["low"] is None else f" ± {(found['high'] - found['low']) / 2:.3f}"
    return f"{found['mean']:.3f}{half}".replace("-", "−")
