"""Every label set by every seed: one run after another, each kept as soon as it is done, all to be taken up again.

Runs of one seed start from the same weights and see the same images in the same order, cropped and flipped alike;
what differs is what they are trained on. A run leaves a folder:

    run.json                what was run, its learning curve, attacks, seconds; written last, so it means done
    log_probabilities.npy   (N, K) float32, the network's answer to each held-out image
    weights.pt              the network
    checkpoint.pt           while it runs: after a kill the run goes on from its last epoch

Beside the runs lie progress.json, replaced after each epoch, and a lock that keeps a second process away.

Under torchrun each process takes its share of every batch, and the first one writes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from elicit.archives import CIFAR10_CATEGORIES, CifarArchive
from elicit.folders import Source
from elicit.labels import Refusal
from elicit.labels.cifar10h import write_whole
from training.attacks import attack
from training.config import Config
from training.data import LabelledImages, find_images, hold_out
from training.evaluate import evaluate, predict
from training.label_sets import LabelSet, Sources, digest_of, read_split, targets_of
from training.models import NETWORKS, parameters_of
from training.provenance import code_version, environment
from training.train import Training, repeatable, require_device

RUN, PREDICTIONS, WEIGHTS, CHECKPOINT = "run.json", "log_probabilities.npy", "weights.pt", "checkpoint.pt"

VALIDATION, TRAIN_SPLIT, TRAIN_SPLIT_SEED = 0.1, 0.3, 7
"""Shares of images to stop on; the second is the published protocol's, and so is its seed."""

PROGRESS, LOCK = "progress.json", ".lock"

CURVE_POINTS = 5
"""Epochs after which the held-out images are scored, the last among them: scoring costs a pass over them."""

ON_THE_CURVE = ("cross_entropy", "accuracy", "kl", "total_variation", "entropy_correlation", "calibration_error")
"""The metrics of each epoch."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """What all runs share.

    ``train`` and ``held_out``: images; what people say of the held-out ones are their soft labels, while those of
    ``train`` are scored nowhere. ``stopping``: the images that decide when to stop, or None. ``attacked``: how many
    held-out images are attacked. ``data`` tells which files all of it came from.
    """

    train: LabelledImages
    held_out: LabelledImages
    stopping: LabelledImages | None
    sources: Sources
    config: Config
    attacked: int
    data: dict[str, Any]

    def settings_of(self, label_set: LabelSet, seed: int) -> dict[str, Any]:
        """All that decides over a run's figures, as JSON; ``seed`` counts from 0."""
        return {
            "label_set": label_set.name,
            "config": asdict(replace(self.config, seed=self.config.seed + seed)),
            "rest": self.sources.rest,
            "smoothing": self.sources.smoothing,
            "attacked": self.attacked,
            "data": self.data,
        }


def lay_out(
    archive: CifarArchive | Source,
    protocol: Path | None,
    sources: Sources,
    config: Config,
    *,
    attacked: int,
    data: dict[str, Any],
) -> Experiment:
    """Read the images and part them.

    ``protocol``: the folder of the published split; its images are taken, those that nobody labelled too unless
    ``sources.rest`` is none. Without it: the images that people labelled (in each release, where there are several), of
    which ``config.holdout`` are held out. What people say of held-out images are the votes where there are any, else
    all answers on them; of several releases, the mean. An image without a class in the archive gets the one that the
    first release finds likeliest, and ``data`` then tells how many.
    Raises Refusal: ``answers_missing``, ``categories_differ``, ``images_missing``, ``reference_missing``,
    ``split_missing``, ``split_unreadable``, ``too_few_images``, ``votes_missing``.
    """
    said = sources.said
    categories = CIFAR10_CATEGORIES if said is None else said.categories
    sha256 = {} if said is None else said.sha256
    if protocol is not None:
        to_train, to_hold_out = read_split(protocol)
        if sources.votes is None:
            raise Refusal("reference_missing", "The published split is scored against CIFAR-10H: add --reference.")
        if sources.rest == "none":
            to_train = to_train[np.isin(to_train, _labelled(sources))]
        if said is not None and not np.isin(said.images, to_train).any():
            raise Refusal("images_missing", "People labelled none of the images that the split trains on.")
        wanted = np.concatenate([to_train, to_hold_out])
    else:
        wanted = _labelled(sources)
    found = find_images(archive, wanted, sha256, categories, config.split, config.side)
    hard, nameless = found.classes.copy(), np.flatnonzero(found.classes < 0)
    if len(nameless):
        hard[nameless] = _likeliest(wanted[nameless], sources)
        data = {**data, "images_without_class": len(nameless)}

    def images_of(rows: NDArray[np.int64], *, scored: bool) -> LabelledImages:
        people_say = _people_say(wanted[rows], sources) if scored else np.eye(len(categories))[hard[rows]]
        return _images(found.pixels[rows], wanted[rows], people_say, hard[rows], categories)

    rows = np.arange(len(wanted))
    if protocol is not None:
        train = images_of(rows[: len(to_train)], scored=False)
        held_out = images_of(rows[len(to_train) :], scored=True)
    else:
        train, held_out = hold_out(images_of(rows, scored=True), config.holdout, config.seed)

    stopping = None
    if config.stop_on == "validation":
        train, stopping = hold_out(train, VALIDATION, config.seed)
    elif config.stop_on == "train-split":
        stopping = _of_the_other_split(archive, categories, config)
    return Experiment(train, held_out, stopping, sources, config, attacked, data)


