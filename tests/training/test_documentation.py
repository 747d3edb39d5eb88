from __future__ import annotations

import re
from pathlib import Path

import pytest

from elicit.labels import zip_release
from tests.training.conftest import labelled_images
from training.__main__ import parser
from training.config import Config
from training.evaluate import evaluate
from training.label_sets import FROM_PEOPLE, PLAIN

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "train.md").read_text(encoding="utf-8")


def test_the_loop_in_the_documentation_runs(
    release: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zip_release(release, tmp_path / "release.zip")
    archive.rename(tmp_path / "cifar-10-python.tar.gz")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert code.count("\n") <= 30
    exec(compile(code, "train.md", "exec"), {"__name__": "snippet"})  # noqa: S102 - our own page
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert "cross_entropy" in told[-1]


@pytest.mark.parametrize("name", [*PLAIN, *FROM_PEOPLE, "h", "t2-clamp"])
def test_every_label_set_is_explained(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_metric_is_explained() -> None:
    images = labelled_images(4)
    for metric in evaluate(images.soft_labels * 0 - 2.302585092994046, images).metrics:
        assert f"`{metric}`" in PAGE, metric


def test_every_flag_in_the_documentation_exists_and_every_one_of_compare_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["compare", "--help"])
    known = set(re.findall(r"--([a-z][a-z-]+)", capsys.readouterr().out)) | {"nproc-per-node"}
    flags = set(re.findall(r"--([a-z][a-z-]+)", PAGE))
    assert flags <= known
    assert known - flags <= set(map(flag_of, Config.__dataclass_fields__)) | UNTOLD


UNTOLD = {"attacked", "nproc-per-node", "no-compile", "no-deterministic", "help"}
"""What `--help` alone explains."""


def flag_of(setting: str) -> str:
    return setting.replace("_", "-")
