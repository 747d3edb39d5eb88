"""The formats beside CSV and JSON: what is in them, and that those who read them can."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from annotations import selectors as annotated
from annotations.models import Participant, Response, Study
from elicit.labels import CategorySet, LabelVariety, read_release
from elicit.labels.release_files import Recipe, ResponseColumns, diff_releases
from exports import selectors
from tests import factories as make
from tests import services
from tests.labels import releases
from tests.labels.releases import write

HOW_TO = (services.ROOT / "docs" / "how-to" / "load.md").read_text(encoding="utf-8")
needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow: make formats")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "birds-v1")
    return tmp_path / "birds-v1"


def run(code: str, folder: Path, *, missing: str = "") -> str:
    """What the code prints in a process of its own, offline, in ``folder``; ``missing`` can't be imported there."""
    hidden = f"import sys; sys.modules[{missing!r}] = None\n" if missing else ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    paths = [str(services.ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", hidden + textwrap.dedent(code)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# --- Arrays


def test_the_arrays_have_the_labels_of_the_tables(folder: Path) -> None:
    release = read_release(folder)
    assert np.load(folder / "images.npy").tolist() == [4, 11]
    assert (np.load(folder / "soft_labels.npy") == release.soft_labels).all()
    by_response = np.load(folder / "annotator_soft_labels.npy")
    assert by_response.shape == (7, 3)
    np.testing.assert_allclose(by_response[:3], [[0.6, 0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], rtol=0, atol=1e-12)


def test_the_layout_of_cifar10h_counts_the_likeliest_class_of_first_answers(folder: Path) -> None:
    counts, probs = (np.load(folder / f"cifar10h-{name}.npy") for name in ("counts", "probs"))
    # On 4: Bird by ana, Cat by bea; the repeat has no vote. On 11: Dog by both.
    assert counts.tolist() == [[1, 1, 0], [0, 0, 2]]
    assert probs.tolist() == [[0.5, 0.5, 0], [0, 0, 1]]
    assert (counts.dtype, probs.dtype) == (np.int64, np.float64)


def test_an_image_that_was_seen_as_a_repeat_only_has_no_vote(tmp_path: Path) -> None:
    responses = [releases.response("ana", 4, (0, 60.0)), releases.response("ana", 5, (0, 60.0), kind="repeat")]
    write(tmp_path / "x", responses=responses, recipe=Recipe(include_repeats=True))
    assert np.load(tmp_path / "x" / "cifar10h-counts.npy").tolist() == [[1, 0, 0], [0, 0, 0]]
    assert np.load(tmp_path / "x" / "cifar10h-probs.npy").tolist() == [[1, 0, 0], [0, 0, 0]]


# --- Parquet


@needs_pyarrow
def test_parquet_holds_labels_as_lists_of_fixed_size(folder: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    import pyarrow.parquet as parquet  # type: ignore[import-untyped, unused-ignore]

    release = read_release(folder)
    labels, responses = (parquet.read_table(folder / f"{name}.parquet") for name in ("soft_labels", "responses"))
    assert labels.schema.field("soft_label").type == responses.schema.field("soft_label").type
    assert labels.schema.field("soft_label").type == pa.list_(pa.float64(), 3)
    assert json.loads(labels.schema.metadata[b"categories"]) == ["Bird", "Cat", "Dog"]
    assert labels["soft_label"].to_pylist() == release.soft_labels.tolist()
    assert labels["image_sha256"].to_pylist() == list(release.image_sha256)
    assert responses["soft_label"].to_pylist() == release.response_soft_labels.tolist()
    assert responses.slice(3, 1).to_pylist() == [
        {
            "annotator": "bea",
            "image": 7,
            "image_sha256": releases.digest(7),
            "kind": "attention",
            "position": 3,
            "duration_ms": 4200,
            "named": ["Cat", "Dog", "Bird"],
            "percentages": [50.0, 30.0, 5.0],
            "impossible": [],
            "category_order": [],
            "soft_label": release.response_soft_labels[3].tolist(),
        }
    ]
    assert responses["duration_ms"][4].as_py() is None
    assert responses["impossible"][2].as_py() == ["Bird", "Dog"]
    assert responses["category_order"][0].as_py() == ["Dog", "Bird", "Cat"]


@needs_pyarrow
def test_parquet_has_groups_of_one_size_however_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as parquet

    from elicit.labels.release_files import columns, parquet_files

    many = [releases.response(f"a{number % 7}", number, (number % 3, 60.0)) for number in range(100)]
    monkeypatch.setattr(parquet_files, "_GROUP_SIZE", 3 * 30)
    digests = []
    for rows in (100, 7):
        monkeypatch.setattr(columns, "MOST_ROWS", rows)
        write(tmp_path / str(rows), responses=many)
        path = tmp_path / str(rows) / "responses.parquet"
        described = parquet.read_metadata(path)
        assert [described.row_group(group).num_rows for group in range(described.num_row_groups)] == [30, 30, 30, 10]
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_without_pyarrow_all_else_is_written_and_the_manifest_says_why(folder: Path, tmp_path: Path) -> None:
    run(
        """
        from pathlib import Path
        from tests.labels.releases import write
        write(Path("bare"))
        """,
        tmp_path,
        missing="pyarrow",
    )
    bare = read_release(tmp_path / "bare")
    assert set(bare.manifest["files_left_out"]) == {"responses.parquet", "soft_labels.parquet"}
    assert "pyarrow" in bare.manifest["files_left_out"]["soft_labels.parquet"]
    assert "`soft_labels.parquet`: pyarrow" in (tmp_path / "bare" / "DATASHEET.md").read_text(encoding="utf-8")
    whole = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    # What tells of the files differs, the data does not.
    words = {"DATASHEET.md", "README.md", "croissant.json"}
    assert {name: seal for name, seal in bare.manifest["files"].items() if name not in words} == {
        name: seal for name, seal in whole.items() if name not in words and not name.endswith(".parquet")
    }
    assert front_matter(tmp_path / "bare")["configs"][0]["data_files"][0]["path"] == "soft_labels.csv"


# --- Words


def front_matter(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_the_card_names_the_licence_and_files_that_are_there(folder: Path) -> None:
    header = front_matter(folder)
    assert header["license"] == "cc-by-4.0"
    assert header["pretty_name"] == "Birds: “which?”"
    assert header["size_categories"] == ["n<1K"]
    for config in header["configs"]:
        assert (folder / config["data_files"][0]["path"]).is_file()


def test_no_licence_is_made_up(tmp_path: Path) -> None:
    write(tmp_path / "x", facts={})
    assert "license" not in front_matter(tmp_path / "x")
    for name in ("README.md", "DATASHEET.md", "croissant.json"):
        assert "icence: none was given." in (tmp_path / "x" / name).read_text(encoding="utf-8"), name
    assert "license" not in json.loads((tmp_path / "x" / "croissant.json").read_text(encoding="utf-8"))


def test_the_datasheet_tells_how_the_labels_came_about(folder: Path) -> None:
    text = (folder / "DATASHEET.md").read_text(encoding="utf-8")
    for fact in (
        "what 100 people would say",
        "£2 for ten minutes",
        "A poster.",
        "1, 3",
        "> to more.",
        "- 3 not completed",
        "- 1 inconsistent",
        "4 main",
        "`t2-clamp` (gamma 0.1)",
        "cc-by-4.0",
    ):
        assert fact in text, fact


def test_croissant_seals_every_file_that_it_lists(folder: Path) -> None:
    croissant = json.loads((folder / "croissant.json").read_text(encoding="utf-8"))
    listed = {each["contentUrl"]: each["sha256"] for each in croissant["distribution"]}
    assert set(listed) == {path.name for path in folder.iterdir()} - {"croissant.json", "manifest.json"}
    for name, sha256 in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    for records in croissant["recordSet"]:
        header = (folder / f"{records['name']}.csv").read_text(encoding="utf-8").partition("\n")[0].split(",")
        assert {field["source"]["extract"]["column"] for field in records["field"]} <= set(header)
    assert [key for key in croissant if key.startswith("rai:")]


@pytest.mark.skipif(not find_spec("mlcroissant"), reason="needs mlcroissant: make readers")
def test_croissant_is_valid_and_its_records_can_be_read(folder: Path) -> None:
    told = run(
        """
        import json, logging
        import mlcroissant
        dataset = mlcroissant.Dataset("croissant.json")
        records = list(dataset.records("soft_labels"))
        responses = list(dataset.records("responses"))
        issues = dataset.metadata.ctx.issues
        print(json.dumps({
            "errors": sorted(issues.errors), "conforms": str(dataset.metadata.conforms_to),
            "rai": dataset.metadata.data_collection is not None,
            "labels": [[each[f"soft_labels/soft_{n}"] for n in range(3)] for each in records],
            "responses": len(responses),
        }))
        """,
        folder,
    )
    found = json.loads(told.splitlines()[-1])
    assert found["errors"] == []
    assert found["rai"]
    np.testing.assert_allclose(found["labels"], read_release(folder).soft_labels)
    assert found["responses"] == 7


# --- How to load it


def snippets() -> list[tuple[str, str, str]]:
    """(library, heading, code) of each snippet in the how-to; the library is what its heading's comment names."""
    return re.findall(r"<!-- needs (\S+) -->\n## ([^\n]+)\n.*?```python\n(.*?)```", HOW_TO, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("library", "code"),
    [
        pytest.param(
            library,
            code,
            id=heading,
            marks=[] if find_spec(library) else pytest.mark.skip(reason=f"needs {library}, which is not installed"),
        )
        for library, heading, code in snippets()
    ],
)
def test_the_snippets_of_the_documentation_run(folder: Path, library: str, code: str) -> None:
    assert run(code, folder.parent).strip(), "it shows nothing"


def test_there_is_a_snippet_for_every_library() -> None:
    assert [library for library, _, _ in snippets()] == ["numpy", "torch", "datasets", "pandas", "crowdkit", "cleanlab"]


# --- Differences


def test_what_changed_between_two_releases_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a")
    more = [each for each in releases.study() if (each.annotator, each.image) != ("bea", 11)]
    more += [releases.response("cat", 4, (0, 100.0), impossible={1, 2}), releases.response("cat", 20, (1, 50.0))]
    write(tmp_path / "b", responses=more, recipe=Recipe(LabelVariety(gamma=0.2)))
    a, b = read_release(tmp_path / "a"), read_release(tmp_path / "b")

    found = diff_releases(a, b)

    assert (found.images_added, found.images_removed) == ((20,), ())
    assert (found.annotators_added, found.annotators_removed) == (("cat",), ())
    assert found.responses_added == (("cat", 4, "main"), ("cat", 20, "main"))
    assert found.responses_removed == (("bea", 11, "main"),)
    assert found.recipe == {"variety.gamma": (0.1, 0.2)}
    # 11 was .025 .275 .7 and is .1 .1 .8 now: 7 and 10 points one way, 17.5 the other. 4: .3 .65 .05 to .5333 ...
    assert [change.image for change in found.labels_changed] == [4, 11]
    assert found.labels_changed[1].total_variation == pytest.approx(0.175)
    assert not found.is_empty
    assert diff_releases(a, a).is_empty
    assert diff_releases(b, a).responses_added == found.responses_removed


def test_releases_of_other_categories_are_not_compared(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", categories=CategorySet(("Bird", "Cat", "Fish")))
    with pytest.raises(Exception, match="different categories"):
        diff_releases(read_release(folder), read_release(tmp_path / "other"))


# --- From the database


@pytest.mark.django_db
def test_both_databases_give_the_same_bytes(study: Study) -> None:
    for number, person in enumerate(sorted(Participant.objects.all(), key=lambda each: each.platform_id)):
        person.annotator = f"Åa{number}" if number else "ab"
        person.save()
    release = make.make_release(study)
    plain = {
        name: seal["sha256"]
        for name, seal in release.manifest["files"].items()
        if name.endswith((".csv", ".json", ".jsonl", ".npy")) and name != "croissant.json"
    }
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(plain.items()))
    # The same on SQLite and on PostgreSQL, whose order of letters is its own.
    expected = "14bbbff973c6788f53063a385ae898d549f8682c2d022a02a5b43c74e8f01fb1"
    assert hashlib.sha256(lines.encode()).hexdigest() == expected


def built(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """What `tests.exports.built` prints in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.exports.built", *arguments],
        cwd=services.ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.postgres
def test_every_byte_is_the_same_on_both_databases_in_any_process(
    server_environment: dict[str, str], tmp_path: Path
) -> None:
    """The files, Parquet too, the manifest and the .zip; the hash seed, the time zone and the rows' order differ."""
    on_sqlite = built({"ELICIT_VAR": str(tmp_path / "sqlite"), "PYTHONHASHSEED": "1", "TZ": "UTC-3"})
    on_postgres = built(
        {**server_environment, "ELICIT_VAR": str(tmp_path / "postgres"), "PYTHONHASHSEED": "2", "TZ": "UTC5"},
        "backwards",
    )
    assert on_sqlite == on_postgres
    assert len({each["zip_sha256"] for each in on_sqlite.values()}) == 3
    parquet = {"responses.parquet", "soft_labels.parquet"}
    for each in on_sqlite.values():
        assert parquet <= set(each["manifest"]["files"]) | set(each["manifest"]["files_left_out"])


@pytest.mark.django_db
def test_responses_come_in_chunks_of_whole_sessions(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated.releases, "_RELEASED_AT_ONCE", 9)
    told: list[tuple[int, int]] = []
    chunks: list[ResponseColumns] = list(
        annotated.released_responses(
            study.pk,
            until=make.NOON,
            leave_out_inconsistent=False,
            told=lambda done, total: told.append((done, total)),
        )
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert [len(set(chunk.annotators)) for chunk in chunks] == [1, 1]
    assert [len(chunk) for chunk in chunks] == [5, 5]
    assert Response.objects.count() == 10


@pytest.mark.django_db
def test_the_datasheet_of_a_study_has_its_pay_and_its_consent() -> None:
    study = make.make_study(dataset=make.make_dataset(2), images_per_session=2, pay_note="Two pounds.")
    make.complete_session(study)
    release = make.make_release(study)
    text = (selectors.folder(release) / "DATASHEET.md").read_text(encoding="utf-8")
    assert "Two pounds." in text
    consent = annotated.current_consent(study)
    assert consent is not None
    assert f"> {consent.text.splitlines()[0]}".rstrip() in text
