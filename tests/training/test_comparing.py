from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.archives import open_cifar10
from elicit.labels import read_release
from tests.training.conftest import labelled_images
from tests.training.test_experiment import quiet, votes
from training.comparing import (
    METRICS,
    Cost,
    Results,
    differences_of,
    findings_of,
    result_of,
    results_of,
    table_of,
    write_report,
)
from training.config import Config
from training.data import LabelledImages
from training.evaluate import evaluate
from training.experiment import Experiment, FinishedRun, lay_out, run_all
from training.label_sets import LabelSet, Sources, label_sets_of, said_in_release

QUICK = Config(epochs=2, batch_size=8, threads=1)
COST = Cost(9.0, "EUR", 2.0)


def experiment_of(archive: Path, release: Path) -> Experiment:
    said = said_in_release(read_release(release))
    timed = replace(said, seconds=np.full(len(said.images), 30.0))
    return lay_out(open_cifar10(archive), None, Sources(timed, votes()), QUICK, attacked=2, data={"answers": "made"})


@pytest.fixture
def compared(archive: Path, release: Path, tmp_path: Path) -> tuple[tuple[Results, ...], dict[str, Any]]:
    experiment = experiment_of(archive, release)
    sets = label_sets_of("hard,smooth,t2-clamp,h@3,t2-clamp@2:fixed", "1,2")
    results = results_of(experiment, run_all(experiment, sets, 2, tmp_path / "runs", quiet))
    return results, result_of(experiment, results, COST, "python -m training compare")


def test_the_result_tells_every_set_with_its_seeds_and_its_cost(
    compared: tuple[tuple[Results, ...], dict[str, Any]],
) -> None:
    _, result = compared
    assert list(result["sets"]) == ["hard", "smooth", "t2-clamp@1", "t2-clamp@2", "h@3", "t2-clamp@2:fixed"]
    train = result["images"]["train"]
    found = result["sets"]["t2-clamp@2"]
    assert found["seeds"] == [0, 1]
    assert (found["annotators_per_image"], found["seconds_per_image"]) == (2, 60)
    assert found["pay"] == pytest.approx(60 * train / 3600 * 9)
    assert result["sets"]["h@3"]["seconds_per_image"] == 6
    assert result["sets"]["hard"]["pay"] == 0
    for each in result["sets"].values():
        accuracy = each["metrics"]["accuracy"]
        assert accuracy["mean"] == pytest.approx(np.mean(accuracy["values"]))
        assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"]
        assert set(each["metrics"]) == {metric.name for metric in METRICS}
    assert result["data"] == {"answers": "made"}
    assert len(result["code"][0]["training_sha256"]) == 64
    assert result["environment"][0]["torch"].startswith("2.")


def test_pairs_are_set_against_hard_against_smoothing_and_against_the_fixed_top_class(
    compared: tuple[tuple[Results, ...], dict[str, Any]],
) -> None:
    results, result = compared
    pairs = [(each["ours"], each["theirs"]) for each in result["differences"]]
    asked = ["t2-clamp@1", "t2-clamp@2", "h@3", "t2-clamp@2:fixed"]
    assert pairs == [
        ("smooth", "hard"),
        *((name, "hard") for name in asked),
        *((name, "smooth") for name in asked),
        ("t2-clamp@2", "t2-clamp@2:fixed"),
    ]
    values = {found.label_set.name: found.values("cross_entropy") for found in results}
    first = result["differences"][1]["metrics"]["cross_entropy"]
    ours, theirs = values["t2-clamp@1"], values["hard"]
    assert ours is not None
    assert theirs is not None
    assert first["mean"] == pytest.approx(np.mean(np.subtract(ours, theirs)))
    assert first["p_holm"] >= first["p"]
    assert first["image_low"] <= first["mean"] <= first["image_high"]


def test_people_who_agree_with_the_archive_make_a_fixed_top_class_no_different(
    compared: tuple[tuple[Results, ...], dict[str, Any]],
) -> None:
    last = compared[1]["differences"][-1]["metrics"]
    assert {found["mean"] for found in last.values()} == {0}


