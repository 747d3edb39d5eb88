"""``python -m elicit.labels`` as its users run it: a process of its own."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.labels import RECOMMENDED, Answers, ConfusionPool, cifar10s
from elicit.labels.cifar10s import Answer
from tests.labels import releases
from tests.labels.test_cifar10s import form, raw_file, row

SOURCE = Path(__file__).parents[2]
BLOCKED = "import sys, runpy; sys.modules['django'] = sys.modules['pyarrow'] = None; sys.argv[0] = 'labels'; "


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command without Django or anything else but numpy; ``code`` is the exit status it must have."""
    script = BLOCKED + "runpy.run_module('elicit.labels', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


def refused(*words: object) -> str:
    """The one line with which the command refuses."""
    done = run(*words, code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert done.stdout == ""
    return line


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_file(
        tmp_path,
        row(form("Cat", "8p"), img_id="3"),
        row(form("Dog", "60", "Cat", "30"), img_id="3", subject="another"),
        row(form("Cat", "60", "Cat", "40"), img_id="5"),
        row(form("Cat", "90"), img_id="3", task="rerun_spec_conf"),
    )


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "given.json"
    cifar10s.write_answers(
        path,
        {
            3: [Answer(3, 70, 5, 20, (8, 9)), Answer(5, 100, None, None, tuple(set(range(10)) - {5}))],
            5: [Answer(3, 100, None, None, ()), Answer(3, 50, 5, 50, ())],
        },
    )
    return path


def test_the_published_way_from_the_raw_file_to_a_comparison(raw: Path, tmp_path: Path) -> None:
    parsed, repairs = tmp_path / "answers.json", tmp_path / "repairs.csv"
    said = run("parse", raw, "--output", parsed, "--repairs", repairs)
    assert said.stderr == "4 answers on 2 images, 1 repairs, 0 answers entered twice\n"
    with repairs.open(encoding="utf-8", newline="") as text:
        (repair,) = csv.DictReader(text)
    assert (repair["what"], repair["before"], repair["after"]) == ("percentage_typed_wrong", "8p", "80")
    assert [len(entries) for entries in cifar10s.read_answers(parsed).values()] == [3, 1]

    labels = tmp_path / "labels.json"
    run("build", parsed, "--variety", "t2-clamp", "--gamma", "0.1", "--published", "--output", labels)
    images, built = cifar10s.read_labels(labels)
    assert images.tolist() == [3, 3, 3, 5]
    # The second class overwrote the first: 40, not 60.
    assert built[3, 3] == pytest.approx(0.4)

    pooled = tmp_path / "pooled.npz"
    run("pool", labels, "--pool", "mean", "--output", pooled)
    with np.load(pooled) as archive:
        assert archive["indices"].tolist() == [3, 5]
        assert archive["counts"].tolist() == [3, 1]
        assert archive["categories"].tolist() == list(cifar10s.CATEGORIES)
        np.testing.assert_allclose(archive["soft_labels"][0], built[:3].mean(axis=0), rtol=1e-12)

    np.save(tmp_path / "probs.npy", np.full((6, 10), 0.1))
    found = json.loads(run("compare", pooled, "--reference", tmp_path / "probs.npy").stdout)
    assert found["images"] == 2
    assert found["entropy_correlation"] is None
    assert set(found) >= {"total_variation", "kl", "js", "accuracy"}


def test_first_answers_leave_the_repeat_out(raw: Path, tmp_path: Path) -> None:
    run("parse", raw, "--first-answers", "--output", tmp_path / "answers.json")
    assert [len(entries) for entries in cifar10s.read_answers(tmp_path / "answers.json").values()] == [2, 1]


def test_contradictions_are_repaired_and_listed_or_refused(raw: Path, tmp_path: Path) -> None:
    parsed, labels, repairs = (tmp_path / name for name in ("answers.json", "labels.json", "repairs.csv"))
    run("parse", raw, "--output", parsed)
    run("build", parsed, "--output", labels, "--repairs", repairs)
    assert cifar10s.read_labels(labels)[1][3, 3] == pytest.approx(0.6)
    assert "category_named_twice" in repairs.read_text(encoding="utf-8")
    labels.unlink()
    line = refused("build", parsed, "--strict", "--output", labels)
    assert line == "error: 1 answer contradicts itself, first image 5, entry 1: category_named_twice."
    assert not labels.exists()


def test_recommended_and_recommended_make_the_recommended_labels(answers: Path, tmp_path: Path) -> None:
    labels, pooled = tmp_path / "labels.json", tmp_path / "pooled.npz"
    run("build", answers, "--variety", "recommended", "--output", labels)
    run("pool", labels, "--pool", "recommended", "--output", pooled)
    elicited = [said for those in cifar10s.strict(cifar10s.read_answers(answers)).values() for said in those]
    built = RECOMMENDED.soft_labels(Answers.from_elicited(elicited, categories=10))
    expected = ConfusionPool().fit_predict(built, [3, 3, 5, 5], [1, 2, 1, 2])
    with np.load(pooled) as archive:
        assert (archive["soft_labels"] == expected).all()


@pytest.mark.parametrize("variety", ["t1-clamp", "t2-uniform", "tall-none", "t2-clamp-s0.5"])
@pytest.mark.parametrize("pool", ["median", "log", "reliability", "confusion"])
def test_any_variety_goes_with_any_pool(answers: Path, tmp_path: Path, variety: str, pool: str) -> None:
    labels, pooled = tmp_path / "labels.json", tmp_path / "pooled.npz"
    run("build", answers, "--variety", variety, "--gamma", "0.2", "--output", labels)
    run("pool", labels, "--pool", pool, "--output", pooled)
    with np.load(pooled) as archive:
        np.testing.assert_allclose(archive["soft_labels"].sum(axis=1), 1, rtol=0, atol=1e-12)


def test_other_classes_are_named_in_order(tmp_path: Path) -> None:
    said = {
        cifar10s.FIRST: "fox",
        cifar10s.FIRST_PERCENTAGE: 80,
        cifar10s.SECOND: "No",
        cifar10s.SECOND_PERCENTAGE: None,
        cifar10s.IMPOSSIBLE: ["elk"],
    }
    (tmp_path / "answers.json").write_text(json.dumps({"1": [said]}), encoding="utf-8")
    words = ["--categories", "elk,fox,owl", "--output"]
    run("build", tmp_path / "answers.json", *words, tmp_path / "labels.json")
    run("pool", tmp_path / "labels.json", *words, tmp_path / "pooled.npz")
    with np.load(tmp_path / "pooled.npz") as archive:
        assert archive["categories"].tolist() == ["elk", "fox", "owl"]
        assert archive["soft_labels"].tolist() == [[0, pytest.approx(0.8), pytest.approx(0.2)]]


def test_what_can_not_be_done_is_refused_in_one_line(answers: Path, raw: Path, tmp_path: Path) -> None:
    out = ["--output", tmp_path / "out"]
    labels, pooled = tmp_path / "labels.json", tmp_path / "pooled.npz"
    run("build", answers, "--output", labels)
    run("pool", labels, "--output", pooled)
    np.save(tmp_path / "short.npy", np.full((4, 10), 0.1))
    np.save(tmp_path / "holes.npy", np.full((6, 10), np.nan))
    np.save(tmp_path / "narrow.npy", np.full((6, 5), 0.2))
    expected: list[tuple[list[Any], str]] = [
        (["parse", tmp_path / "absent.csv", *out], "absent.csv"),
        (["parse", answers, *out], "lacks the column"),
        (["build", raw, *out], "can't be read"),
        (["build", answers, "--variety", "t3-clamp", *out], "no label variety 't3-clamp'"),
        (["build", answers, "--gamma", "1", *out], "gamma must be"),
        (["build", answers, "--variety", "recommended", "--published", *out], "not among the published"),
        (["build", answers, "--categories", "A,A", *out], "'A' is listed twice"),
        (["pool", answers, *out], "image 3, entry 1"),
        (["pool", labels, "--categories", "A,B", *out], "10 classes"),
        (["pool", labels, "--output", tmp_path / "absent" / "out"], "absent"),
        (["compare", labels, "--reference", tmp_path / "short.npy"], "can't be read"),
        (["compare", pooled, "--reference", tmp_path / "short.npy"], "4 images"),
        (["compare", pooled, "--reference", tmp_path / "holes.npy"], "no label of image 3"),
        (["compare", pooled, "--reference", tmp_path / "narrow.npy"], "one shape"),
        (["compare", pooled, "--reference", answers], "can't be read"),
    ]
    for words, match in expected:
        assert match in refused(*words), words
    assert not (tmp_path / "out").exists()


def test_help_gives_examples() -> None:
    shown = run("--help").stdout
    for command in ("parse", "build", "pool", "compare"):
        assert f"python -m elicit.labels {command} " in shown
        assert "usage: " in run(command, "--help").stdout
    run("--nonsense", code=2)


def test_the_published_files_and_the_recommended_gain(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "cifar10s"
    parsed, labels, pooled = (tmp_path / name for name in ("answers.json", "labels.json", "pooled.npz"))
    run("parse", folder / "raw_human_data_even_batches.csv", "--first-answers", "--output", parsed)
    figures = {}
    for variety, pool in (("t2-clamp", "mean"), ("recommended", "recommended")):
        run("build", parsed, "--variety", variety, "--output", labels)
        run("pool", labels, "--pool", pool, "--output", pooled)
        reference = shared_data / "cifar10h" / "cifar10h-probs.npy"
        figures[variety] = json.loads(run("compare", pooled, "--reference", reference).stdout)
    published, ours = figures["t2-clamp"], figures["recommended"]
    assert published["total_variation"] == pytest.approx(0.1550, abs=5e-4)
    assert published["kl"] == pytest.approx(0.1857, abs=5e-4)
    for name in ("total_variation", "kl", "js"):
        assert ours[name] < 0.86 * published[name], name
    assert ours["entropy_correlation"] > published["entropy_correlation"] + 0.02


def test_diff_tells_what_changed_between_two_releases(tmp_path: Path) -> None:
    releases.write(tmp_path / "a")
    without = [each for each in releases.study() if (each.annotator, each.image) != ("bea", 11)]
    releases.write(tmp_path / "b", responses=without, version=2)

    found = json.loads(run("diff", tmp_path / "a", tmp_path / "b", "--most", 1).stdout)

    assert (found["same"], found["responses_removed"], found["responses_added"]) == (False, 1, 0)
    assert found["counts"]["images"] == {"from": 2, "to": 2, "in_both": 2}
    (changed,) = found["most_changed"]
    # Bird .025, Cat .275, Dog .7 with both; .05 .05 .9 with ana alone.
    assert changed["image"] == 11
    assert changed["total_variation"] == pytest.approx(0.225)
    assert changed["from"] == pytest.approx([0.025, 0.275, 0.7])
    assert changed["to"] == pytest.approx([0.05, 0.05, 0.9])
    assert found["total_variation"]["median"] == pytest.approx(0.225 / 2)
    assert json.loads(run("diff", tmp_path / "a", tmp_path / "a").stdout)["same"] is True


def test_diff_refuses_what_is_no_release(tmp_path: Path) -> None:
    releases.write(tmp_path / "a")
    assert "no release" in refused("diff", tmp_path / "a", tmp_path / "none")
    assert "--most" in refused("diff", tmp_path / "a", tmp_path / "a", "--most", -1)
