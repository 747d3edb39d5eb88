from __future__ import annotations

import hashlib
import http.server
import inspect
import io
import os
import pickle
import socket
import struct
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from elicit import archives
from elicit.archives import (
    CIFAR10,
    CIFAR10_CATEGORIES,
    CIFAR100,
    CIFAR100_CATEGORIES,
    Cifar,
    Split,
    download_cifar,
    find_images,
    open_cifar,
    open_cifar10,
    pixel_sha256,
    sample_folder,
)
from elicit.labels import Refusal

Pixels = NDArray[np.uint8]

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


# Archives made for the tests


def pictures(count: int, seed: int) -> tuple[Pixels, list[int]]:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8)
    return pixels, random.integers(0, 10, size=count).tolist()


def planes(pixels: Pixels) -> bytes:
    """All red bytes of an image, then all green ones, then all blue ones, image after image."""
    return b"".join(image[:, :, colour].tobytes() for image in pixels for colour in range(3))


def binary(pixels: Pixels, labels: list[int]) -> bytes:
    raw = planes(pixels)
    return b"".join(bytes([label]) + raw[3072 * place :][:3072] for place, label in enumerate(labels))


def text(value: bytes) -> bytes:
    """A string as Python 2 wrote it: SHORT_BINSTRING or BINSTRING."""
    short = len(value) < 256
    return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value


def integer(value: int) -> bytes:
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def official_pickle(
    pixels: Pixels, labels: list[int], *, shape: tuple[int, int] | None = None, by_column: bool = False
) -> bytes:
    """A batch as Python 2 and its numpy pickled it by protocol 2, opcode by opcode."""
    rows, columns = shape or (len(pixels), 3072)
    raw = planes(pixels)
    if by_column:
        raw = np.frombuffer(raw, np.uint8).reshape(rows, columns).tobytes(order="F")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + integer(0) + b"\x85" + text(b"b") + b"\x87R("
        + integer(1) + integer(rows) + integer(columns) + b"\x86"
        + b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R("
        + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
        + (b"\x88" if by_column else b"\x89") + text(raw) + b"tb"
    )  # fmt: skip
    entries = {
        b"batch_label": text(b"testing batch 1 of 1"),
        b"labels": b"](" + b"".join(map(integer, labels)) + b"e",
        b"data": array,
        b"filenames": b"](" + b"".join(text(b"x_s_%06d.png" % place) for place in range(len(labels))) + b"e",
    }
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def modern_pickle(pixels: Pixels, labels: list[int]) -> bytes:
    """A batch as a Python 3 would write it again, by protocol 2."""
    data = np.frombuffer(planes(pixels), dtype=np.uint8).reshape(len(pixels), 3072)
    return pickle.dumps({b"labels": labels, b"data": data}, protocol=2)


def pack(path: Path, files: dict[str, bytes], folder: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def unpack(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


BATCHES = {name: pictures(3 + place, seed=place) for place, name in enumerate([*TRAIN, "test_batch"])}


def files(layout: str, names: list[str]) -> dict[str, bytes]:
    encode = {"python": official_pickle, "modern": modern_pickle, "binary": binary}[layout]
    suffix = ".bin" if layout == "binary" else ""
    meta = {"batches.meta.txt" if suffix else "batches.meta": b"cos\nsystem\n."}
    return meta | {name + suffix: encode(*BATCHES[name]) for name in names}


FOLDER = {"python": "cifar-10-batches-py", "modern": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"}

# The official python archive lists its files in an order like this.
SHUFFLED = ["data_batch_4", "test_batch", "data_batch_3", "data_batch_2", "data_batch_5", "data_batch_1"]


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    assert "\n" not in caught.value.message
    return caught.value


def drained(path: Path, split: Split = "test") -> Callable[[], object]:
    return lambda: list(open_cifar10(path).batches(split))


# Identity


def test_the_identity_of_an_image_is_its_size_and_its_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert pixel_sha256(pixels) == hashlib.sha256(b"4x2:RGB:" + bytes(range(24))).hexdigest()
    assert pixel_sha256(pixels.reshape(4, 2, 3)) != pixel_sha256(pixels)
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert pixel_sha256(turned) == pixel_sha256(pixels)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 4)), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 3)), np.zeros((1, 2, 4, 3), np.uint8)]
)
def test_pixels_of_another_form_have_no_identity(pixels: Any) -> None:
    with pytest.raises(ValueError, match="uint8"):
        pixel_sha256(pixels)


