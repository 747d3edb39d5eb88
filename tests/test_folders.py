from __future__ import annotations

import json
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from elicit import folders
from elicit.folders import Limits, Plan, Problem, Table, Unusable, Zips, open_source, plan, take
from elicit.labels import Refusal
from tests.pictures import encoded, picture, png, tarred, unpacked, zipped

LIMITS = Limits()


def planned(path: Path, limits: Limits = LIMITS, **how: Any) -> Plan:
    return plan(open_source(path), limits=limits, **how)


def labels(made: Plan) -> dict[str, str | None]:
    return {each.name: None if each.category is None else made.categories[each.category] for each in made.images}


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    assert "\n" not in caught.value.message
    return caught.value


def unusable(content: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(Unusable) as caught:
        take(content, limits)
    assert caught.value.todo
    return caught.value.what


# Layouts


FOLDERS = {"cat/10.png": png(1), "cat/2.png": png(2), "dog/1.png": png(3)}


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "folder"])
@pytest.mark.parametrize("around", ["", "my set/", "a/b/"])
def test_folders_are_categories_in_every_form(tmp_path: Path, form: str, around: str) -> None:
    files = {around + name: content for name, content in FOLDERS.items()}
    make = {"zip": zipped, "folder": unpacked}.get(form, tarred)
    source = open_source(make(tmp_path / f"set.{form}", files))

    made = plan(source, limits=LIMITS)

    assert made.categories == ("cat", "dog")
    assert labels(made) == {"cat/2.png": "cat", "cat/10.png": "cat", "dog/1.png": "dog"}
    assert [each.name for each in made.images] == ["cat/2.png", "cat/10.png", "dog/1.png"]
    assert made.problems == []
    read = dict(source.read({each.key for each in made.images}, LIMITS.file))
    assert [read[each.key] for each in made.images] == [png(2), png(1), png(3)]


def test_deeper_folders_belong_to_the_category_above_them(tmp_path: Path) -> None:
    made = planned(zipped(tmp_path / "x.zip", {"cat/a/1.png": png(), "cat/b/1.png": png(), "dog/1.png": png()}))
    assert labels(made) == {"cat/a/1.png": "cat", "cat/b/1.png": "cat", "dog/1.png": "dog"}


def test_categories_that_were_typed_fix_order_and_names(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FOLDERS | {"cow/1.png": png(4)})
    made = planned(path, categories=["Dog", "Cat", "Emu"])
    assert made.categories == ("Dog", "Cat", "Emu")
    assert labels(made) == {"cat/2.png": "Cat", "cat/10.png": "Cat", "dog/1.png": "Dog"}
    assert [(each.file, each.what) for each in made.problems] == [("cow/1.png", "there is no category “cow”")]


def test_images_without_labels_need_typed_categories(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"set/1.png": png(1), "set/2.png": png(2)})
    assert refused(lambda: planned(path)).code == "categories_missing"
    made = planned(path, categories=["cat", "dog"])
    assert labels(made) == {"1.png": None, "2.png": None}


def test_folders_that_are_no_categories_at_all_leave_the_images_without_labels(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"monday/1.png": png(1), "tuesday/1.png": png(2)})
    assert set(labels(planned(path, categories=["cat", "dog"])).values()) == {None}


def test_an_image_beside_the_folders_is_told(tmp_path: Path) -> None:
    made = planned(zipped(tmp_path / "x.zip", FOLDERS | {"stray.png": png(7)}))
    assert [str(each) for each in made.problems] == ["stray.png: is in no category's folder; move it into one"]
    assert len(made.images) == 3


def test_one_category_is_too_few(tmp_path: Path) -> None:
    files = {"train/cat/1.png": png(1), "test/cat/1.png": png(2)}
    assert refused(lambda: planned(zipped(tmp_path / "x.zip", files))).code == "categories_missing"


