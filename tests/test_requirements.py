"""The locks: complete, hashed, of one mind, and silent about where packages come from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
SOURCES = sorted(FOLDER.glob("*.in"))
LOCKS = [source.with_suffix(".txt") for source in SOURCES]
# Its CPU build has another hash than the one that the package index lists, so it stands outside the locks.
UNHASHED = FOLDER / "torch.txt"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(source: Path) -> list[Requirement]:
    """What a source asks for, without what it includes."""
    lines = (line.partition("#")[0].strip() for line in source.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pinned(lock: Path) -> dict[str, set[str]]:
    """The versions of each package; several where they depend on Python's own."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE):
        versions.setdefault(normal(name), set()).add(version)
    return versions


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_requirement_names_a_host_or_a_folder(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not re.findall(r"[a-z+]+://|--(?:extra-)?index-url|--find-links", text)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_requirement_is_locked_in_a_version_that_it_allows(source: Path) -> None:
    lock = pinned(source.with_suffix(".txt")) | pinned(UNHASHED)

    for requirement in wanted(source):
        versions = lock.get(normal(requirement.name), set())
        assert versions, f"{requirement} of {source.name} is in no lock: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]

    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", ["dev.txt", "training.txt"])
def test_tests_and_training_run_on_the_versions_of_production(lock: str) -> None:
    base, other = pinned(FOLDER / "base.txt"), pinned(FOLDER / lock)

    shared = base.keys() & other.keys()
    assert shared
    assert {name: other[name] for name in shared} == {name: base[name] for name in shared}


def test_no_cuda_package_is_locked_for_training() -> None:
    names = pinned(FOLDER / "training.txt")

    assert "torch" not in names
    assert [name for name in names if name.startswith(("nvidia", "cuda", "triton"))] == []


def test_the_package_asks_for_what_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    for source, listed in {
        "base.in": project["dependencies"],
        "dev.in": extras["dev"],
        "training.in": extras["training"],
    }.items():
        assert sorted(map(str, wanted(FOLDER / source))) == sorted(str(Requirement(line)) for line in listed)