def test_there_are_ten_categories_in_the_official_order() -> None:
    assert len(CIFAR10_CATEGORIES) == 10
    assert list(CIFAR10_CATEGORIES) == sorted(CIFAR10_CATEGORIES)


# The official layouts


@pytest.mark.parametrize("layout", ["python", "modern", "binary"])
@pytest.mark.parametrize("form", ["tar", "folder", "parent"])
def test_every_layout_gives_the_same_images(tmp_path: Path, layout: str, form: str) -> None:
    content = files(layout, SHUFFLED)
    if form == "tar":
        path = pack(tmp_path / "cifar.tar.gz", content, FOLDER[layout])
    else:
        unpacked = unpack(tmp_path / FOLDER[layout], content)
        path = unpacked if form == "folder" else tmp_path
    archive = open_cifar10(path)
    assert archive.splits == ("test", "train")
    assert ("binary" if layout == "binary" else "python") in archive.origin
    assert ("cifar.tar.gz" if form == "tar" else FOLDER[layout]) in archive.origin

    pixels, labels, indices = archive.load("test")
    assert (pixels == BATCHES["test_batch"][0]).all()
    assert labels.tolist() == BATCHES["test_batch"][1]
    assert indices.tolist() == list(range(8))
    assert [str(array.dtype) for array in (pixels, labels, indices)] == ["uint8", "int64", "int64"]

    # 3 + 4 + 5 + 6 + 7 training images, in the order of the batches whatever the archive's.
    assert [(batch.start, len(batch.labels)) for batch in archive.batches("train")] == [
        (0, 3),
        (3, 4),
        (7, 5),
        (12, 6),
        (18, 7),
    ]
    pixels, labels, indices = archive.load("train")
    assert (pixels == np.concatenate([BATCHES[name][0] for name in TRAIN])).all()
    assert labels.tolist() == [label for name in TRAIN for label in BATCHES[name][1]]
    assert indices.tolist() == list(range(25))


def test_an_array_may_be_stored_column_by_column(tmp_path: Path) -> None:
    pixels, labels = BATCHES["test_batch"]
    folder = unpack(tmp_path / "some", {"test_batch": official_pickle(pixels, labels, by_column=True)})
    assert (open_cifar10(folder).load("test")[0] == pixels).all()


def test_an_archive_can_be_read_twice_and_in_turns(tmp_path: Path) -> None:
    archive = open_cifar10(pack(tmp_path / "cifar.tar.gz", files("binary", SHUFFLED), "x"))
    first, second = archive.batches("train"), archive.batches("train")
    assert next(first).start == next(second).start == 0
    assert next(first).start == next(second).start == 3


@pytest.mark.parametrize(("there", "gone"), [(["test_batch"], "train"), (TRAIN, "test")])
def test_a_split_that_is_not_there_is_refused_by_name(tmp_path: Path, there: list[str], gone: Split) -> None:
    archive = open_cifar10(pack(tmp_path / "cifar.tar.gz", files("binary", there), "x"))
    refusal = refused(lambda: archive.batches(gone))
    assert refusal.code == "split_missing"
    assert gone in refusal.message


def test_a_missing_batch_is_refused_rather_than_closing_the_gap(tmp_path: Path) -> None:
    content = files("python", [name for name in SHUFFLED if name != "data_batch_3"])
    refusal = refused(lambda: open_cifar10(unpack(tmp_path / "some", content)))
    assert refusal.code == "archive_unreadable"
    assert "data_batch_3 is missing" in refusal.message


def test_where_both_layouts_lie_together_no_pickle_is_opened(tmp_path: Path) -> None:
    content = files("binary", ["test_batch"]) | {"test_batch": b"cos\nsystem\n."}
    archive = open_cifar10(unpack(tmp_path / "both", content))
    assert len(archive.load("test")[1]) == 8


# CIFAR-100: two labels an image, one file a split


def pictures_of_100(count: int, seed: int) -> tuple[Pixels, list[int]]:
    pixels, _ = pictures(count, seed)
    return pixels, np.random.default_rng(seed).integers(0, 100, size=count).tolist()


HUNDRED = {"train": pictures_of_100(7, seed=1), "test": pictures_of_100(5, seed=2)}


