from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elicit.archives import open_cifar10
from elicit.labels import Refusal, read_release
from elicit.labels.cifar10h import write_whole
from tests import services
from tests.training.conftest import SIZE, labelled_images, release_of
from training import experiment as experiments
from training.config import Config
from training.experiment import CHECKPOINT, PROGRESS, RUN, Experiment, alone_in, lay_out, processes, run_all, run_one
from training.label_sets import LabelSet, Said, Sources, Votes, label_sets_of, said_in_release

QUICK = Config(epochs=3, batch_size=8, threads=1)
HARD = LabelSet("hard")


def votes() -> Votes:
    images = labelled_images(SIZE)
    counts = np.round(images.soft_labels * 10).astype(np.int64)
    return Votes(counts / counts.sum(axis=1, keepdims=True), counts, "votes", "digest")


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A split of the archive's 24 images: 16 to train on and 8 held out."""
    folder = tmp_path / "split"
    folder.mkdir()
    np.save(folder / "train_indices.npy", np.arange(16))
    np.save(folder / "test_indices.npy", np.arange(16, SIZE))
    return folder


def laid_out(
    archive: Path, release: Path | None, split: Path | None, config: Config = QUICK, **sources: Any
) -> Experiment:
    said = None if release is None else said_in_release(read_release(release))
    given = {"votes": votes(), **sources}
    return lay_out(open_cifar10(archive), split, Sources(said, **given), config, attacked=4, data={"made": "here"})


def quiet(line: str) -> None:
    """Nobody reads the progress."""


def figures(told: dict[str, Any]) -> dict[str, Any]:
    """A run's record without its clock."""
    curve = [{k: v for k, v in point.items() if k != "seconds"} for point in told["curve"]]
    return {**{k: v for k, v in told.items() if k != "seconds"}, "curve": curve}


def test_the_published_split_parts_the_images_and_the_votes_score_them(
    archive: Path, release: Path, split: Path
) -> None:
    found = laid_out(archive, release, split)
    assert found.train.indices.tolist() == list(range(16))
    assert found.held_out.indices.tolist() == list(range(16, SIZE))
    np.testing.assert_allclose(found.held_out.soft_labels, votes().of(found.held_out.indices))
    np.testing.assert_array_equal(found.train.pixels, labelled_images(SIZE).pixels[:16])


def test_without_a_split_the_release_s_images_are_parted_and_score_themselves(archive: Path, release: Path) -> None:
    found = laid_out(archive, release, None, votes=None)
    assert len(found.held_out) == 7
    assert not set(found.train.indices) & set(found.held_out.indices)
    read = read_release(release)
    np.testing.assert_array_equal(found.held_out.soft_labels, read.soft_labels[found.held_out.indices])


def test_images_that_nobody_labelled_can_be_left_out(archive: Path, release: Path, split: Path) -> None:
    np.save(split / "train_indices.npy", np.array([3, 5, 1]))
    assert laid_out(archive, release, split, rest="none").train.indices.tolist() == [3, 5, 1]
    mine = said_in_release(read_release(release))
    kept = mine.images == 5
    few = replace(
        mine,
        images=mine.images[kept],
        people=mine.people[kept],
        seconds=mine.seconds[kept],
        answers=type(mine.answers)(
            mine.answers.percentages[kept], mine.answers.ranks[kept], mine.answers.impossible[kept]
        ),
    )
    sources = Sources(few, votes(), rest="none")
    found = lay_out(open_cifar10(archive), split, sources, QUICK, attacked=4, data={})
    assert found.train.indices.tolist() == [5]


@pytest.mark.parametrize(
    ("with_release", "with_split", "sources", "code"),
    [
        (False, False, {}, "answers_missing"),
        (True, True, {"votes": None}, "reference_missing"),
        (False, True, {"rest": "none"}, "answers_missing"),
    ],
)
def test_what_an_experiment_lacks_is_named(
    archive: Path,
    release: Path,
    split: Path,
    with_release: bool,
    with_split: bool,
    sources: dict[str, Any],
    code: str,
) -> None:
    with pytest.raises(Refusal) as caught:
        laid_out(archive, release if with_release else None, split if with_split else None, **sources)
    assert caught.value.code == code


def test_a_split_of_other_images_is_refused_by_number(archive: Path, release: Path, split: Path) -> None:
    np.save(split / "test_indices.npy", np.array([20, 777]))
    with pytest.raises(Refusal, match=r"1 of 18 images .* 777"):
        laid_out(archive, release, split)


def test_images_to_stop_on_are_neither_trained_on_nor_held_out(archive: Path, release: Path, split: Path) -> None:
    found = laid_out(archive, release, split, replace(QUICK, stop_on="validation"))
    assert found.stopping is not None
    parts = [set(part.indices.tolist()) for part in (found.train, found.stopping, found.held_out)]
    assert sum(map(len, parts)) == SIZE == len(set.union(*parts))