def made(gaps: Sequence[float], images: LabelledImages) -> tuple[Results, ...]:
    """Runs of hard and of smooth, the second better by ``gaps`` per seed."""
    grouped = []
    for name in ("hard", "smooth"):
        runs = []
        for seed, gap in enumerate(gaps):
            random = np.random.default_rng(seed)
            noise = random.dirichlet(np.ones(10), size=len(images))
            share = 0.5 + (gap if name == "smooth" else 0)
            log_probabilities = np.log((1 - share) * noise + share * images.soft_labels + 1e-12)
            log_probabilities -= np.log(np.exp(log_probabilities).sum(axis=1, keepdims=True))
            told = {
                "attacks": {
                    "fgsm": {"cross_entropy": 1.0, "accuracy": 0.1},
                    "pgd": {"cross_entropy": 1.0, "accuracy": 0.1},
                }
            }
            runs.append(FinishedRun(LabelSet(name), seed, told, log_probabilities))
        grouped.append(
            Results(LabelSet(name), tuple(runs), tuple(evaluate(run.log_probabilities, images) for run in runs))
        )
    return tuple(grouped)


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([0.1, 0.1, 0.11, 0.1, 0.09], ": lower."),
        ([-0.1, -0.1, -0.11, -0.1, -0.09], ": higher."),
        ([0.3, -0.01, 0.0, 0.01, 0.0], ": not settled: other seeds could turn it."),
        ([0.0, 0.0, 0.0, 0.0, 0.0], ": no difference found."),
        ([0.1], " (one seed: no interval over seeds)."),
    ],
)
def test_a_difference_is_called_one_only_where_seeds_and_images_agree(gaps: list[float], verdict: str) -> None:
    found = differences_of(made(gaps, labelled_images(60)), seed=0, draws=300)
    (sentence,) = findings_of({"differences": found})
    assert sentence.startswith("smooth − hard: ")
    assert sentence.endswith(verdict)


def test_the_report_is_whole_and_needs_no_other_file(
    compared: tuple[tuple[Results, ...], dict[str, Any]], tmp_path: Path
) -> None:
    results, result = compared
    paths = write_report(tmp_path, results, result)
    names = {path.name for path in paths}
    figures = {"learning-curves", "reliability", "annotators", "cost"}
    assert names == {"result.json", "report.md", "report.html"} | {f"{f}.{k}" for f in figures for k in ("png", "svg")}
    assert all(path.stat().st_size < 150_000 for path in paths if path.suffix == ".png")
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (told.pop("findings"), set(told.pop("figures"))) == (findings_of(result), figures)
    assert told == json.loads(json.dumps(result))
    markdown, page = ((tmp_path / f"report.{kind}").read_text(encoding="utf-8") for kind in ("md", "html"))
    for name in result["sets"]:
        assert f"| {name} |" in markdown
        assert f'<th scope="row">{name}</th>' in page
    assert re.findall(r"\]\(([a-z-]+\.png)\)", markdown) == [f"{f}.png" for f in figures_in_order(page)]
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert all(len(findings) > 20 for findings in findings_of(result))
    assert table_of(result).splitlines()[1].startswith("hard ")


def figures_in_order(page: str) -> list[str]:
    drawings = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    titles = [re.search(r"<dc:title>([^<]+)", base64.b64decode(drawing).decode()) for drawing in drawings]
    known = {
        "by epoch": "learning-curves",
        "by confidence": "reliability",
        "number of": "annotators",
        "seconds": "cost",
    }
    return [name for title in titles if title for word, name in known.items() if word in title[1]]


def test_without_clocks_and_pay_the_cost_is_unknown_and_not_nought(
    archive: Path, release: Path, tmp_path: Path
) -> None:
    said = said_in_release(read_release(release))
    experiment = lay_out(open_cifar10(archive), None, Sources(said, votes()), QUICK, attacked=2, data={})
    results = results_of(experiment, run_all(experiment, label_sets_of("h,t2-clamp", "1,2"), 1, tmp_path, quiet))
    result = result_of(experiment, results, Cost(None, "USD", None), "")
    assert {found["seconds_per_image"] for found in result["sets"].values()} == {None}
    assert "unknown" in Path(write_report(tmp_path, results, result)[1]).read_text(encoding="utf-8")
    assert not (tmp_path / "cost.png").exists()