def test_folders_that_differ_in_case_or_in_the_writing_of_an_accent_are_one_category(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Élan") for form in ("NFC", "NFD"))
    files = {f"{composed}/1.png": png(1), f"{apart.lower()}/2.png": png(2), "cat/1.png": png(3)}
    made = planned(zipped(tmp_path / "x.zip", files))
    assert len(made.categories) == 2
    assert [each.category for each in made.images if "1" not in each.name or "cat" not in each.name] == [1, 1]


SPLITS = {f"{split}/{category}/1.png": png(seed) for seed, (split, category) in enumerate(
    (split, category) for split in ("train", "test", "val") for category in ("cat", "dog")
)}  # fmt: skip


def test_folders_of_splits_can_be_taken_together_or_one_by_one(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {f"data/{name}": content for name, content in SPLITS.items()})
    assert labels(planned(path)) == {name: name.split("/")[1] for name in SPLITS}
    assert labels(planned(path, part="test")) == {"test/cat/1.png": "cat", "test/dog/1.png": "dog"}
    assert len(planned(path, part="validation").images) == 2


def test_a_split_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert refused(lambda: planned(zipped(tmp_path / "x.zip", FOLDERS), part="train")).code == "split_missing"


# Tables


FLAT = {"a.png": png(1), "b.png": png(2), "c.png": png(3)}
CSV = b"file_name,label\nb.png,dog\na.png,cat\nc.png,dog\n"
JSONL = b"".join(
    json.dumps({"file_name": name, "label": label, "text": "words"}).encode() + b"\n"
    for name, label in (("b.png", "dog"), ("a.png", "cat"), ("c.png", "dog"))
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", CSV),
        ("labels.csv", b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n")),
        ("table.csv", CSV.replace(b",", b";")),
        ("metadata.tsv", CSV.replace(b",", b"\t")),
        ("metadata.jsonl", JSONL),
        ("metadata.csv", CSV.decode().encode("utf-16")),
        ("metadata.csv", CSV.replace(b"file_name", b"File").replace(b"label", b"Category")),
    ],
)
def test_a_table_among_the_images_labels_them_in_its_own_order(tmp_path: Path, name: str, content: bytes) -> None:
    made = planned(
        zipped(tmp_path / "x.zip", {f"set/{key}": each for key, each in FLAT.items()} | {f"set/{name}": content})
    )
    assert made.categories == ("cat", "dog")
    assert list(labels(made).items()) == [("b.png", "dog"), ("a.png", "cat"), ("c.png", "dog")]
    assert made.problems == []


def test_a_table_beside_the_images_goes_before_folders(tmp_path: Path) -> None:
    rows = b"file,label\ncat/2.png,x\n10.png,y\nset/dog/1.png,x\n"
    files = {f"set/{name}": content for name, content in FOLDERS.items()}
    made = planned(zipped(tmp_path / "x.zip", files), labels=Table("mine.csv", rows))
    assert labels(made) == {"cat/2.png": "x", "cat/10.png": "y", "dog/1.png": "x"}


def test_each_split_may_have_its_own_table(tmp_path: Path) -> None:
    files = {
        f"{split}/{name}": content
        for split in ("train", "test")
        for name, content in (FLAT | {"metadata.csv": CSV}).items()
    }
    path = zipped(tmp_path / "x.zip", files)
    assert len(planned(path).images) == 6
    assert list(labels(planned(path, part="test"))) == ["test/b.png", "test/a.png", "test/c.png"]


def test_one_table_may_list_all_splits(tmp_path: Path) -> None:
    rows = b"file_name,label\ntrain/a.png,cat\ntest/b.png,dog\n"
    path = zipped(tmp_path / "x.zip", {"train/a.png": png(1), "test/b.png": png(2), "metadata.csv": rows})
    made = planned(path, part="test")
    assert labels(made) == {"test/b.png": "dog"}
    assert made.problems == []


@pytest.mark.parametrize(
    "rows",
    [
        b"file_name,cat,dog,emu\na.png,3,1,0\nb.png,0,1,1\nc.png,0,0,9\n",
        b"file_name;cat;dog;emu\na.png;0,75;0,25;0\nb.png;0;,5;0,5\nc.png;0;0;1\n",
        b'{"file_name":"a.png","cat":3,"dog":1,"emu":0}\n{"file_name":"b.png","cat":0,"dog":1,"emu":1}\n'
        b'{"file_name":"c.png","cat":0,"dog":0,"emu":2}\n',
    ],
)
def test_columns_of_votes_or_probabilities_become_reference_distributions(tmp_path: Path, rows: bytes) -> None:
    table = Table("votes.jsonl" if rows.startswith(b"{") else "votes.csv", rows)
    made = planned(zipped(tmp_path / "x.zip", FLAT), labels=table)
    assert made.categories == ("cat", "dog", "emu")
    assert [each.distribution for each in made.images] == [(0.75, 0.25, 0), (0, 0.5, 0.5), (0, 0, 1)]
    # Where two are as likely nobody knows the reference label.
    assert [each.category for each in made.images] == [0, None, 2]


def test_a_label_beside_votes_is_the_reference_label(tmp_path: Path) -> None:
    rows = b"file_name,label,cat,dog,width,credit\na.png,dog,3,1,8,me\nb.png,cat,0,1,8,you\nc.png,cat,1,1,8,me\n"
    made = planned(zipped(tmp_path / "x.zip", FLAT), labels=Table("t.csv", rows), categories=["dog", "cat"])
    assert [each.category for each in made.images] == [0, 1, 1]
    assert made.images[0].distribution == (0.25, 0.75)


def test_further_columns_that_are_no_categories_are_passed_over(tmp_path: Path) -> None:
    rows = b"file_name,label,width,height\na.png,cat,1,2\nb.png,dog,3,4\nc.png,dog,5,6\n"
    made = planned(zipped(tmp_path / "x.zip", FLAT), labels=Table("t.csv", rows))
    assert made.categories == ("cat", "dog")
    assert made.images[0].distribution is None


def test_numbers_of_classes_are_those_of_the_typed_categories(tmp_path: Path) -> None:
    rows = b"file_name,label\na.png,1\nb.png,0\nc.png,2\n"
    made = planned(zipped(tmp_path / "x.zip", FLAT), labels=Table("t.csv", rows), categories=["cat", "dog"])
    assert labels(made) == {"a.png": "dog", "b.png": "cat"}
    assert [str(each) for each in made.problems] == [
        "t.csv, line 4: there is no category “2”; correct the label, or add the category"
    ]


def test_every_line_and_every_file_that_has_no_counterpart_is_told(tmp_path: Path) -> None:
    rows = b"file_name,cat,dog\na.png,1,1\nA.PNG,1,2\nx.png,1,1\n../b.png,1,1\nb.png,0,0\n"
    made = planned(zipped(tmp_path / "x.zip", FLAT), labels=Table("t.csv", rows))
    assert [(each.file, each.what) for each in made.problems] == [
        ("t.csv, line 3", "a.png was labelled in t.csv, line 2 already"),
        ("t.csv, line 4", "there is no image “x.png”"),
        ("t.csv, line 5", "has a name that leads out of its folder"),
        ("t.csv, line 6", "its numbers are all 0"),
        ("c.png", "has no line in t.csv"),
    ]
    assert [each.name for each in made.images] == ["a.png"]


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "", "many"])
def test_a_vote_that_is_no_number_is_told_by_its_line(tmp_path: Path, value: str) -> None:
    rows = f"file_name,cat,dog\na.png,1,1\nb.png,{value},1\nc.png,1,2\n".encode()
    made = planned(zipped(tmp_path / "x.zip", FLAT), labels=Table("t.csv", rows))
    assert [str(each) for each in made.problems] == [
        "t.csv, line 3: “cat” is no number, 0 or more; write the votes or the probability"
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (b"", "no lines"),
        (b"file_name,label\n", "no lines"),
        (b"name of it,label\na.png,cat\n", "no column is called file_name"),
        (b"file_name,label,Label\na.png,cat,cat\n", "two columns have one name"),
        (b"file_name,label\na.png,cat,2\n", "line 2 has 3 values, not 2"),
        (b'file_name,label\n"a.png,cat\n', "can't be read"),
        (b"file_name,label\n\xff.png,cat\n", "not UTF-8"),
        (b"file_name,label\n\0.png,cat\n", "it is no text"),
        (b"PK\x03\x04\0\0\0", "it is no text"),
    ],
)
def test_a_table_that_is_none_is_refused_as_a_whole(tmp_path: Path, rows: bytes, words: str) -> None:
    refusal = refused(lambda: planned(zipped(tmp_path / "x.zip", FLAT), labels=Table("t.csv", rows)))
    assert refusal.code == "labels_unreadable"
    assert words in refusal.message