def test_the_protocol_stops_on_a_third_of_the_other_split(
    archive: Path, release: Path, split: Path, tmp_path: Path
) -> None:
    binary = tmp_path / "both"
    binary.mkdir()
    images = labelled_images(SIZE)
    records = b"".join(
        bytes([label]) + pixels.transpose(2, 0, 1).tobytes()
        for label, pixels in zip(images.hard_labels, images.pixels, strict=True)
    )
    (binary / "test_batch.bin").write_bytes(records)
    for number in range(1, 6):
        (binary / f"data_batch_{number}.bin").write_bytes(records[: 4 * 3073])
    found = laid_out(binary, release, split, replace(QUICK, stop_on="train-split"))
    assert found.stopping is not None
    assert len(found.stopping) == 6
    assert len(found.train) == 16


def test_every_set_runs_with_every_seed_and_is_not_run_again(
    archive: Path, release: Path, split: Path, tmp_path: Path
) -> None:
    experiment, lines = laid_out(archive, release, split), list[str]()
    sets = label_sets_of("hard,t2-clamp:each", "1")
    first = run_all(experiment, sets, 2, tmp_path / "out", lines.append)
    assert [(run.label_set.name, run.seed) for run in first] == [
        ("hard", 0),
        ("t2-clamp@1:each", 0),
        ("hard", 1),
        ("t2-clamp@1:each", 1),
    ]
    assert len(lines) == 4
    assert "1/4  hard, seed 0" in lines[0]
    assert "left" in lines[0]
    lines.clear()
    again = run_all(experiment, (*sets, LabelSet("smooth")), 2, tmp_path / "out", lines.append)
    assert ["smooth" in line for line in lines] == [True, True]
    assert [run.told for run in again if run.label_set.what != "smooth"] == [run.told for run in first]
    for run in again:
        np.testing.assert_allclose(np.exp(run.log_probabilities).sum(axis=1), 1)
        assert run.told["attacks"]["pgd"]["images"] == 4


def test_a_folder_of_other_settings_is_not_mixed_in(archive: Path, release: Path, split: Path, tmp_path: Path) -> None:
    run_all(laid_out(archive, release, split), [HARD], 1, tmp_path, quiet)
    with pytest.raises(Refusal) as caught:
        run_all(laid_out(archive, release, split, replace(QUICK, lr=0.01)), [HARD], 1, tmp_path, quiet)
    assert caught.value.code == "output_differs"


def test_runs_of_a_seed_differ_in_their_labels_alone(archive: Path, release: Path, split: Path, tmp_path: Path) -> None:
    # Where people all say the archive's class, label sets are one and the same.
    counts = np.eye(10, dtype=np.int64)[labelled_images(SIZE).hard_labels] * 9
    sure = Votes(counts / 9, counts, "votes", "digest")
    found = run_all(laid_out(archive, release, split, votes=sure), [HARD, LabelSet("h")], 1, tmp_path, quiet)
    np.testing.assert_array_equal(found[0].log_probabilities, found[1].log_probabilities)


def test_it_stops_when_the_named_images_are_predicted_no_better_and_keeps_the_best(
    archive: Path, release: Path, split: Path, tmp_path: Path
) -> None:
    config = replace(QUICK, epochs=30, patience=2, stop_on="validation", lr=0.1)
    (run,) = run_all(laid_out(archive, release, split, config), [HARD], 1, tmp_path, quiet)
    scores = [point["stopping_accuracy"] for point in run.told["curve"]]
    best = run.told["best_epoch"]
    assert scores[best - 1] == max(scores)
    assert len(scores) == 30 or len(scores) == best + 2
    assert len(scores) < 30


class _Killed(BaseException):
    """As if the process had ended here."""


