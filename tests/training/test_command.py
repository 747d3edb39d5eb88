from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from elicit.labels import zip_release
from tests.training.conftest import SIZE, labelled_images, release_of
from training.__main__ import config_of, main, parser
from training.config import Config

ROOT = Path(__file__).parents[2]


def fit(release: Path, images: Path | str, output: Path, *more: str) -> list[str]:
    return ["fit", "--release", str(release), "--images", str(images), "--output", str(output), "--threads", "1", *more]


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command ends with."""
    assert main(argv) == 2
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if not line.startswith("Reading ")]
    assert told.out == ""
    assert len(lines) == 1
    return lines[0]


def test_fit_trains_writes_and_prints(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = zip_release(release, tmp_path / "release.zip")
    output = tmp_path / "deep" / "result"
    assert main(fit(packed, archive, output, "--epochs", "2", "--holdout", "0.25", "--seed", "9")) == 0
    told = capsys.readouterr()
    assert sorted(path.name for path in output.iterdir()) == ["plot.png", "plot.svg", "result.json"]
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert (result["config"]["epochs"], result["config"]["seed"]) == (2, 9)
    assert result["images"]["held_out"] == 6
    assert f"{result['held_out']['soft']['cross_entropy']:.3f}" in told.out
    assert "Note: Only 6 held-out images" in told.out
    assert len([line for line in told.err.splitlines() if " epoch " in line]) == 6


def test_the_release_that_is_not_there_is_refused_in_one_line(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no release" in refusal(fit(tmp_path / "nothing", archive, tmp_path / "out"), capsys)


def test_a_damaged_release_is_refused_by_the_files_name(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (release / "soft_labels.csv").open("a", encoding="utf-8") as labels:
        labels.write("0\n")
    assert "soft_labels.csv" in refusal(fit(release, archive, tmp_path / "out"), capsys)


def test_an_archive_that_is_none_is_refused_in_one_line(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alien = tmp_path / "holiday.tar.gz"
    alien.write_bytes(b"no archive")
    assert "holiday.tar.gz" in refusal(fit(release, alien, tmp_path / "out"), capsys)


def test_a_split_that_the_archive_lacks_is_refused_in_one_line(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "train" in refusal(fit(release, archive, tmp_path / "out", "--split", "train"), capsys)


def test_images_that_the_archive_lacks_are_refused_in_one_line(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = release_of(tmp_path / "more", labelled_images(SIZE + 1))
    assert "not in the test split" in refusal(fit(more, archive, tmp_path / "out"), capsys)


def test_an_output_that_is_a_file_is_refused_before_training(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.write_text("mine", encoding="utf-8")
    assert str(output) in refusal(fit(release, archive, output), capsys)
    assert output.read_text(encoding="utf-8") == "mine"


def test_a_setting_out_of_range_is_refused_in_one_line(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "epochs must" in refusal(fit(release, archive, tmp_path / "out", "--epochs", "0"), capsys)


def test_the_help_explains_every_setting_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["fit", "--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for setting in fields(Config):
        assert f"--{setting.name.replace('_', '-')}" in text
        assert f"(default: {setting.default})" in text
    assert "example: python -m training fit" in text


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


BLOCKED = """
import runpy, sys
for name in {names}:
    sys.modules[name] = None