def _labelled(sources: Sources) -> NDArray[np.int64]:
    if sources.relabelled is None:
        raise Refusal("answers_missing", "Which images? Name --release or --answers, or the split by --protocol.")
    return sources.relabelled


def _likeliest(images: NDArray[np.int64], sources: Sources) -> NDArray[np.int64]:
    """(n,) the classes that the first release finds likeliest. Raises Refusal ``images_missing``."""
    said = sources.said
    if said is None or said.released is None or not np.isin(images, said.released[0]).all():
        raise Refusal("images_missing", f"{len(images)} images have no class, neither in the archive nor in a release.")
    return np.asarray(said.released[1].argmax(axis=1)[np.searchsorted(said.released[0], images)])


def _of_the_other_split(archive: CifarArchive | Source, categories: tuple[str, ...], config: Config) -> LabelledImages:
    if isinstance(archive, Source):
        raise Refusal("split_missing", f"{archive.origin} has one split: stop on validation, or on nothing.")
    more, classes, numbers = archive.load("train" if config.split == "test" else "test")
    order = np.random.default_rng(TRAIN_SPLIT_SEED).permutation(len(classes))
    some = np.sort(order[: max(1, round(TRAIN_SPLIT * len(order)))])
    return _images(more[some], numbers[some], np.eye(len(categories))[classes[some]], classes[some], categories)


def _images(
    pixels: NDArray[np.uint8],
    indices: NDArray[np.int64],
    soft: NDArray[np.float64],
    hard: NDArray[np.int64],
    categories: tuple[str, ...],
) -> LabelledImages:
    return LabelledImages(pixels, indices, soft, hard, categories, differs=np.zeros(len(indices), dtype=np.bool_))


def _people_say(images: NDArray[np.int64], sources: Sources) -> NDArray[np.float64]:
    """(N, K): what people say of the images, as far as we can tell."""
    if sources.votes is not None:
        return sources.votes.of(images)
    said = sources.said
    if said is None:
        raise Refusal("answers_missing", "Nobody says anything of the held-out images: add --reference.")
    sets = [LabelSet("recommended" if said.released is None else "released")]
    sets += [LabelSet("released", of=name) for name in sources.others]
    anything = np.zeros(len(images), dtype=np.int64)
    tables = [targets_of(each, images, anything, sources, 0, len(said.categories)).labels for each in sets]
    return np.asarray(np.mean(tables, axis=0))


# Processes


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Join the other processes, if torchrun started this one: NCCL where the device is a GPU, else gloo.

    The device ``cuda`` then means a GPU of its own for each process, by torchrun's LOCAL_RANK.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def writes() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Return when every process is here."""
    if dist.is_initialized():
        dist.barrier()


# Runs


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run as its folder tells it; ``log_probabilities`` (N, K) of the held-out images."""

    label_set: LabelSet
    seed: int
    told: dict[str, Any]
    log_probabilities: NDArray[np.float64]


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Keep other processes from writing into ``output``, which is made where it is missing.

    Raises Refusal ``output_in_use``. The lock goes with the process that holds it, however it ends.
    """
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / LOCK, timeout=0):
            yield
    except Timeout:
        raise Refusal("output_in_use", f"Another process is training into {output}: wait for it, or stop it.") from None