@pytest.mark.parametrize("line", ["[1]", "{", "7", "[" * 100_000])
def test_a_line_that_is_no_json_object_is_told(tmp_path: Path, line: str) -> None:
    table = Table("t.jsonl", f'{{"file_name": "a.png", "label": "x"}}\n\n{line}\n'.encode())
    refusal = refused(lambda: planned(zipped(tmp_path / "x.zip", FLAT), labels=table))
    assert "t.jsonl: line 3 is no JSON object" in refusal.message


def test_two_tables_of_which_neither_is_called_metadata_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FLAT | {"a.csv": CSV, "b.csv": CSV})
    assert "several tables (a.csv, b.csv)" in refused(lambda: planned(path)).message


@pytest.mark.parametrize(
    "names", [["cat"], ["cat", "CAT "], ["cat", "x" * 81], ["cat", "d\u202eog"], [str(n) for n in range(1001)]]
)
def test_categories_that_can_not_be_are_refused(tmp_path: Path, names: Sequence[str]) -> None:
    path = zipped(tmp_path / "x.zip", FLAT)
    assert refused(lambda: planned(path, categories=names)).code == "categories_wrong"


# Hostile archives


def only_problem(path: Path, limits: Limits = LIMITS) -> Problem:
    """What is wrong beside three good images."""
    made = planned(path, limits)
    assert len(made.images) == 3
    [problem] = made.problems
    return problem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.png", "leads out of its folder"),
        ("cat/../../evil.png", "leads out of its folder"),
        ("cat\\..\\evil.png", "leads out of its folder"),
        ("/etc/evil.png", "absolute name"),
        ("C:\\evil.png", "absolute name"),
        ("cat/e\x07vil.png", "control signs"),
        ("cat/" + "e" * 300 + ".png", "longer than 300"),
        ("cat/inner.zip", "an archive within the archive"),
        ("cat/inner.tar.gz", "an archive within the archive"),
        ("cat/drawing.svg", "a type that is not taken"),
        ("cat/script.py", "a type that is not taken"),
        ("cat/photo", "a type that is not taken"),
        ("CAT/2.PNG", "the name of cat/2.png but for case"),
        ("cat/empty.png", "is empty"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_file_that_has_no_business_there_is_told_and_the_others_are_good(
    tmp_path: Path, name: str, words: str, form: str
) -> None:
    files = FOLDERS | {name: b"" if "empty" in name else png(9)}
    problem = only_problem((zipped if form == "zip" else tarred)(tmp_path / f"x.{form}", files))
    assert words in problem.what
    assert problem.todo
    assert problem.file.isprintable()
    assert len(problem.file) <= 300


def test_system_files_hidden_ones_and_papers_are_passed_over(tmp_path: Path) -> None:
    extra = [
        "__MACOSX/cat/._2.png",
        ".DS_Store",
        "cat/.hidden.png",
        ".git/x.png",
        "cat/Thumbs.db",
        "README.md",
        "LICENSE",
    ]
    made = planned(zipped(tmp_path / "x.zip", FOLDERS | dict.fromkeys(extra, b"x")))
    assert made.problems == []
    assert made.ignored == len(extra)
    assert len(made.images) == 3


def test_links_in_a_zip_a_tar_and_a_folder_are_not_followed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "x.zip", FOLDERS)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    assert only_problem(path).what == "is a link"

    path = tarred(tmp_path / "x.tar", FOLDERS)
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("cat/link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert only_problem(path).what == "is a link"

    folder = unpacked(tmp_path / "folder", FOLDERS)
    (folder / "cat" / "link.png").symlink_to(folder / "dog" / "1.png")
    assert only_problem(folder).what == "is a link"
    (folder / "cat" / "link.png").unlink()
    (folder / "loop.png").symlink_to(folder)
    assert only_problem(folder).what == "is a link"
    (folder / "loop.png").unlink()
    os.mkfifo(folder / "cat" / "pipe.png")
    assert only_problem(folder).what == "is no plain file"


def test_an_encrypted_file_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FOLDERS | {"cat/secret.png": png(9)})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"cat/secret.png"))
    content[entry + 8] |= 1
    path.write_bytes(content)
    assert only_problem(path).what == "is encrypted"


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    bomb = {f"cat/{n}.bmp": bytes(20 << 20) for n in range(4)}
    path = zipped(tmp_path / "bomb.zip", FOLDERS | bomb)
    assert path.stat().st_size < 1 << 18
    refusal = refused(lambda: planned(path))
    assert refusal.code == "too_much"
    assert "times as large" in refusal.message
    small = zipped(tmp_path / "small.zip", FOLDERS | {"cat/0.bmp": bytes(20 << 20)})
    assert "times its size" in only_problem(small).what


