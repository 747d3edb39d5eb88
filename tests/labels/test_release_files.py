from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from elicit.labels import (
    CategorySet,
    Elicited,
    LabelVariety,
    Recipe,
    Refusal,
    ReleasedResponse,
    read_release,
    write_release,
    zip_release,
)
from elicit.labels.release_files import POOLS, building, columns
from tests.labels.releases import CATEGORIES, digest, response, study

FACTS: dict[str, Any] = {"study": "birds", "name": "Vögel", "labels_per_image": 2, "framing": "others"}
FIRST_FORMAT = ["cifar10s.json", "cifar10s_answers.json", "responses.csv", "responses.jsonl", "soft_labels.csv"]
ARRAYS = ["annotator_soft_labels.npy", "cifar10h-counts.npy", "cifar10h-probs.npy", "images.npy", "soft_labels.npy"]
PARQUET = ["responses.parquet", "soft_labels.parquet"] if find_spec("pyarrow") else []
FILES = sorted([*FIRST_FORMAT, *ARRAYS, *PARQUET, "DATASHEET.md", "README.md", "croissant.json"])


def write(
    directory: Path,
    responses: Iterable[ReleasedResponse] | None = None,
    *,
    categories: CategorySet = CATEGORIES,
    recipe: Recipe | None = None,
    facts: dict[str, Any] = FACTS,
    progress: Callable[[str, int, int], None] | None = None,
    scratch: Path | None = None,
) -> dict[str, Any]:
    return write_release(
        directory,
        categories=categories,
        responses=study() if responses is None else responses,
        recipe=recipe or Recipe(),
        facts=facts,
        version=3,
        progress=progress,
        scratch=scratch,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write(tmp_path / "release")
    return tmp_path / "release"


# What is written


def test_it_writes_the_documented_files_and_nothing_else(release: Path) -> None:
    assert sorted(path.name for path in release.iterdir()) == sorted([*FILES, "manifest.json"])
    for name, content in bytes_of(release).items():
        if name in (*ARRAYS, *PARQUET):
            continue
        assert b"\r" not in content, name
        assert content.endswith(b"\n"), name


def test_the_pooled_labels_are_those_worked_by_hand(release: Path) -> None:
    rows = table(release / "soft_labels.csv")
    assert list(rows[0]) == ["image", "image_sha256", "annotators", "Bird", "Cat", "Dog"]
    assert [(row["image"], row["image_sha256"], row["annotators"]) for row in rows] == [
        ("4", digest(4), "2"),
        ("11", digest(11), "2"),
    ]
    labels = [[float(row[name]) for name in CATEGORIES] for row in rows]
    np.testing.assert_allclose(labels, [[0.3, 0.65, 0.05], [0.025, 0.275, 0.7]], rtol=0, atol=1e-12)


def test_the_responses_tell_what_was_said_and_its_label(release: Path) -> None:
    rows = table(release / "responses.csv")
    assert [(row["image"], row["annotator"], row["position"]) for row in rows] == [
        ("4", "ana", "1"),
        ("4", "ana", "3"),
        ("4", "bea", "2"),
        ("7", "bea", "3"),
        ("9", "ana", "0"),
        ("11", "ana", "2"),
        ("11", "bea", "1"),
    ]
    attention = rows[3]
    assert {name: attention[name] for name in list(attention)[2:]} == {
        "image_sha256": digest(7),
        "kind": "attention",
        "position": "3",
        "duration_ms": "4200",
        "category_1": "Cat",
        "percentage_1": "50.0",
        "category_2": "Dog",
        "percentage_2": "30.0",
        "category_3": "Bird",
        "percentage_3": "5.0",
        "impossible_Bird": "0",
        "impossible_Cat": "0",
        "impossible_Dog": "0",
        "category_order": "",
        "soft_Bird": repr(1 - (0.5 + 0.3)),
        "soft_Cat": "0.5",
        "soft_Dog": "0.3",
    }
    assert rows[4]["duration_ms"] == ""
    assert rows[0]["category_order"] == "2 0 1"
    assert (rows[2]["category_2"], rows[2]["percentage_2"]) == ("", "")
    assert [rows[2][f"impossible_{name}"] for name in CATEGORIES] == ["1", "0", "1"]


def test_the_lines_of_json_tell_the_same(release: Path) -> None:
    lines = (release / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7
    assert json.loads(lines[2]) == {
        "annotator": "bea",
        "image": 4,
        "image_sha256": digest(4),
        "kind": "main",
        "position": 2,
        "duration_ms": 4200,
        "named": [{"category": "Cat", "percentage": 100.0}],
        "impossible": ["Bird", "Dog"],
        "category_order": [],
    }


def test_the_published_layouts_hold_main_trials_in_rising_order(release: Path) -> None:
    labels = json.loads((release / "cifar10s.json").read_text(encoding="utf-8"))
    assert list(labels) == ["4", "11"]
    np.testing.assert_allclose(labels["4"], [[0.6, 0.3, 0.1], [0.0, 1.0, 0.0]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(labels["11"], [[0.05, 0.05, 0.9], [0.0, 0.5, 0.5]], rtol=0, atol=1e-12)
    answers = json.loads((release / "cifar10s_answers.json").read_text(encoding="utf-8"))
    assert answers["4"] == [
        {
            "Most Probable Class": "Bird",
            "Most Probable Class Prob": 60.0,
            "Second Most Probable Class": "Cat",
            "Second Most Probable Class Prob": 30.0,
            "Impossible Class(es)": [],
        },
        {
            "Most Probable Class": "Cat",
            "Most Probable Class Prob": 100.0,
            "Second Most Probable Class": "No",
            "Second Most Probable Class Prob": None,
            "Impossible Class(es)": ["Bird", "Dog"],
        },
    ]
    assert {image: len(those) for image, those in answers.items()} == {"4": 2, "11": 2}


def test_the_manifest_seals_every_file(release: Path, tmp_path: Path) -> None:
    manifest = json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == write(tmp_path / "again")
    assert manifest["format"] == "elicit-release"
    assert manifest["format_version"] == 2
    assert manifest["version"] == 3
    assert manifest["categories"] == ["Bird", "Cat", "Dog"]
    assert manifest["facts"] == FACTS
    assert manifest["recipe"] == Recipe().to_dict()
    assert manifest["recipe_digest"] == Recipe().digest
    assert manifest["counts"] == {
        "images": 2,
        "annotators": 2,
        "responses": 7,
        "pooled_responses": 4,
        "by_kind": {"practice": 1, "main": 4, "repeat": 1, "attention": 1},
    }
    assert sorted(manifest["files"]) == FILES
    for name, seal in manifest["files"].items():
        content = (release / name).read_bytes()
        assert seal == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    lines = "".join(f"{manifest['files'][name]['sha256']}  {name}\n" for name in FILES)
    assert manifest["digest"] == hashlib.sha256(lines.encode()).hexdigest()


def test_a_release_tells_the_version_of_the_product(release: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert read_release(release).manifest["written_by"]["elicit"] == project["version"]


def test_repeats_are_pooled_when_the_recipe_asks_but_make_no_annotator(tmp_path: Path) -> None:
    manifest = write(tmp_path / "release", recipe=Recipe(include_repeats=True))
    assert manifest["counts"]["pooled_responses"] == 5
    row = table(tmp_path / "release" / "soft_labels.csv")[0]
    assert row["annotators"] == "2"
    # ana: (.6 .3 .1 + 1 0 0) / 2 = .8 .15 .05; bea: 0 1 0; together .4 .575 .025
    found = [float(row[name]) for name in CATEGORIES]
    np.testing.assert_allclose(found, [0.4, 0.575, 0.025], rtol=0, atol=1e-12)


def test_the_variety_of_the_recipe_makes_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "release", recipe=Recipe(LabelVariety.from_slug("t1-none")))
    labels = read_release(tmp_path / "release").soft_labels
    assert labels.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]


def test_names_that_need_quoting_survive(tmp_path: Path) -> None:
    names = ('image, "big"', "annotators", "Vögel; ½")
    write(tmp_path / "release", categories=CategorySet(names))
    release = read_release(tmp_path / "release")
    assert release.categories == names
    np.testing.assert_allclose(release.soft_labels[0], [0.3, 0.65, 0.05], rtol=0, atol=1e-12)


# Same input, same bytes

WRITE = """
import sys
from pathlib import Path
from elicit.labels import Recipe, write_release, zip_release
from tests.labels.releases import CATEGORIES, study
target = Path(sys.argv[1])
responses = study() if sys.argv[2] == "forwards" else study()[::-1]
write_release(target / "x", categories=CATEGORIES, responses=responses, recipe=Recipe(), version=3,
              facts={"study": "birds", "list": ["b", "a"], "framing": "others"})
zip_release(target / "x", target / "x.zip")
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    outcomes = []
    for seed, direction in (("1", "forwards"), ("2", "backwards")):
        target = tmp_path / seed
        target.mkdir()
        subprocess.run(
            [sys.executable, "-c", WRITE, str(target), direction],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"},
            check=True,
            timeout=60,
        )
        outcomes.append((bytes_of(target / "x"), (target / "x.zip").read_bytes()))
    assert outcomes[0] == outcomes[1]


def test_rows_that_tie_are_written_in_one_order(tmp_path: Path) -> None:
    ties = [
        response("ana", 4, (0, 60.0)),
        response("ana", 4, (1, 60.0)),
        response("ana", 4, (0, 60.0), duration=None),
        response("ana", 4, (0, 60.0), impossible={2}),
        response("ana", 4, (0, 60.0), order=(0, 1, 2)),
    ]
    write(tmp_path / "a", ties)
    write(tmp_path / "b", ties[::-1])
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_the_order_inside_a_set_is_not_written(tmp_path: Path) -> None:
    # 0 and 8 share a place in Python's table, so that equal sets come in two orders.
    ten = CategorySet(tuple("abcdefghij"))
    for name, impossible in (("a", [0, 8]), ("b", [8, 0])):
        said = Elicited(((3, 60.0),), frozenset(impossible))
        write(tmp_path / name, [ReleasedResponse("ana", 4, digest(4), "main", 0, said, (), None)], categories=ten)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_a_zip_knows_nothing_of_clock_place_or_owner(release: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(release, elsewhere)
    for path in elsewhere.iterdir():
        path.chmod(0o600)
        os.utime(path, (1e9, 1e9))
    (elsewhere / "note.txt").write_text("not of the release", encoding="utf-8")
    first = zip_release(release, tmp_path / "first.zip").read_bytes()
    assert zip_release(elsewhere, tmp_path / "second.zip").read_bytes() == first


def test_a_zip_has_one_folder_called_after_the_study(release: Path, tmp_path: Path) -> None:
    target = zip_release(release, tmp_path / "release.zip")
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == [f"birds-v3/{name}" for name in sorted([*FILES, "manifest.json"])]
        assert archive.testzip() is None
    write(tmp_path / "nameless", facts={"study": "../../etc"})
    target = zip_release(tmp_path / "nameless", tmp_path / "nameless.zip")
    with zipfile.ZipFile(target) as archive:
        assert all(name.startswith("release-v3/") for name in archive.namelist())


# Reading back


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_is_read(release: Path, tmp_path: Path, packed: bool) -> None:
    path = zip_release(release, tmp_path / "release.zip") if packed else release
    found = read_release(path)
    assert found.categories == CATEGORIES.names
    assert found.images.tolist() == [4, 11]
    assert found.image_sha256 == (digest(4), digest(11))
    assert found.counts.tolist() == [2, 2]
    assert found.images.dtype == found.counts.dtype == found.response_images.dtype == np.int64
    assert found.annotators.tolist() == ["ana", "ana", "bea", "bea", "ana", "ana", "bea"]
    assert found.response_images.tolist() == [4, 4, 4, 7, 9, 11, 11]
    assert found.kinds.tolist() == ["main", "repeat", "main", "attention", "practice", "main", "main"]
    assert found.response_soft_labels.shape == (7, 3)
    assert found.manifest == json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    # repr writes every bit of a float64, so the pool can be made again without loss
    main = found.kinds == "main"
    pooled = [found.response_soft_labels[main & (found.response_images == image)].mean(axis=0) for image in (4, 11)]
    assert (found.soft_labels == pooled).all()


def test_a_path_may_be_text(release: Path) -> None:
    assert read_release(str(release)).images.tolist() == [4, 11]


def test_a_zip_without_a_folder_is_read_too(release: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for path in release.iterdir():
            archive.write(path, path.name)
    assert read_release(tmp_path / "flat.zip").images.tolist() == [4, 11]


def refused(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_release(path)
    return caught.value


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, cut, extend, Path.unlink])
def test_a_damaged_file_is_named(release: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(release / name)
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert name in refusal.message
    with pytest.raises(Refusal, match=name):
        zip_release(release, release.parent / "release.zip")
    assert not list(release.parent.glob("*.zip*"))


def test_a_damaged_member_of_a_zip_is_named(release: Path, tmp_path: Path) -> None:
    path = zip_release(release, tmp_path / "release.zip")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("birds-v3/responses.csv")
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    refusal = refused(path)
    assert refusal.code == "release_damaged"
    assert "responses.csv" in refusal.message


def test_a_zip_that_is_cut_short_is_named(release: Path, tmp_path: Path) -> None:
    path = zip_release(release, tmp_path / "release.zip")
    path.write_bytes(path.read_bytes()[:500])
    refusal = refused(path)
    assert refusal.code == "release_damaged"
    assert "release.zip" in refusal.message


def edit(release: Path, **changes: Any) -> None:
    path = release / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "0" * 64},
        {"files": {}},
        {"files": None},
        {"files": {"../secret.csv": {"bytes": 1, "sha256": "0"}}},
        {"files": {"responses.csv": "0"}},
        {"categories": ["Cat", "Cat"]},
        {"categories": "Cat"},
        {"facts": None},
    ],
)
def test_a_manifest_that_was_meddled_with_is_named(release: Path, changes: dict[str, Any]) -> None:
    edit(release, **changes)
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert "manifest.json" in refusal.message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_json_is_named(release: Path, content: bytes) -> None:
    (release / "manifest.json").write_bytes(content)
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert "manifest.json" in refusal.message


def reseal(release: Path, **seals: dict[str, Any]) -> None:
    """Give files other seals, and the manifest a digest that fits them."""
    manifest = json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    files = {**manifest["files"], **seals}
    lines = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
    edit(release, files=files, digest=hashlib.sha256(lines.encode()).hexdigest())


def seal_of(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def as_first_format(release: Path) -> None:
    """Take from a release what its first format had not."""
    for name in set(FILES) - set(FIRST_FORMAT):
        (release / name).unlink()
    manifest = json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    edit(release, format_version=1, files={name: manifest["files"][name] for name in FIRST_FORMAT})
    reseal(release)


def test_files_never_leave_the_release(release: Path) -> None:
    (release.parent / "secret.csv").write_bytes(b"s")
    reseal(release, **{"../secret.csv": seal_of(b"s")})
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert "manifest.json" in refusal.message


def test_a_length_that_is_wrong_is_damage_even_where_the_hash_is_right(release: Path) -> None:
    content = (release / "cifar10s.json").read_bytes()
    reseal(release, **{"cifar10s.json": {**seal_of(content), "bytes": len(content) + 1}})
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert "cifar10s.json" in refusal.message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("soft_labels.csv", "image,image_sha256,annotators,Bird,Cat,Dog\n4,x,2,0.5,0.5,0.5\n"),
        ("soft_labels.csv", "image,image_sha256,annotators,Bird,Cat,Dog\nfour,x,2,0.5,0.5,0.0\n"),
        ("soft_labels.csv", "image,image_sha256,annotators,Bird,Cat,Dog\n4,x,2,0.5,0.5\n"),
        ("soft_labels.csv", "image,image_sha256,annotators,Bird,Dog,Cat\n4,x,2,0.5,0.5,0.0\n"),
        ("soft_labels.csv", ""),
        ("responses.csv", "who,what\nana,4\n"),
    ],
)
def test_sealed_nonsense_is_still_refused(release: Path, name: str, content: str) -> None:
    as_first_format(release)
    (release / name).write_text(content, encoding="utf-8")
    reseal(release, **{name: seal_of(content.encode())})
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert name in refusal.message


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.full((3, 3), 1 / 3), np.full((2, 3), 1 / 3, dtype=np.float32)])
def test_sealed_arrays_of_nonsense_are_refused_too(release: Path, array: NDArray[Any]) -> None:
    np.save(release / "soft_labels.npy", array)
    reseal(release, **{"soft_labels.npy": seal_of((release / "soft_labels.npy").read_bytes())})
    refusal = refused(release)
    assert refusal.code == "release_damaged"
    assert "soft_labels.npy" in refusal.message


def test_a_release_of_the_first_format_is_read_as_it_was(release: Path) -> None:
    new = read_release(release)
    new_table = new.table()
    as_first_format(release)
    old = read_release(release)
    assert old.manifest["format_version"] == 1
    for name in ("images", "soft_labels", "counts", "annotators", "response_images", "response_soft_labels", "kinds"):
        assert getattr(old, name).tolist() == getattr(new, name).tolist(), name
    assert {name: str(column.tolist()) for name, column in old.table().items()} == {
        name: str(column.tolist()) for name, column in new_table.items()
    }


def test_what_is_no_release_is_told_apart_from_what_is_not_there(tmp_path: Path, release: Path) -> None:
    assert refused(tmp_path / "nowhere").code == "release_not_found"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").code == "release_not_found"
    with zipfile.ZipFile(tmp_path / "alien.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refused(tmp_path / "alien.zip").code == "release_not_found"
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    assert refused(tmp_path / "notes.txt").code == "release_unknown_format"
    (tmp_path / "empty" / "manifest.json").write_text("{}", encoding="utf-8")
    assert refused(tmp_path / "empty").code == "release_unknown_format"
    edit(release, format_version=3)
    refusal = refused(release)
    assert refusal.code == "release_unknown_format"
    assert "3" in refusal.message


# What can't be written


def test_a_release_is_never_overwritten(release: Path) -> None:
    before = bytes_of(release)
    with pytest.raises(Refusal) as caught:
        write(release)
    assert caught.value.code == "release_exists"
    assert bytes_of(release) == before


def test_a_release_of_nothing_is_refused(tmp_path: Path) -> None:
    for responses in ([], [each for each in study() if each.kind != "main"]):
        with pytest.raises(Refusal) as caught:
            write(tmp_path / "release", responses)
        assert caught.value.code == "release_empty"
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (response("ana", 4, (0, 60.0), kind="main trial"), "kind"),
        (response("", 4, (0, 60.0)), "no annotator"),
        (response("ana", 4, (0, 60.0), order=(0, 1)), "category_order"),
        (replace(response("ana", 4, (0, 60.0)), image_sha256=digest(5)), "two digests"),
        (response("ana", 5, (0, 60.0), impossible={0}), "both named and impossible"),
        (response("ana", 5, (3, 60.0)), "outside"),
    ],
)
def test_responses_that_no_release_can_hold_are_refused(tmp_path: Path, wrong: ReleasedResponse, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write(tmp_path / "release", [*study(), wrong])
    assert not (tmp_path / "release").exists()


def test_facts_have_to_be_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "release", facts={"spread": float("nan")})


class _Stop(Exception):
    pass


def test_progress_is_told_and_may_stop_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_ROWS", 1000)
    many = [response(f"a{number % 3}", number // 3, (0, 60.0)) for number in range(3000)]
    told: list[tuple[str, int, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        if stage == "cifar10s.json" and done == 1000:
            raise _Stop

    with pytest.raises(_Stop):
        write(tmp_path / "release", many, progress=stop)
    assert told[:4] == [("labels", 0, 3000), ("labels", 1000, 3000), ("labels", 2000, 3000), ("labels", 3000, 3000)]
    assert [each for each in told if each[0] == "responses.csv"] == [
        ("responses.csv", done, 3000) for done in (0, 1000, 2000, 3000)
    ]
    left = sorted(path.name for path in (tmp_path / "release").iterdir())
    assert left == sorted(["annotator_soft_labels.npy", "responses.csv", "responses.jsonl", *PARQUET[:1]])
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    assert refused(tmp_path / "release").code == "release_not_found"

    monkeypatch.undo()
    write(tmp_path / "release", many)
    write(tmp_path / "straight", many)
    assert bytes_of(tmp_path / "release") == bytes_of(tmp_path / "straight")


# Kept work


def unread() -> Iterator[ReleasedResponse]:
    raise AssertionError("the responses were read again")
    yield response("ana", 1, (0, 1.0))


def test_a_build_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    written: list[str] = []

    def stop(stage: str, done: int, total: int) -> None:
        if done == 0:
            written.append(stage)
        if stage == "cifar10s.json":
            raise _Stop

    with pytest.raises(_Stop):
        write(tmp_path / "release", progress=stop, scratch=tmp_path / "scratch")
    finished = tmp_path / "release" / "responses.csv"
    before = finished.stat().st_ino
    (tmp_path / "release" / "cifar10s.json.part").write_text("half", encoding="utf-8")

    manifest = write(tmp_path / "release", unread(), scratch=tmp_path / "scratch")

    assert finished.stat().st_ino == before
    assert manifest == write(tmp_path / "straight")
    assert bytes_of(tmp_path / "release") == bytes_of(tmp_path / "straight")
    assert write(tmp_path / "release", unread(), scratch=tmp_path / "scratch") == manifest


@pytest.mark.parametrize("damage", [flip, cut, extend, Path.unlink])
def test_kept_work_that_is_damaged_is_done_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write(tmp_path / "release", scratch=tmp_path / "scratch")
    damage(tmp_path / "release" / "responses.csv")
    damage(tmp_path / "scratch" / "spool" / "image.column")
    write(tmp_path / "release", scratch=tmp_path / "scratch")
    write(tmp_path / "straight")
    assert bytes_of(tmp_path / "release") == bytes_of(tmp_path / "straight")


def test_work_that_was_kept_for_something_else_is_not_taken_over(tmp_path: Path) -> None:
    write(tmp_path / "release", study()[1:], scratch=tmp_path / "scratch")
    other = write(tmp_path / "release", facts={"study": "fish"}, scratch=tmp_path / "scratch")
    assert other["counts"]["responses"] == len(study())
    assert other == write(tmp_path / "straight", facts={"study": "fish"})


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_bytes_do_not_depend_on_how_the_rows_are_cut(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(columns, "MOST_ROWS", rows)
    monkeypatch.setattr(building, "_BLOCK_SIZE", 3 * rows)
    write(tmp_path / "other")
    assert bytes_of(tmp_path / "other") == bytes_of(release)


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_is_fitted_to_all_that_the_recipe_pools(tmp_path: Path, pool: str) -> None:
    write(tmp_path / "release", recipe=Recipe(pool=pool))
    release = read_release(tmp_path / "release")
    main = release.kinds == "main"
    expected = POOLS[pool]().fit(
        release.response_soft_labels[main], release.response_images[main], release.annotators[main]
    )
    assert release.soft_labels.tolist() == expected.soft_labels_.tolist()
    assert release.counts.tolist() == expected.counts_.tolist()


# Recipes


def test_a_recipe_comes_back_from_its_dict_with_the_same_digest() -> None:
    recipe = Recipe(LabelVariety.from_slug("tall-uniform", gamma=0.25), "mean", True, True)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    canonical = (
        '{"include_repeats":true,"leave_out_inconsistent":true,"pool":"mean",'
        '"variety":{"gamma":0.25,"slug":"tall-uniform"}}'
    )
    assert recipe.digest == hashlib.sha256(canonical.encode()).hexdigest()
    assert recipe.digest != Recipe().digest
    assert Recipe(LabelVariety(gamma=0)).digest == Recipe(LabelVariety(gamma=0.0)).digest


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, "recipe_invalid"),
        ({"variety": "t2-clamp", "pool": "mean", "include_repeats": False}, "recipe_invalid"),
        ({**Recipe().to_dict(), "pool": 3}, "recipe_invalid"),
        ({**Recipe().to_dict(), "include_repeats": "no"}, "recipe_invalid"),
        ({**Recipe().to_dict(), "leave_out_inconsistent": 0}, "recipe_invalid"),
        ({**Recipe().to_dict(), "variety": {"slug": "t2-clamp", "gamma": "0.1"}}, "recipe_invalid"),
        ({**Recipe().to_dict(), "variety": {"slug": "t2-clamp", "gamma": True}}, "recipe_invalid"),
        ({**Recipe().to_dict(), "variety": {"slug": "t9-clamp", "gamma": 0.1}}, "unknown_variety"),
        ({**Recipe().to_dict(), "variety": {"slug": "t2-clamp", "gamma": 2}}, "gamma_out_of_range"),
        ({**Recipe().to_dict(), "pool": "vote"}, "unknown_pool"),
    ],
)
def test_a_recipe_that_is_none_is_refused(data: dict[str, Any], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        Recipe.from_dict(data)
    assert caught.value.code == code