def test_a_run_that_was_killed_at_any_epoch_ends_as_if_it_had_not_been(
    archive: Path, release: Path, split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(QUICK, epochs=5)
    experiment = laid_out(archive, release, split, config)
    drawn = LabelSet.from_name("t2-clamp:each")
    run_one(experiment, drawn, 0, tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / RUN).read_text(encoding="utf-8"))
    step = torch.optim.SGD.step
    for kill_at in np.random.default_rng(3).choice(np.arange(1, 10), 3, replace=False).tolist():
        folder, steps = tmp_path / f"killed-{kill_at}", 0

        def dying(self: torch.optim.SGD, *given: Any, at: int = kill_at) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                raise _Killed
            return step(self, *given)

        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.SGD, "step", dying)
            with pytest.raises(_Killed):
                run_one(experiment, drawn, 0, folder)
        assert not (folder / RUN).exists()
        assert (folder / CHECKPOINT).exists() == (kill_at > 2)  # two steps make an epoch
        run_one(experiment, drawn, 0, folder)
        assert figures(json.loads((folder / RUN).read_text(encoding="utf-8"))) == figures(whole)
        assert not (folder / CHECKPOINT).exists()
        ours, theirs = (torch.load(tmp_path / f / "weights.pt", weights_only=True) for f in (folder.name, "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def command(archive: Path, release: Path, output: Path, *more: str) -> list[str]:
    return [
        *("compare", "--release", str(release), "--images", str(archive), "--output", str(output), "--threads", "1"),
        *("--labels", "hard,t2-clamp", "--seeds", "1", "--batch-size", "8", "--attacked", "2", *more),
    ]


def test_a_killed_process_goes_on_and_ends_with_the_same_figures(archive: Path, release: Path, tmp_path: Path) -> None:
    def start(output: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "training", *command(archive, release, output, "--epochs", "40")]
        return subprocess.Popen(argv, cwd=services.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    killed = start(tmp_path / "killed")
    checkpoint = tmp_path / "killed" / "runs" / "hard-seed0" / CHECKPOINT
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert checkpoint.exists(), "it was over before it could be killed"
    results = []
    for folder in ("killed", "whole"):
        with start(tmp_path / folder) as going:
            assert going.wait(90) == 0
        results.append(json.loads((tmp_path / folder / "result.json").read_text(encoding="utf-8")))
    for result in results:
        assert result.pop("seconds") > 0
        result.pop("command")
        for found in result["sets"].values():
            assert found.pop("seconds") > 0
            for curve in found["learning_curve"]:
                for point in curve:
                    point.pop("seconds")
    assert results[0] == results[1]


def test_two_processes_share_each_batch_and_agree(archive: Path, release: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "training", *command(archive, release, tmp_path / "two", "--epochs", "2")]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            argv,
            cwd=services.ROOT,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert said[1][0] == b""  # the first process does the talking
    result = json.loads((tmp_path / "two" / "result.json").read_text(encoding="utf-8"))
    assert result["processes"] == [2]


@pytest.mark.parametrize(("device", "chosen"), [("cuda", [1]), ("cuda:0", []), ("cpu", [])])
def test_each_process_of_torchrun_takes_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, device: str, chosen: list[int]
) -> None:
    backends: list[str] = []
    taken: list[int] = []
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", backends.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with processes(device):
        assert taken == chosen
    assert backends == ["gloo" if device == "cpu" else "nccl"]


# Several releases, progress, and one process at a time


def other_release(tmp_path: Path) -> Said:
    """Of images 8 to 23, with other labels: people say what is two classes further."""
    images = labelled_images(SIZE)
    moved = replace(images, hard_labels=(images.hard_labels + 2) % 10).select(np.arange(8, SIZE))
    return said_in_release(read_release(release_of(tmp_path / "other", moved)))


def test_several_releases_are_compared_on_the_images_that_all_of_them_label(
    archive: Path, release: Path, tmp_path: Path
) -> None:
    other = other_release(tmp_path)
    found = laid_out(archive, release, None, votes=None, others={"birds-v2": other})
    images = np.sort(np.concatenate([found.train.indices, found.held_out.indices]))
    assert images.tolist() == list(range(8, SIZE))
    first = read_release(release).soft_labels[found.held_out.indices]
    assert other.released is not None
    second = other.released[1][found.held_out.indices - 8]
    # Neither of them judges alone.
    np.testing.assert_allclose(found.held_out.soft_labels, (first + second) / 2)


def test_the_progress_counts_epochs_of_all_runs_and_goes_on_after_a_second_start(
    archive: Path, release: Path, split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, sets = laid_out(archive, release, split), label_sets_of("hard,released", "all")
    seen: list[dict[str, Any]] = []
    write = write_whole

    def watched(path: Path, fill: Any) -> None:
        write(path, fill)
        if path.name == PROGRESS:
            seen.append(json.loads(path.read_text()))

    monkeypatch.setattr(experiments, "write_whole", watched)
    run_all(experiment, sets[:1], 1, tmp_path / "out", quiet)
    run_all(experiment, sets, 1, tmp_path / "out", quiet)
    epochs = QUICK.epochs
    assert [(told["done"], told["total"]) for told in seen[: epochs + 1]] == [(n, epochs) for n in range(epochs + 1)]
    later = seen[epochs + 1 :]
    assert [told["done"] for told in later] == list(range(epochs, 2 * epochs + 1))
    assert {(told["total"], told["run"], told["runs"], told["label_set"]) for told in later} == {
        (2 * epochs, 2, 2, "released")
    }
    assert later[0]["seconds_left"] is None
    assert later[-1]["seconds_left"] == 0


def test_a_second_process_is_kept_out_of_the_folder_and_let_in_when_the_first_is_gone(tmp_path: Path) -> None:
    with alone_in(tmp_path / "out"):
        with pytest.raises(Refusal, match="Another process") as caught, alone_in(tmp_path / "out"):
            pass
        assert caught.value.code == "output_in_use"
    with alone_in(tmp_path / "out"):
        pass