def test_a_packed_tar_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "bomb.tar.gz", FOLDERS | {"cat/0.bmp": bytes(20 << 20)})
    assert refused(lambda: planned(path, replace(LIMITS, total=10 << 20))).code == "too_much"


def test_a_tar_that_claims_terabytes_is_refused_at_its_header(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cat/huge.png")
    info.size = 1 << 42
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf() + bytes(1024))
    assert refused(lambda: planned(path)).code in ("too_much", "archive_unreadable")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    refusal = refused(lambda: planned(zipped(tmp_path / "x.zip", FOLDERS), replace(LIMITS, files=2)))
    assert refusal.code == "too_much"
    assert "more than 2 files" in refusal.message


def test_a_file_that_is_too_large_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(2 << 20)
    path = zipped(tmp_path / "x.zip", FOLDERS | {"cat/large.png": noise})
    assert only_problem(path, replace(LIMITS, file=1 << 20)).what == "is larger than 1 MB"


def test_a_zip_whose_list_of_files_would_fill_the_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "x.zip", FOLDERS)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<L", content, end + 12, 0xFFFFFFF0)
    path.write_bytes(content)
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: pytest.fail("it was read"))
    assert "too long" in refused(lambda: planned(path)).message


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_an_archive_that_is_cut_short_is_refused_as_a_whole(tmp_path: Path, form: str, keep: float) -> None:
    files = {f"{name}/{n}.png": png(n) for n in range(60) for name in ("cat", "dog")}
    path = (zipped if form == "zip" else tarred)(tmp_path / f"x.{form}", files)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert refused(lambda: planned(path)).code == "archive_unreadable"