def hundred(layout: str) -> dict[str, bytes]:
    if layout == "binary":
        # The coarse label comes first.
        return {
            f"{split}.bin": b"".join(
                bytes([label % 20, label]) + planes(pixels[place][np.newaxis]) for place, label in enumerate(labels)
            )
            for split, (pixels, labels) in HUNDRED.items()
        }
    made = {}
    for split, (pixels, labels) in HUNDRED.items():
        fine = official_pickle(pixels, labels).replace(text(b"labels"), text(b"fine_labels"))
        coarse = text(b"coarse_labels") + b"](" + b"".join(integer(label % 20) for label in labels) + b"e"
        made[split] = fine[:-2] + coarse + b"u."
    return made | {"meta": b"cos\nsystem\n."}


@pytest.mark.parametrize("layout", ["python", "binary"])
@pytest.mark.parametrize("form", ["tar", "folder", "parent"])
def test_cifar_100_is_read_with_its_fine_labels(tmp_path: Path, layout: str, form: str) -> None:
    name = f"cifar-100-{layout}"
    if form == "tar":
        path = pack(tmp_path / f"{name}.tar.gz", hundred(layout), name)
    else:
        unpacked = unpack(tmp_path / name, hundred(layout))
        path = unpacked if form == "folder" else tmp_path

    archive = open_cifar(path)

    assert archive.cifar is CIFAR100
    assert archive.origin == f"{path.name if form == 'tar' else name} (official {layout} layout)"
    for split in archive.splits:
        pixels, labels, indices = archive.load(split)
        assert (pixels == HUNDRED[split][0]).all()
        assert labels.tolist() == HUNDRED[split][1]
        assert indices.tolist() == list(range(len(labels)))


def test_cifar_100_does_not_pass_for_cifar_10(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "cifar-100-binary", hundred("binary"))
    assert "it holds CIFAR-100, not CIFAR-10" in refused(lambda: open_cifar10(folder)).message
    assert find_images(str(folder), tmp_path)[0].cifar is CIFAR100


def test_there_are_a_hundred_categories_in_the_official_order() -> None:
    assert len(CIFAR100_CATEGORIES) == 100
    assert list(CIFAR100_CATEGORIES) == sorted(CIFAR100_CATEGORIES)
    assert CIFAR100_CATEGORIES[:2] == ("Apple", "Aquarium fish")


def test_a_label_of_cifar_100_beyond_its_categories_is_told(tmp_path: Path) -> None:
    content = {"test.bin": bytes([0, 100]) + bytes(3072)}
    archive = open_cifar(unpack(tmp_path / "x", content))
    assert "0..99: 100" in refused(lambda: archive.load("test")).message


def test_a_file_of_cifar_100_comes_in_parts_of_ten_thousand(tmp_path: Path) -> None:
    archive = open_cifar(unpack(tmp_path / "x", {"train.bin": bytes(3074 * 20_001)}))
    assert [(batch.start, len(batch.labels)) for batch in archive.batches("train")] == [
        (0, 10_000), (10_000, 10_000), (20_000, 1),
    ]  # fmt: skip


def test_an_evil_pickle_of_cifar_100_is_refused_by_name(tmp_path: Path) -> None:
    archive = open_cifar(unpack(tmp_path / "x", {"test": b"cos\nsystem\n."}))
    refusal = refused(lambda: archive.load("test"))
    assert refusal.code == "pickle_refused"
    assert "os.system" in refusal.message


# Broken and alien archives


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    refusal = refused(lambda: open_cifar10(tmp_path / "nowhere.tar.gz"))
    assert refusal.code == "archive_not_found"
    assert "nowhere.tar.gz" in refusal.message


@pytest.mark.parametrize("keep", [0, 5, 0.3, 0.9, -1, -5])
def test_a_truncated_archive_is_told_when_it_is_opened(tmp_path: Path, keep: float) -> None:
    path = pack(tmp_path / "cifar.tar.gz", files("binary", SHUFFLED), "x")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    refusal = refused(lambda: open_cifar10(path))
    assert refusal.code == "archive_unreadable"
    assert "cifar.tar.gz" in refusal.message


