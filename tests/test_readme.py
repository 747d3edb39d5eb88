"""The README's own loop: import, study, simulated annotators, checks, release, training."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from elicit.labels import read_release
from tests import services
from tests.test_run import Run, bare_environment

pytestmark = [pytest.mark.xdist_group("run"), pytest.mark.timeout(400), pytest.mark.slow]


def commands() -> list[list[str]]:
    """The commands under the marker in the README."""
    text = (services.ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- the-loop: .*?```console\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


def test_the_loop_of_the_readme_leads_from_images_to_a_trained_model(tmp_path: Path) -> None:
    var = tmp_path / "var"
    run = Run(var)
    try:
        run.wait_until_welcome()
        said = [execute(command, var) for command in commands()]
        assert len(said) == 6
        assert "contradictions refused" in said[2]
        assert re.search(r"^ +2 contradictory: completed$", said[2], re.MULTILINE), said[2]
        assert run.ctrl_c() == 0
    finally:
        run.kill()
    release = read_release(var / "releases" / "first-study-v1.zip")
    assert len(release.images) == 20
    assert release.counts.tolist() == [6] * 20
    result = json.loads((var / "result" / "result.json").read_text(encoding="utf-8"))
    assert result["release"]["digest"] == release.manifest["digest"]
    assert (var / "result" / "plot.png").stat().st_size > 10_000


def execute(command: list[str], var: Path) -> str:
    """Run one command of the README, with this Python and this test's folder for its own."""
    here = [sys.executable if word == ".venv/bin/python" else re.sub("^var/", f"{var}/", word) for word in command]
    done = subprocess.run(
        here,
        cwd=services.ROOT,
        env=bare_environment(var),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