def test_a_spoilt_header_of_a_tar_does_not_pass_for_its_end(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", FOLDERS)
    content = bytearray(path.read_bytes())
    start = content.index(b"cat/2.png")
    content[start : start + 512] = b"?" * 512
    path.write_bytes(content)
    assert refused(lambda: planned(path)).code == "archive_unreadable"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06", b"Rar!\x1a\x07\0", bytes(4096)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert refused(lambda: planned(tmp_path / "x.zip")).code in ("archive_unreadable", "no_images")


def test_a_path_that_is_not_there_and_one_that_is_no_file_are_told(tmp_path: Path) -> None:
    assert refused(lambda: open_source(tmp_path / "gone.zip")).code == "archive_not_found"
    os.mkfifo(tmp_path / "pipe")
    assert refused(lambda: open_source(tmp_path / "pipe")).code == "archive_unreadable"


def test_a_damaged_file_in_a_zip_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FOLDERS)
    with zipfile.ZipFile(path) as packed:
        place = packed.getinfo("cat/2.png").header_offset + 60
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    source = open_source(path)
    read = dict(source.read({each.key for each in plan(source, limits=LIMITS).images}, LIMITS.file))
    assert sum(isinstance(each, Problem) for each in read.values()) == 1


def test_several_zips_are_one_source(tmp_path: Path) -> None:
    parts = [zipped(tmp_path / f"{n}.zip", {name: content}) for n, (name, content) in enumerate(FOLDERS.items())]
    source = Zips(parts, "parts")
    made = plan(source, limits=LIMITS)
    assert list(labels(made)) == ["cat/2.png", "cat/10.png", "dog/1.png"]
    read = dict(source.read({each.key for each in made.images}, LIMITS.file))
    assert [read[each.key] for each in made.images] == [png(2), png(1), png(3)]


def test_nothing_but_other_files_is_refused_with_the_first_problem(tmp_path: Path) -> None:
    refusal = refused(lambda: planned(zipped(tmp_path / "x.zip", {"a.tiff": b"II*\0"})))
    assert refusal.code == "no_images"
    assert "a.tiff: is of a type that is not taken" in refusal.message


# Pixels