def test_an_archive_that_breaks_after_it_was_opened_is_told(tmp_path: Path) -> None:
    path = pack(tmp_path / "cifar.tar.gz", files("binary", SHUFFLED), "x")
    archive = open_cifar10(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert refused(lambda: archive.load("test")).code == "archive_unreadable"
    path.unlink()
    assert refused(lambda: archive.load("test")).code == "archive_unreadable"


def test_what_is_neither_file_nor_folder_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(lambda: open_cifar10(tmp_path / "pipe")).code == "archive_unreadable"


def test_a_spoilt_header_does_not_pass_for_the_end(tmp_path: Path) -> None:
    # A tar whose second header is garbage reads like one that ends there; here the checksum tells.
    path = pack(tmp_path / "cifar.tar.gz", files("binary", ["test_batch", *TRAIN]), "x")
    raw = zlib.decompress(path.read_bytes(), wbits=31)
    start = raw.index(b"x/data_batch_1.bin")
    spoilt = zlib.compressobj(wbits=-15)
    body = spoilt.compress(raw[:start] + b"?" * 512 + raw[start + 512 :]) + spoilt.flush()
    header, trailer = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", struct.pack("<II", zlib.crc32(raw), len(raw))
    path.write_bytes(header + body + trailer)
    assert refused(lambda: open_cifar10(path)).code == "archive_unreadable"


def test_alien_files_are_told(tmp_path: Path) -> None:
    alien = tmp_path / "alien.tar.gz"
    for content in (b"hello", b"PK\x03\x04" + bytes(100), bytes(2048)):
        alien.write_bytes(content)
        assert refused(lambda: open_cifar10(alien)).code == "archive_unreadable"
    pack(alien, {"readme.html": b"<p>", "test_batch.txt": b"", "batch": b""}, "x")
    assert "no CIFAR-10 batches" in refused(lambda: open_cifar10(alien)).message
    assert refused(lambda: open_cifar10(unpack(tmp_path / "alien", {"a.png": b""}))).code == "archive_unreadable"


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("x/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert refused(lambda: open_cifar10(path)).code == "archive_unreadable"


RECORD = binary(*pictures(1, seed=9))


@pytest.mark.parametrize(
    "content",
    [b"", RECORD[:-1], RECORD + b"\0", RECORD * 2 + RECORD[:100], bytes(3073 * 10_001), b"\x0a" + RECORD[1:]],
    ids=["empty", "short", "long", "ragged", "too many", "label 10"],
)
def test_records_that_are_no_records_are_told(tmp_path: Path, content: bytes) -> None:
    refusal = refused(drained(unpack(tmp_path / "some", {"test_batch.bin": content})))
    assert refusal.code == "archive_unreadable"
    assert "test_batch.bin" in refusal.message


def test_ten_thousand_records_are_not_too_many(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "some", {"test_batch.bin": bytes(3073 * 10_000)})
    assert [len(batch.labels) for batch in open_cifar10(folder).batches("test")] == [10_000]


PIXELS, LABELS = BATCHES["test_batch"]
GOOD = official_pickle(PIXELS, LABELS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD[:100],
        b"\x80\x02K\x01.",
        b"\x80\x02}.",
        b"\x80\x7f.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cnumpy\ndtype\n.",
        official_pickle(PIXELS, LABELS[:-1]),
        official_pickle(PIXELS, [*LABELS[:-1], 10]),
        official_pickle(PIXELS, [*LABELS[:-1], -1]),
        official_pickle(PIXELS, LABELS, shape=(7, 3072)),
        official_pickle(PIXELS, LABELS, shape=(16, 1536)),
        official_pickle(PIXELS, LABELS, shape=(-8, -3072)),
        official_pickle(PIXELS[:0], []),
        GOOD.replace(text(b"u1"), text(b"O8")),
        GOOD.replace(text(b"data"), text(b"atad")),
        pickle.dumps({b"data": [1, 2], b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, True]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": "12"}, protocol=2),
    ],
)
def test_pickles_that_are_no_batches_are_told(tmp_path: Path, content: bytes) -> None:
    refusal = refused(drained(unpack(tmp_path / "some", {"test_batch": content})))
    assert refusal.code == "archive_unreadable"
    assert "test_batch" in refusal.message


class _Evil:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self._made = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._made


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_evil_pickle_is_refused_by_name_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made-by-the-pickle"
    for call, arguments, name in (
        (os.mkdir, (str(target),), "mkdir"),
        (exec, (f"open({str(target)!r}, 'w')",), "exec"),
        (getattr, ("", "join"), "getattr"),
    ):
        content = pickle.dumps({b"data": _Evil(call, *arguments)}, protocol=protocol)
        folder = tmp_path / f"{name}-{protocol}"
        refusal = refused(drained(unpack(folder, {"test_batch": content})))
        assert refusal.code == "pickle_refused"
        assert name in refusal.message
        assert "test_batch" in refusal.message
        assert not target.exists()


def test_an_evil_pickle_in_an_archive_is_refused_too(tmp_path: Path) -> None:
    path = pack(tmp_path / "evil.tar.gz", {"test_batch": b"cos\nsystem\n(U\x04truetR."}, "cifar-10-batches-py")
    refusal = refused(drained(path))
    assert refusal.code == "pickle_refused"
    assert "os.system" in refusal.message


def test_a_pickle_can_not_change_what_it_may_call(tmp_path: Path) -> None:
    # BUILD with a state for the attributes of the global itself.
    content = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}U\x05_callNs\x86b."
    assert refused(drained(unpack(tmp_path / "evil", {"test_batch": content}))).code == "archive_unreadable"
    assert len(open_cifar10(unpack(tmp_path / "good", {"test_batch": GOOD})).load("test")[1]) == 8


def test_a_pickle_longer_than_any_batch_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(CIFAR10, most=0)
    monkeypatch.setattr(archives, "CIFAR10", small)
    monkeypatch.setattr(archives, "_BOTH", (small, CIFAR100))
    refusal = refused(drained(unpack(tmp_path / "long", {"test_batch": GOOD})))
    assert "too long" in refusal.message


# Folders of PNGs


def png_folder(path: Path, labels: dict[int, int]) -> Pixels:
    path.mkdir()
    pixels, _ = pictures(len(labels), seed=3)
    for image, (index, label) in zip(pixels, sorted(labels.items()), strict=True):
        Image.fromarray(image).save(path / f"cifar10_{index:02d}_{label}.png")
    (path / "mnist_00_5.png").write_bytes(b"another data set")
    return pixels


def test_a_folder_of_pngs_has_index_and_label_in_the_names(tmp_path: Path) -> None:
    expected = png_folder(tmp_path / "png", {0: 3, 1: 8, 2: 0, 7: 9, 8: 1, 100: 6})
    archive = open_cifar10(tmp_path / "png")
    assert archive.splits == ("test",)
    assert [(batch.start, batch.labels.tolist()) for batch in archive.batches("test")] == [
        (0, [3, 8, 0]),
        (7, [9, 1]),
        (100, [6]),
    ]
    pixels, labels, indices = archive.load("test")
    assert (pixels == expected).all()
    assert labels.tolist() == [3, 8, 0, 9, 1, 6]
    assert indices.tolist() == [0, 1, 2, 7, 8, 100]
    assert refused(lambda: archive.batches("train")).code == "split_missing"


def test_pngs_that_are_none_are_told(tmp_path: Path) -> None:
    png_folder(tmp_path / "png", {0: 3})
    path = tmp_path / "png" / "cifar10_00_3.png"
    good = path.read_bytes()
    Image.new("RGB", (16, 32)).save(path)
    wrong_size = path.read_bytes()
    for content in (b"", b"hello", good[: len(good) // 2], wrong_size):
        path.write_bytes(content)
        refusal = refused(drained(tmp_path / "png"))
        assert refusal.code == "archive_unreadable"
        assert "cifar10_00_3.png" in refusal.message


@pytest.mark.parametrize("name", ["cifar10_01_10.png", "cifar10_000_4.png"])
def test_names_that_contradict_are_told(tmp_path: Path, name: str) -> None:
    png_folder(tmp_path / "png", {0: 3})
    (tmp_path / "png" / name).write_bytes(b"")
    refusal = refused(lambda: open_cifar10(tmp_path / "png"))
    assert refusal.code == "archive_unreadable"
    assert name in refusal.message or "cifar10_00_3.png" in refusal.message


def test_grey_pngs_and_transparent_ones_become_colour(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    Image.new("L", (32, 32), 7).save(tmp_path / "png" / "cifar10_0_1.png")
    Image.new("RGBA", (32, 32), (1, 2, 3, 255)).save(tmp_path / "png" / "cifar10_1_1.png")
    pixels, _, _ = open_cifar10(tmp_path / "png").load("test")
    assert pixels[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


# The sample


@pytest.fixture
def foolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called foolbox that carries images and can't be imported."""
    package = tmp_path / "site" / "foolbox"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('never import me')", encoding="utf-8")
    png_folder(package / "data", {0: 3, 1: 8})
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "foolbox", raising=False)
    return package


@pytest.fixture
def no_foolbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "sample_folder", lambda: None)


def test_the_sample_is_found_without_importing_its_package(foolbox: Path) -> None:
    assert sample_folder() == foolbox / "data"
    assert "foolbox" not in sys.modules


def test_a_package_without_the_images_is_no_sample(foolbox: Path) -> None:
    for path in (foolbox / "data").iterdir():
        path.unlink()
    assert sample_folder() is None
    (foolbox / "data").rmdir()
    assert sample_folder() is None


def test_the_word_sample_opens_it(foolbox: Path, tmp_path: Path) -> None:
    archive, note = find_images("sample", tmp_path / "kept")
    assert archive.load("test")[1].tolist() == [3, 8]
    assert "foolbox" in archive.origin
    assert "foolbox" in note


# The download


@contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sending(content: bytes, *, promised: int | None = None, status: int = 200) -> Callable[[Any], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if promised is None else promised))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def official(tmp_path: Path) -> bytes:
    return pack(tmp_path / "official.tar.gz", files("python", SHUFFLED), "cifar-10-batches-py").read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def official_at(url: str, content: bytes) -> Cifar:
    """CIFAR-10, as if that were its official archive."""
    return replace(CIFAR10, url=url, sha256=sha256(content))


def test_a_download_takes_its_name_once_its_checksum_is_right(tmp_path: Path, official: bytes) -> None:
    target = tmp_path / "kept" / "cifar.tar.gz"
    told: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        assert not target.exists()
        assert target.with_name("cifar.tar.gz.part").exists()
        told.append((done, total))

    with serving(sending(official)) as url:
        assert download_cifar(target, official_at(url, official), progress=progress) == target
    assert target.read_bytes() == official
    assert told[-1] == (len(official), len(official))
    assert [path.name for path in target.parent.iterdir()] == ["cifar.tar.gz"]
    assert open_cifar10(target).splits == ("test", "train")


def test_a_download_with_another_checksum_is_thrown_away(tmp_path: Path, official: bytes) -> None:
    target = tmp_path / "kept" / "cifar.tar.gz"
    with serving(sending(official[:-1] + b"?")) as url:
        refusal = refused(lambda: download_cifar(target, official_at(url, official)))
    assert refusal.code == "checksum_mismatch"
    assert sha256(official) in refusal.message
    assert list(target.parent.iterdir()) == []


def test_a_kept_file_survives_a_download_that_fails(tmp_path: Path, official: bytes) -> None:
    target = tmp_path / "cifar.tar.gz"
    target.write_bytes(b"kept")
    with serving(sending(b"other")) as url:
        assert (
            refused(lambda: download_cifar(target, replace(CIFAR10, url=url, sha256="0"))).code == "checksum_mismatch"
        )
    assert target.read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sending(b"gone", status=404), "404|Not Found"),
        (sending(b"half", promised=1000), "ended after 4 of 1,000 bytes"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "nonsense"),
        (lambda handler: None, "closed"),
    ],
)
def test_a_download_that_fails_is_told(tmp_path: Path, answer: Callable[[Any], None], reason: str) -> None:
    with serving(answer) as url:
        refusal = refused(lambda: download_cifar(tmp_path / "cifar.tar.gz", replace(CIFAR10, url=url, sha256="0")))
    assert refusal.code == "download_failed"
    assert any(part in refusal.message for part in reason.split("|"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/x", "nonsense", "http://a b/", "http://[/"])
def test_only_the_web_is_fetched(tmp_path: Path, url: str) -> None:
    assert refused(lambda: download_cifar(tmp_path / "x", replace(CIFAR10, url=url))).code == "download_failed"


def test_a_target_that_can_not_be_written_is_told(tmp_path: Path, official: bytes) -> None:
    (tmp_path / "file").write_bytes(b"")
    with serving(sending(official)) as url:
        refusal = refused(lambda: download_cifar(tmp_path / "file" / "cifar.tar.gz", official_at(url, official)))
    assert refusal.code == "download_failed"


def test_a_refused_connection_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refusal = refused(lambda: download_cifar(tmp_path / "x", replace(CIFAR10, url=f"http://127.0.0.1:{port}/")))
    assert refusal.code == "download_failed"


def test_without_a_network_it_gives_up_even_in_the_name_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        release.wait(30)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    refusal = refused(lambda: download_cifar(tmp_path / "x", connect_timeout=0.3))
    assert time.monotonic() - start < 10  # unhindered it would wait 30 s
    release.set()
    assert refusal.code == "download_failed"
    assert "0.3 seconds" in refusal.message


def test_a_server_that_never_answers_is_given_up_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        refusal = refused(lambda: download_cifar(tmp_path / "x", replace(CIFAR10, url=url), connect_timeout=0.3))
        assert time.monotonic() - start < 10  # unhindered it would wait 30 s
    assert refusal.code == "download_failed"


def test_left_to_itself_it_gives_up_within_five_seconds() -> None:
    assert inspect.signature(download_cifar).parameters["connect_timeout"].default < 5


# Which images


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, official: bytes) -> Iterator[list[int]]:
    """The official address leads to a server of the test; the list grows with each request."""
    asked: list[int] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(1)
        sending(official)(handler)

    with serving(answer) as url:
        monkeypatch.setattr(archives, "CIFAR10", official_at(f"{url}/cifar-10-python.tar.gz", official))
        yield asked


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.parametrize("choice", [None, "download"])
def test_a_download_is_kept_and_not_fetched_again(tmp_path: Path, network: list[int], choice: str | None) -> None:
    for _ in range(2):
        archive, note = find_images(choice, tmp_path / "kept")
        assert archive.splits == ("test", "train")
        assert "download" in note
    assert network == [1]


def test_a_path_is_taken_at_its_word(tmp_path: Path, no_network: None) -> None:
    path = pack(tmp_path / "mine.tar.gz", files("binary", ["test_batch"]), "x")
    archive, note = find_images(str(path), tmp_path / "kept")
    assert archive.splits == ("test",)
    assert "mine.tar.gz" in note
    refusal = refused(lambda: find_images(str(tmp_path / "typo"), tmp_path / "kept"))
    assert refusal.code == "archive_not_found"


def test_without_a_network_the_sample_stands_in_and_the_note_says_why(
    tmp_path: Path, no_network: None, foolbox: Path
) -> None:
    archive, note = find_images(None, tmp_path / "kept")
    assert len(archive.load("test")[1]) == 2
    assert "Name or service not known" in note
    assert "sample" in note


def test_who_asks_for_the_download_gets_it_or_an_error(tmp_path: Path, no_network: None, foolbox: Path) -> None:
    assert refused(lambda: find_images("download", tmp_path / "kept")).code == "download_failed"


def test_with_neither_network_nor_sample_there_are_no_images(
    tmp_path: Path, no_network: None, no_foolbox: None
) -> None:
    refusal = refused(lambda: find_images(None, tmp_path / "kept"))
    assert refusal.code == "images_missing"
    assert "foolbox" in refusal.message
    assert refused(lambda: find_images("sample", tmp_path / "kept")).code == "sample_missing"


# Real images, where they are at hand


def test_the_official_test_set_has_a_thousand_images_of_each_class(shared_data: Path) -> None:
    archive = open_cifar10(shared_data / "cifar-10-binary-test-only.tar.gz")
    assert archive.splits == ("test",)
    pixels, labels, indices = archive.load("test")
    assert pixels.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert (indices == np.arange(10_000)).all()
    # The classes that most of the people of CIFAR-10H saw.
    votes = np.load(shared_data / "cifar10h" / "cifar10h-counts.npy")
    assert (votes.argmax(axis=1) == labels).mean() > 0.98
    assert refused(lambda: archive.load("train")).code == "split_missing"


def test_the_sample_is_the_beginning_of_the_test_set(shared_data: Path) -> None:
    folder = sample_folder()
    if folder is None:
        pytest.skip("the package foolbox, which carries the sample, is not installed")
    ours, labels, indices = open_cifar10(folder).load("test")
    batch = next(open_cifar10(shared_data / "cifar-10-binary-test-only.tar.gz").batches("test"))
    assert (labels == batch.labels[indices]).all()
    # The shared pixels come from a JPEG copy.
    assert np.abs(ours.astype(int) - batch.pixels[indices]).mean() < 10