class Progress:
    """How far the runs are, in ``progress.json``: epochs ``done`` of ``total``, ``run`` of ``runs``, its
    ``label_set``, ``seed`` and ``epoch`` of ``epochs``, and ``seconds_left``, null until an epoch is done here."""

    def __init__(self, output: Path, plan: Sequence[tuple[LabelSet, int]], epochs: int) -> None:
        self._path, self._plan, self._epochs = output / PROGRESS, plan, epochs
        self._began, self._here, self._before, self._number = time.perf_counter(), 0, 0, 0

    def begin(self, number: int) -> None:
        """Run ``number``, from 1, is looked at."""
        self._number = number

    def passed(self) -> None:
        """The run was done before."""
        self._before += self._epochs

    def taken_up(self, epoch: int) -> None:
        """The run goes on after this many epochs."""
        self._before += epoch
        self._tell(epoch)

    def epoch(self, number: int, *, last: bool) -> None:
        """Epoch ``number`` of the run, from 1, is done; ``last``: and no other follows."""
        self._here += 1
        self._tell(number)
        if last:  # one that stopped early has no more to do
            self._before += self._epochs - number

    def _tell(self, epoch: int) -> None:
        if not writes():
            return
        label_set, seed = self._plan[self._number - 1]
        done, total = self._before + self._here, self._epochs * len(self._plan)
        left = (time.perf_counter() - self._began) / self._here * (total - done) if self._here else None
        told = {
            "done": done,
            "total": total,
            "run": self._number,
            "runs": len(self._plan),
            "label_set": label_set.name,
            "seed": seed,
            "epoch": epoch,
            "epochs": self._epochs,
            "seconds_left": left,
        }
        write_whole(self._path, lambda part: _write_json(part, told))


def run_all(
    experiment: Experiment, label_sets: Sequence[LabelSet], seeds: int, output: Path, say: Callable[[str], None]
) -> list[FinishedRun]:
    """Do what is not done yet, seed by seed, so that what there is can be compared; ``say`` gets lines of progress.

    Raises Refusal ``device_missing``, ``training_diverged``, ``output_differs`` (a run in ``output`` has other
    settings) and what targets_of raises.
    """
    require_device(experiment.config.device)
    plan = [(label_set, seed) for seed in range(seeds) for label_set in label_sets]
    progress = Progress(output, plan, experiment.config.epochs)
    finished, spent, done_here = [], 0.0, 0
    for number, (label_set, seed) in enumerate(plan, start=1):
        folder = _folder(output, label_set, seed)
        progress.begin(number)
        found = read_run(folder, experiment, label_set, seed)
        if found is not None:
            progress.passed()
        else:
            began = time.perf_counter()
            run_one(experiment, label_set, seed, folder, progress)
            wait_for_all()
            found = read_run(folder, experiment, label_set, seed)
            if found is None:
                raise FileNotFoundError(folder / RUN)
            spent, done_here = spent + time.perf_counter() - began, done_here + 1
            left = spent / done_here * sum(not (_folder(output, *each) / RUN).exists() for each in plan[number:])
            last = found.told["held_out"]
            say(
                f"{number}/{len(plan)}  {label_set.name}, seed {seed}: cross-entropy {last['cross_entropy']:.4f}, "
                f"accuracy {last['accuracy']:.3f}  {found.told['seconds']:.0f} s; about {_minutes(left)} left"
            )
        finished.append(found)
    return finished


def _folder(output: Path, label_set: LabelSet, seed: int) -> Path:
    return output / "runs" / f"{label_set.name.replace(':', '_')}-seed{seed}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def read_run(folder: Path, experiment: Experiment, label_set: LabelSet, seed: int) -> FinishedRun | None:
    """The run if it is done, else None. Raises Refusal ``output_differs`` where it is a run of other settings."""
    try:
        told = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if told["settings_digest"] != digest_of(experiment.settings_of(label_set, seed)):
        raise Refusal("output_differs", f"{folder} holds a run of other data or settings: choose another --output.")
    kept = np.load(folder / PREDICTIONS).astype(np.float64)
    # Kept in single precision: the last digits have to sum to 1 again.
    return FinishedRun(label_set, seed, told, kept - np.log(np.exp(kept).sum(axis=1, keepdims=True)))