RGB = Image.fromarray(picture())


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "JPEG"])
def test_every_format_is_read(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    taken = take(encoded(RGB, form, **options), LIMITS)
    assert taken.pixels.shape == (6, 8, 3)
    assert taken.pixels.dtype == np.uint8
    assert taken.changes == ""
    if form not in ("GIF", "JPEG"):
        assert (taken.pixels == picture()).all()


@pytest.mark.parametrize("form", ["TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused_whatever_their_name(form: str) -> None:
    assert unusable(encoded(RGB, form)) == "is no image of a known type"


@pytest.mark.parametrize("content", [b"", b"x", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF"])
def test_bytes_that_are_no_image_are_refused(content: bytes) -> None:
    assert unusable(content)


LARGER = Image.fromarray(picture(height=64, width=64))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "JPEG"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(form: str, keep: float) -> None:
    content = encoded(LARGER, form)
    assert "damaged or cut short" in unusable(content[: int(len(content) * keep)])


def test_a_wrong_checksum_within_a_png_is_found() -> None:
    content = bytearray(encoded(LARGER))
    # The checksum of the image data, whose bytes still unpack.
    content[content.index(b"IEND") - 5] ^= 1
    assert "damaged" in unusable(bytes(content))


def png_header(width: int, height: int) -> bytes:
    """A PNG of so many pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 12_000, 100_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    assert "million" in unusable(png_header(side, side))


def test_the_limit_of_pixels_is_ours_to_set() -> None:
    assert "6 × 8" not in unusable(encoded(RGB), replace(LIMITS, pixels=47))
    assert take(encoded(RGB), replace(LIMITS, pixels=48)).pixels.shape == (6, 8, 3)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        taken = take(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options), LIMITS)
        assert taken.changes == "first frame of an animation"
        assert taken.pixels[0, 0].tolist() == [255, 0, 0]


def test_what_is_see_through_is_put_on_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    for image in (clear, clear.convert("LA"), clear.quantize()):
        taken = take(encoded(image), LIMITS)
        assert taken.changes == "on white where it was see-through"
        assert taken.pixels[0, 1].tolist() == [255, 255, 255]
    assert take(encoded(Image.new("RGBA", (2, 2), "red")), LIMITS).changes == ""


def test_sixteen_bits_are_reduced_rather_than_cut_off() -> None:
    deep = np.array([[0, 257 * 100, 257 * 255]], dtype=np.uint16)
    taken = take(encoded(Image.fromarray(deep)), LIMITS)
    assert taken.pixels[0, :, 0].tolist() == [0, 100, 255]
    assert taken.changes == "16 bits reduced to 8"


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_black_and_white_and_palettes_become_rgb(mode: str) -> None:
    taken = take(encoded(LARGER.convert(mode)), LIMITS)
    assert taken.pixels.shape == (64, 64, 3)
    assert (taken.pixels == np.asarray(LARGER.convert(mode).convert("RGB"))).all()


def test_cmyk_becomes_rgb() -> None:
    taken = take(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), LIMITS)
    assert taken.changes == "CMYK turned into RGB"
    red, green, blue = taken.pixels[4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_data_say(orientation: int) -> None:
    upright = Image.fromarray(picture(height=16, width=24))
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    taken = take(encoded(stored, "PNG", exif=exif), LIMITS)
    assert (taken.pixels == np.asarray(upright)).all()
    assert taken.changes == ("" if orientation == 1 else "turned as its EXIF data say")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_large_image_is_scaled_down_and_says_so(form: str) -> None:
    large = Image.linear_gradient("L").convert("RGB").resize((900, 400))
    taken = take(encoded(large, form), replace(LIMITS, side=90))
    assert taken.pixels.shape == (40, 90, 3)
    assert taken.changes == "scaled down from 900 × 400"
    expected = np.asarray(large.resize((90, 40), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(taken.pixels.astype(int) - expected).mean() < 3


def test_a_turned_and_scaled_image_has_both_done_to_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    taken = take(encoded(Image.new("RGB", (900, 400), "red"), "JPEG", exif=exif), replace(LIMITS, side=90))
    assert taken.pixels.shape == (90, 40, 3)
    assert taken.changes == "turned as its EXIF data say, scaled down from 900 × 400"


def test_a_file_larger_than_the_limit_is_refused() -> None:
    assert "larger than" in unusable(encoded(LARGER), replace(LIMITS, file=100))


@pytest.mark.parametrize("seed", range(40))
def test_images_with_random_damage_are_read_or_refused_and_nothing_else(seed: int) -> None:
    random = np.random.default_rng(seed)
    form = ("PNG", "JPEG", "WEBP", "GIF", "BMP")[seed % 5]
    content = bytearray(encoded(LARGER, form))
    for place in random.integers(0, len(content), size=8):
        content[place] = int(random.integers(0, 256))
    try:
        shape = take(bytes(content), LIMITS).pixels.shape
    except Unusable:
        return
    assert shape[2] == 3


def test_formats_are_as_documented() -> None:
    assert folders.FORMATS == ("PNG", "JPEG", "WEBP", "BMP", "GIF")