sys.argv[0] = "training"
"""


@pytest.mark.parametrize("missing", ["torch", "matplotlib"])
def test_without_torch_one_kind_line_names_the_remedy(release: Path, archive: Path, missing: str) -> None:
    code = BLOCKED.format(names=[missing]) + "runpy.run_module('training', run_name='__main__')"
    done = python(code, *fit(release, archive, release.parent / "out"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"Training needs {missing}, which is not installed; `make training` installs it.\n"


def test_the_help_needs_no_torch() -> None:
    code = BLOCKED.format(names=["torch"]) + "runpy.run_module('training', run_name='__main__')"
    done = python(code, "fit", "--help")
    assert done.returncode == 0
    assert "--release" in done.stdout


def test_training_imports_neither_django_nor_celery() -> None:
    names = ["django", "celery", "rest_framework", "annotations", "exports", "jobs"]
    done = python(BLOCKED.format(names=names) + "import training.__main__, training.report; print('imported')")
    assert done.stderr == ""
    assert done.stdout == "imported\n"


def compare(release: Path, images: Path, output: Path, *more: str) -> list[str]:
    return [
        *("compare", "--release", str(release), "--images", str(images), "--output", str(output), "--threads", "1"),
        *("--seeds", "1", "--epochs", "1", "--batch-size", "8", "--attacked", "2", *more),
    ]


def test_compare_trains_writes_and_prints(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "result"
    assert main(compare(release, archive, output, "--labels", "hard,t2-clamp", "--m", "1,2")) == 0
    told = capsys.readouterr()
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert list(result["sets"]) == ["hard", "t2-clamp@1", "t2-clamp@2"]
    assert "t2-clamp@2 − hard" in told.out
    assert str(tmp_path) not in (output / "report.html").read_text(encoding="utf-8")
    assert "--labels hard,t2-clamp" in result["command"]
    assert len(re.findall(r"^[0-9]/3  ", told.err, flags=re.MULTILINE)) == 3


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--labels", "soft"), "no label set 'soft'"),
        (("--m", "few"), "numbers from 1"),
        (("--seeds", "0"), "--seeds"),
        (("--smoothing", "1"), "--smoothing"),
        (("--labels", "h"), "--reference"),
        (("--protocol", "nowhere"), "can't be read"),
        (("--release", "https://example.org/api/releases/birds/1"), "ELICIT_TOKEN"),
        (("--preset", "protocol", "--epochs", "0"), "epochs must"),
    ],
)
def test_what_compare_can_not_do_is_refused_in_one_line(
    release: Path,
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.delenv("ELICIT_TOKEN", raising=False)
    assert sentence in refusal(compare(release, archive, tmp_path / "out", *more), capsys)


def test_a_preset_is_what_was_published_and_what_is_said_goes_over_it() -> None:
    arguments = parser().parse_args(
        ["compare", "--images", "x", "--output", "y", "--preset", "protocol", "--network", "small", "--compile"]
    )
    config = config_of(arguments)
    assert (config.network, config.lr, config.epochs, config.compile) == ("small", 0.1, 65, True)
    assert config_of(parser().parse_args(["fit", "--release", "r", "--images", "x", "--output", "y"])) == Config()


def test_further_releases_are_compared_by_their_files_names(
    release: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = zip_release(release_of(tmp_path / "again", labelled_images(SIZE, seed=0)), tmp_path / "birds-v2.zip")
    argv = ["compare", "--release", str(release), "--release", str(second), "--images", str(archive)]
    argv += ["--labels", "released,released:birds-v2", "--seeds", "1", "--epochs", "1", "--attacked", "1"]
    assert main([*argv, "--output", str(tmp_path / "out"), "--threads", "1"]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert list(result["sets"]) == ["released", "released:birds-v2"]
    assert list(result["data"]["others"]) == ["birds-v2"]
    capsys.readouterr()
    # The same labels, so the same network.
    figures = [each["metrics"]["cross_entropy"]["mean"] for each in result["sets"].values()]
    assert figures[0] == figures[1]
    assert refusal([*argv, "--release", str(second), "--output", str(tmp_path / "more")], capsys).startswith("Two")


def test_a_comparison_stops_with_the_process_that_holds_its_standard_input(
    release: Path, archive: Path, tmp_path: Path
) -> None:
    argv = ["compare", "--release", str(release), "--images", str(archive), "--output", str(tmp_path / "out")]
    argv += ["--seeds", "100", "--epochs", "1000", "--threads", "1", "--until-stdin-closes"]
    child = subprocess.Popen(
        [sys.executable, "-m", "training", *argv],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with child:
        progress = tmp_path / "out" / "progress.json"
        until = time.monotonic() + 60
        while not progress.exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert json.loads(progress.read_text(encoding="utf-8"))["runs"] == 400
        assert child.poll() is None
        child.communicate()  # closes it
    assert child.returncode == 130