def run_one(
    experiment: Experiment, label_set: LabelSet, seed: int, folder: Path, progress: Progress | None = None
) -> None:
    """Train and evaluate once, from the checkpoint if there is one, and write the folder."""
    settings = experiment.settings_of(label_set, seed)
    config = replace(experiment.config, seed=experiment.config.seed + seed)
    train, held_out = experiment.train, experiment.held_out
    categories = len(held_out.categories)
    digest = digest_of(settings)
    targets = targets_of(label_set, train.indices, train.hard_labels, experiment.sources, config.seed, categories)
    if writes():
        folder.mkdir(parents=True, exist_ok=True)

    with repeatable(config):
        training = Training(NETWORKS[config.network](categories), train.pixels, targets, config)
        log = _take_up(training, folder / CHECKPOINT, digest)
        if progress is not None:
            progress.taken_up(training.done)
        scored = set(np.linspace(1, config.epochs, min(CURVE_POINTS, config.epochs)).round().astype(int).tolist())
        while training.done < config.epochs and not _stops(log, config):
            began_epoch = time.perf_counter()
            epoch = training.epoch()
            point: dict[str, Any] = {
                "epoch": epoch.number,
                "learning_rate": epoch.learning_rate,
                "train_loss_in_sample": epoch.train_loss,
                "seconds": time.perf_counter() - began_epoch,
                **_stopping_score(training, experiment),
            }
            if epoch.number in scored:
                found = evaluate(predict(training.model, held_out.pixels, config.device), held_out)
                point["held_out"] = {name: found.metrics[name] for name in ON_THE_CURVE}
            log["curve"].append(point)
            if experiment.stopping is not None and _best(log) == len(log["curve"]):
                log["best"] = {name: value.detach().clone() for name, value in training.model.state_dict().items()}
            log["seconds"] += time.perf_counter() - began_epoch
            if writes():
                state = {**training.state(), "log": log, "digest": digest}
                write_whole(folder / CHECKPOINT, lambda part, state=state: torch.save(state, part))  # type: ignore[misc]
            if progress is not None:
                progress.epoch(training.done, last=training.done == config.epochs or _stops(log, config))
        if "best" in log:
            training.model.load_state_dict(log.pop("best"))
        predictions = predict(training.model, held_out.pixels, config.device)
        final = evaluate(predictions, held_out).metrics
        attacks = attack(training.model, held_out, config.device, most=experiment.attacked, seed=config.seed)

    if not writes():
        return
    write_whole(folder / PREDICTIONS, lambda part: _save(part, predictions))
    write_whole(folder / WEIGHTS, lambda part: torch.save(training.model.state_dict(), part))
    told = {
        "settings": settings,
        "settings_digest": digest,
        "seed": seed,
        "curve": log["curve"],
        "best_epoch": _best(log) if experiment.stopping is not None else None,
        "held_out": {name: final[name] for name in ON_THE_CURVE},
        "attacks": {name: asdict(found) for name, found in attacks.items()},
        "parameters": parameters_of(training.model),
        "precision": training.precision,
        "processes": training.processes,
        "training_labels": _told_of(targets.labels, train, held_out),
        "seconds": log["seconds"],
        "code": code_version(),
        "environment": environment(config.device, config.threads),
    }
    # Last: a folder with it is a run that is done.
    write_whole(folder / RUN, lambda part: _write_json(part, told))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _save(path: Path, predictions: NDArray[np.float64]) -> None:
    with path.open("wb") as out:
        np.save(out, predictions.astype(np.float32), allow_pickle=False)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _take_up(training: Training, checkpoint: Path, digest: str) -> dict[str, Any]:
    """Go on from the checkpoint, if there is one of the same settings; the log so far."""
    try:
        state = torch.load(checkpoint, map_location=training.device, weights_only=True)
    except FileNotFoundError:
        state = None
    if state is None or state["digest"] != digest:
        return {"curve": [], "seconds": 0.0}
    training.take_up(state)
    log: dict[str, Any] = state["log"]
    return log


def _stopping_score(training: Training, experiment: Experiment) -> dict[str, float]:
    if experiment.stopping is None:
        return {}
    images = experiment.stopping
    predicted = predict(training.model, images.pixels, training.config.device).argmax(axis=1)
    return {"stopping_accuracy": float((predicted == images.hard_labels).mean())}


def _best(log: dict[str, Any]) -> int:
    """The number of the epoch that was best on the images to stop on; the first of equals."""
    scores = [point["stopping_accuracy"] for point in log["curve"]]
    return scores.index(max(scores)) + 1


def _stops(log: dict[str, Any], config: Config) -> bool:
    if config.stop_on == "nothing" or not log["curve"]:
        return False
    return len(log["curve"]) - _best(log) >= config.patience


def _told_of(labels: NDArray[np.float64], train: LabelledImages, held_out: LabelledImages) -> dict[str, Any]:
    """Of the training labels: how soft they are, and how often their top class is the archive's."""
    entropies = -(labels * np.log(np.where(labels > 0, labels, 1))).sum(axis=1)
    return {
        "images": len(train),
        "held_out": len(held_out),
        "mean_label": labels.mean(axis=0).tolist(),
        "mean_entropy": float(entropies.mean()),
        "top_is_archive_class": int((labels.argmax(axis=1) == train.hard_labels).sum()),
    }
