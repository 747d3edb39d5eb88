"""The locks: complete, hashed, of one mind, and silent about where packages come from."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

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


# --- Licences


COPYLEFT = re.compile(r"(?<!L)GPL|Affero|(?<!Lesser )General Public License", re.IGNORECASE)


def licence_of(name: str) -> str:
    """What a package says of its licence: an expression, else classifiers, else the first line of a text."""
    told = metadata.metadata(name)
    classified = [each for each in told.get_all("Classifier", []) if each.startswith("License ::")]
    (expression,), (text,) = (told.get_all(field, [""]) for field in ("License-Expression", "License"))
    return expression or " ".join(classified) or text.strip().partition("\n")[0]


@pytest.mark.parametrize("lock", ["base.txt", "s3.txt", "formats.txt"])
def test_no_package_of_the_image_is_under_a_licence_that_would_spread(lock: str) -> None:
    installed = {normal(each.name) for each in metadata.distributions()}
    licences = {name: licence_of(name) for name in pinned(FOLDER / lock) if name in installed}

    assert licences
    assert [name for name, licence in licences.items() if not licence] == []
    assert {name: licence for name, licence in licences.items() if COPYLEFT.search(licence)} == {}


@pytest.mark.parametrize(
    ("licence", "spreads"),
    [
        ("GPL-3.0-or-later", True),
        ("License :: OSI Approved :: GNU Affero General Public License v3", True),
        ("License :: OSI Approved :: GNU General Public License v2 (GPLv2)", True),
        ("AGPL-3.0-only", True),
        ("LGPL with exceptions", False),
        ("License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)", False),
        ("BSD-3-Clause", False),
    ],
)
def test_such_a_licence_is_told_from_others(licence: str, spreads: bool) -> None:
    assert bool(COPYLEFT.search(licence)) is spreads


# --- SBOM and audit


@pytest.fixture
def supply() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", ROOT / ".ci" / "supply.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sbom_lists_every_locked_package_with_version_and_hashes(
    supply: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "SBOM", tmp_path / "sbom.json")

    assert supply.sbom() == 0

    bom = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))
    locked = supply.entries()
    names = {normal(name) for lock in supply.LOCKS for name in pinned(FOLDER / lock)}
    assert {name for name, _ in locked} == names
    assert len(bom["components"]) == len(locked)
    assert bom["metadata"]["component"]["name"] == "elicit"


def test_an_sbom_that_lacks_something_is_told(supply: ModuleType) -> None:
    digest = "a" * 64
    locked = {
        ("a", "1"): f"a==1 --hash=sha256:{digest}",
        ("b", "2"): f"b==2 --hash=sha256:{digest}",
        ("c", "3"): "c==3",
    }
    listed = {"alg": "SHA-256", "content": "b" * 64}
    bom = {
        "components": [
            {"name": "a", "version": "1", "externalReferences": [{"hashes": [listed]}]},
            {"name": "d", "version": "4"},
        ]
    }

    assert supply.missing_from(bom, locked) == [
        "a 1 has other hashes than the lock",
        "b 2 is missing",
        "c 3 has no hash in the lock",
        "d 4 is in no lock",
    ]


FINE = {"name": "django", "version": "5", "vulns": []}
UNSAFE = {"name": "pillow", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
UNKNOWN = {"name": "django", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ([[FINE], [FINE, FINE]], 0, "2 packages, 0 findings (osv)"),
        ([[FINE], [FINE, UNSAFE]], 1, "pillow 1: PYSEC-1, mended in 2"),
        ([[FINE], [FINE, UNKNOWN]], 1, "Dependency not found"),
        ([[FINE], None], 1, "no more"),
        ([None, [FINE], [FINE]], 0, "(pypi)"),
        ([None, None], 0, "SKIPPED, nothing was checked"),
        # A mirror of the index that has no advisories.
        ([None, [UNKNOWN]], 0, "SKIPPED, nothing was checked"),
    ],
)
def test_an_audit_is_strict_where_it_gets_an_answer_and_says_where_it_gets_none(
    supply: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[Any],
    status: int,
    words: str,
) -> None:
    left = iter(answers)

    def ask(service: str, requirements: str) -> dict[str, Any] | None:
        answer = next(left)
        return None if answer is None else {"dependencies": answer}

    monkeypatch.setattr(supply, "ask", ask)

    assert supply.audit() == status
    assert words in "".join(capsys.readouterr())
    assert list(left) == []
