"""Imports point one way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter import api

ROOT = Path(__file__).parents[1]

# What a machine that only trains has not got.
BLOCKED = ("annotations", "celery", "django", "exports", "jobs", "knox", "kombu", "rest_framework")
IMPORTS = f"""
import pkgutil, sys
for blocked in {BLOCKED!r}:
    sys.modules[blocked] = None
import training
for found in pkgutil.walk_packages(training.__path__, "training."):
    if not found.name.endswith("__main__"):
        __import__(found.name)
print(*sorted(name for name in sys.modules if name.startswith("elicit")))
"""


def test_every_import_contract_is_kept(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 broken" in found.stdout


def test_every_package_of_ours_stands_in_a_contract() -> None:
    contracts = api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}

    guarded = {module.split(".")[0] for contract in contracts for module in contract["source_modules"]}
    assert guarded == packages


def test_training_needs_neither_django_nor_celery() -> None:
    pytest.importorskip("torch", reason="training needs torch: make training")
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )

    assert found.returncode == 0, found.stderr
    modules = found.stdout.split()
    assert "elicit.labels" in modules
    assert all(
        name == "elicit" or name.startswith(("elicit.labels", "elicit.archives", "elicit.folders")) for name in modules
    )
