"""CIFAR-10 and CIFAR-100 images out of the archives in which people have them; standard library and numpy.

Nothing is unpacked to the disk, and a pickle can ask for nothing but the array that the official files hold.
Pillow is needed for folders of PNGs alone. Other images: :mod:`elicit.folders`.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import io
import pickle
import queue
import re
import tarfile
import threading
import urllib.error
import urllib.request
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elicit.labels.errors import Refusal

Split: TypeAlias = Literal["test", "train"]
Pixels: TypeAlias = NDArray[np.uint8]
Progress: TypeAlias = Callable[[int, int | None], None]
"""Called as ``progress(bytes so far, bytes in all or None)``."""

CIFAR10_CATEGORIES = (
    "Airplane",
    "Automobile",
    "Bird",
    "Cat",
    "Deer",
    "Dog",
    "Frog",
    "Horse",
    "Ship",
    "Truck",
)
# The fine labels, in the order of the official files.
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CATEGORIES = tuple(name.replace("_", " ").capitalize() for name in _FINE.split())

_SIDE = 32
_PLANES = 3 * _SIDE * _SIDE
_MOST_AT_ONCE = 10_000
_PIECE = 1 << 18
_READ_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the two sets: how its official files are called, what is in them and where they are fetched.

    ``files``: those of each split, in the order of the images. ``sizes``: images of each split, as published.
    ``labels``: the key of the labels in a python batch. ``label_bytes``: those before the pixels of a binary
    record, of which the last is the label. ``most``: records of a file.
    """

    name: str
    categories: tuple[str, ...]
    files: Mapping[Split, tuple[str, ...]]
    sizes: Mapping[Split, int]
    labels: str
    label_bytes: int
    most: int
    url: str
    sha256: str

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def record(self) -> int:
        """Bytes of a binary record."""
        return self.label_bytes + _PLANES


CIFAR10 = Cifar(
    name="CIFAR-10",
    categories=CIFAR10_CATEGORIES,
    files={"test": ("test_batch",), "train": tuple(f"data_batch_{number}" for number in range(1, 6))},
    sizes={"test": 10_000, "train": 50_000},
    labels="labels",
    label_bytes=1,
    most=10_000,
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = Cifar(
    name="CIFAR-100",
    categories=CIFAR100_CATEGORIES,
    files={"test": ("test",), "train": ("train",)},
    sizes={"test": 10_000, "train": 50_000},
    labels="fine_labels",
    label_bytes=2,  # the coarse label, then the fine one
    most=50_000,
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
_BOTH = (CIFAR10, CIFAR100)

_MEMBER = re.compile(r"(?:.*/)?(test_batch|data_batch_[1-5]|test|train)(\.bin)?")
_PNG = re.compile(r"cifar10_(\d{1,6})_(\d{1,3})\.png")
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")

_BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, LZMAError)


def pixel_sha256(pixels: Pixels) -> str:
    """The identity of an image: sha256 of ``<width>x<height>:RGB:`` and the raw bytes, as hex.

    ``pixels``: (H, W, 3) uint8, anything else raises ValueError.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}.")
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{width}x{height}:RGB:".encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """Consecutive images of a split: image ``start + i`` has ``labels[i]`` and ``pixels[i]``.

    ``labels``: (B,) int64 in 0..K-1. ``pixels``: (B, 32, 32, 3) uint8. B is at most 10,000.
    """

    start: int
    labels: NDArray[np.int64]
    pixels: Pixels


class CifarArchive(ABC):
    """The images of an archive or a folder; see :func:`open_cifar`.

    ``cifar``: which of the two sets. ``origin``: where they come from, as a person would say it. ``splits``: those
    that are there. ``is_sample``: whether they are the few that come with the installation.
    """

    cifar: Cifar = CIFAR10
    origin: str
    splits: tuple[Split, ...]
    is_sample: bool = False

    def batches(self, split: Split) -> Iterator[ImageBatch]:
        """The images of a split in rising order, one file in memory at a time.

        Raises Refusal: ``split_missing`` at once; ``archive_unreadable`` or ``pickle_refused`` on the way.
        """
        if split not in self.splits:
            there = " and ".join(self.splits)
            raise Refusal("split_missing", f"{self.origin} has no {split} images, only {there}.")
        return self._batches(split)

    def load(self, split: Split) -> tuple[Pixels, NDArray[np.int64], NDArray[np.int64]]:
        """All images of a split: pixels (N, 32, 32, 3) uint8, labels (N,) int64, indices (N,) int64.

        Raises as ``batches`` does.
        """
        batches = list(self.batches(split))
        return (
            np.concatenate([batch.pixels for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            np.concatenate([batch.start + np.arange(len(batch.labels)) for batch in batches]),
        )

    @abstractmethod
    def _batches(self, split: Split) -> Iterator[ImageBatch]:
        """The batches of a split that is there."""


def open_cifar10(path: Path) -> CifarArchive:
    """CIFAR-10 images, whatever their form; see :func:`open_cifar`. CIFAR-100 is refused as ``archive_unreadable``."""
    archive = open_cifar(path)
    if archive.cifar is not CIFAR10:
        raise _unreadable(path.name, f"it holds {archive.cifar.name}, not CIFAR-10")
    return archive


def open_cifar(path: Path) -> CifarArchive:
    """Open CIFAR-10 or CIFAR-100 images, whatever their form.

    - a ``.tar.gz`` of the official python or binary layout, with all splits or one;
    - either layout unpacked: the folder of the batches or the one above it;
    - a folder of PNGs called ``cifar10_<index>_<label>.png``, all of them CIFAR-10 test images.

    CIFAR-100's labels are the fine ones.

    Raises Refusal: ``archive_not_found`` (no such path) or ``archive_unreadable`` (broken, cut short, or
    something else altogether).
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise Refusal("archive_not_found", f"There is no file or folder {path}.")
    if not path.is_file():
        raise _unreadable(path.name, "it is neither a file nor a folder")
    return _open_tar(path)


def _unreadable(name: str, why: str) -> Refusal:
    return Refusal("archive_unreadable", f"{name}: {why}.")


# The official layouts, packed or unpacked


class _Official(CifarArchive):
    """The official files, pickled or, with .bin, as plain records."""

    def __init__(
        self, name: str, files: Mapping[str, str], opened: Callable[[], AbstractContextManager[_Opener]]
    ) -> None:
        """``files``: where each file of one layout is kept; ``opened``: gives a way to open those places."""
        binary = any(file.endswith(".bin") for file in files)
        self._suffix = ".bin" if binary else ""
        self._name, self._files, self._opened = name, files, opened
        present = {file.removesuffix(".bin") for file in files}
        self.cifar = next(cifar for cifar in _BOTH if present & {*cifar.files["test"], *cifar.files["train"]})
        layout = "binary" if binary else "python"
        self.origin = f"{name} (official {layout} layout)"
        for split, wanted in self.cifar.files.items():
            # With a batch gone, every later image would pass for another one.
            missing = [file for file in wanted if file not in present]
            if missing and len(missing) < len(wanted):
                raise _unreadable(name, f"{missing[0]}{self._suffix} is missing from its {split} images")
        self.splits = tuple(split for split, wanted in self.cifar.files.items() if wanted[0] in present)

    def _batches(self, split: Split) -> Iterator[ImageBatch]:
        decode = _decode_binary if self._suffix else _decode_pickle
        start = 0
        with _told(self._name), self._opened() as open_file:
            for wanted in self.cifar.files[split]:
                file = wanted + self._suffix
                with open_file(self._files[file]) as stream:
                    for labels, planes in decode(stream, f"{self._name}: {file}", self.cifar):
                        yield ImageBatch(start, labels, _as_pixels(planes))
                        start += len(labels)


_Opener: TypeAlias = Callable[[str], IO[bytes]]


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what a broken file makes the standard library raise into one line."""
    try:
        yield
    except _BROKEN as error:
        raise _unreadable(name, f"it is damaged or cut short ({_one_line(error)})") from None


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _one_layout(files: Mapping[str, str]) -> dict[str, str]:
    """The binary files where both layouts are there: they need no pickle."""
    binary = {file: place for file, place in files.items() if file.endswith(".bin")}
    return binary or dict(files)


def _open_tar(path: Path) -> CifarArchive:
    files: dict[str, str] = {}
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                if match and member.isreg():
                    files[match[1] + (match[2] or "")] = member.name
                    members[member.name] = member
            # A spoilt header passes for the end; the checksum after the last byte tells the two apart.
            while tar.fileobj.read(_PIECE):
                pass
    except _BROKEN as error:
        raise _unreadable(path.name, f"it is no .tar.gz, or damaged or cut short ({_one_line(error)})") from None
    if not files:
        raise _unreadable(path.name, "it holds no CIFAR-10 batches and none of CIFAR-100")

    @contextmanager
    def opened() -> Iterator[_Opener]:
        with tarfile.open(path) as tar:

            def open_member(place: str) -> IO[bytes]:
                stream = tar.extractfile(members[place])
                if stream is None:
                    raise _unreadable(path.name, f"{place} is no plain file")
                return stream

            yield open_member

    return _Official(path.name, _one_layout(files), opened)


def _open_folder(path: Path) -> CifarArchive:
    for folder in (path, *(path / name for name in _FOLDERS)):
        names = [match[0] for match in map(_MEMBER.fullmatch, _listing(folder)) if match]
        files = {name: str(folder / name) for name in names}
        if files:
            return _Official(folder.name, _one_layout(files), lambda: nullcontext(lambda place: Path(place).open("rb")))
    if any(map(_PNG.fullmatch, _listing(path))):
        return _PngFolder(path)
    raise _unreadable(path.name, "the folder holds neither CIFAR-10 batches nor cifar10_<index>_<label>.png")


def _listing(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with _told(folder.name):
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


_Decoded: TypeAlias = Iterator[tuple[NDArray[np.int64], Pixels]]


def _decode_binary(stream: IO[bytes], name: str, cifar: Cifar) -> _Decoded:
    """Labels (B,) and colour planes (B, 3072), at most 10,000 at a time, of records of label and pixel bytes."""
    done = 0
    while raw := stream.read(_MOST_AT_ONCE * cifar.record):
        records, rest = divmod(len(raw), cifar.record)
        done += records
        if rest or done > cifar.most:
            break
        table = np.frombuffer(raw, dtype=np.uint8).reshape(records, cifar.record)
        labels = table[:, cifar.label_bytes - 1].astype(np.int64)
        if labels.max() >= len(cifar.categories):
            raise _unreadable(name, f"it has a label outside 0..{len(cifar.categories) - 1}: {labels.max()}")
        yield labels, table[:, cifar.label_bytes :]
    if raw or not done:
        why = f"its length is not that of 1 to {cifar.most:,} records of {cifar.record:,} bytes"
        raise _unreadable(name, why)


def _decode_pickle(stream: IO[bytes], name: str, cifar: Cifar) -> _Decoded:
    """Labels (B,) and colour planes (B, 3072), at most 10,000 at a time, of an official python batch."""
    largest = 2 * cifar.most * cifar.record
    raw = stream.read(largest + 1)
    if len(raw) > largest:
        raise _unreadable(name, "it is too long for a batch")
    batch = _unpickle(raw, name)
    del raw
    if not isinstance(batch, dict):
        raise _unreadable(name, f"it is no {cifar.name} batch")
    # Python 2 wrote the keys as bytes; copies made by Python 3 may have text.
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", cifar.labels))
    planes = data.values if isinstance(data, _Array) else None
    if planes is None or planes.ndim != 2 or planes.shape[1] != _PLANES:
        raise _unreadable(name, f"its data are no rows of {_PLANES:,} bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _unreadable(name, "its labels are no list of integers")
    if not 1 <= len(planes) <= cifar.most or len(labels) != len(planes):
        raise _unreadable(name, f"it has {len(planes):,} images and {len(labels):,} labels")
    if not all(0 <= label < len(cifar.categories) for label in labels):
        raise _unreadable(name, f"it has a label outside 0..{len(cifar.categories) - 1}")
    for start in range(0, len(planes), _MOST_AT_ONCE):
        part = slice(start, start + _MOST_AT_ONCE)
        yield np.array(labels[part], dtype=np.int64), planes[part]


def _as_pixels(planes: Pixels) -> Pixels:
    """(B, 3072) red, green and blue planes to (B, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


# Pickles, without trust


class _Array:
    """Stands in for numpy's array while unpickling, so that no pickle ever reaches numpy's own code."""

    __slots__ = ("values",)

    values: Pixels | None

    def __init__(self) -> None:
        self.values = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), (int() as rows, int() as columns), _Dtype(), int() as by_column, bytes() as raw):
                if rows < 0 or columns < 0 or rows * columns != len(raw):
                    raise pickle.UnpicklingError("an array's shape is not that of its bytes")
                flat = np.frombuffer(raw, dtype=np.uint8)
                self.values = flat.reshape((rows, columns), order="F" if by_column else "C")
            case _:
                raise pickle.UnpicklingError("an array is not a table of bytes")


class _Dtype:
    """Stands in for numpy's type of unsigned bytes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: without meaning for single bytes."""


class _Allowed:
    """A global that a pickle may call, in a wrapper of its own that the pickle can't change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a global can't be changed")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _dtype(code: object = None, *_: object) -> _Dtype:
    if code not in ("u1", b"u1"):
        raise pickle.UnpicklingError("an array is not one of bytes")
    return _Dtype()


def _not_called(*_: object) -> object:
    raise pickle.UnpicklingError("an array is made in an unknown way")


def _encode(text: object = None, encoding: object = None) -> bytes:
    # How Python 3 writes bytes in pickle protocol 2; the official files, from Python 2, have no need of it.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes are written in an unknown way")
    return text.encode("latin1")


_GLOBALS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _not_called,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> object:
        try:
            return _Allowed(_GLOBALS[module, name])
        except KeyError:
            raise Refusal(
                "pickle_refused",
                f"The file was refused unread: it asks for {module}.{name}, which no CIFAR batch needs.",
            ) from None


def _unpickle(raw: bytes, name: str) -> object:
    try:
        value: object = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{name}: {refusal.message}") from None
    except (
        # What bytes that are no pickle of ours can make the unpickler raise.
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise _unreadable(name, f"it is no CIFAR batch ({_one_line(error)})") from None
    return value


# Folders of PNGs


class _PngFolder(CifarArchive):
    """Test images as single files that carry index and label in their names."""

    def __init__(self, path: Path) -> None:
        self.origin = f"{path.name} (folder of PNGs)"
        self.splits = ("test",)
        self._path = path
        self._images: dict[int, tuple[int, str]] = {}
        for name in _listing(path):
            match = _PNG.fullmatch(name)
            if match is None:
                continue
            index, label = int(match[1]), int(match[2])
            if label > 9:
                raise _unreadable(path.name, f"{name} has a label outside 0..9")
            if index in self._images:
                raise _unreadable(path.name, f"{name} and {self._images[index][1]} claim one index")
            self._images[index] = (label, name)

    def _batches(self, split: Split) -> Iterator[ImageBatch]:
        run: list[int] = []
        for index in sorted(self._images):
            if run and (index != run[-1] + 1 or len(run) == _MOST_AT_ONCE):
                yield self._batch(run)
                run = []
            run.append(index)
        yield self._batch(run)

    def _batch(self, indices: list[int]) -> ImageBatch:
        labels = np.array([self._images[index][0] for index in indices], dtype=np.int64)
        return ImageBatch(indices[0], labels, np.stack([self._read(index) for index in indices]))

    def _read(self, index: int) -> Pixels:
        from PIL import Image

        name = self._images[index][1]
        try:
            with Image.open(self._path / name, formats=("PNG",)) as image:
                if image.size != (_SIDE, _SIDE):
                    raise _unreadable(name, f"it is not of {_SIDE} x {_SIDE} pixels")
                return np.array(image.convert("RGB"), dtype=np.uint8)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(name, f"it is no readable PNG ({_one_line(error)})") from None


def sample_folder() -> Path | None:
    """The folder of the 20 CIFAR-10 images that the installed package foolbox carries, if it is there.

    The package is found, never imported.
    """
    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "data"
    return folder if any(map(_PNG.fullmatch, _listing(folder))) else None


# The official download


def download_cifar(
    target: Path,
    cifar: Cifar = CIFAR10,
    *,
    progress: Progress | None = None,
    connect_timeout: float = 4.5,
) -> Path:
    """Fetch the official archive to ``target`` and return that.

    The bytes go to ``<target>.part``, which takes the name ``target`` only once its sha256 is right and is
    removed otherwise. ``connect_timeout``: seconds until the answer begins, looking the name up included.
    Raises Refusal ``download_failed`` or ``checksum_mismatch``; whatever ``progress`` raises.
    """
    url = cifar.url
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _connect(url, connect_timeout) as answer:
                found = _store(answer, part, progress)
            if found != cifar.sha256:
                raise Refusal(
                    "checksum_mismatch",
                    f"The download from {url} is not the file expected: its sha256 is {found}, not {cifar.sha256}.",
                )
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Refusal("download_failed", f"The download from {url} failed: {_one_line(reason)}.") from None
    return target


def _connect(url: str, timeout: float) -> http.client.HTTPResponse:
    """The answer to a GET, or TimeoutError after ``timeout`` seconds.

    A socket's timeout does not reach the name look-up, which can hang for a minute without a network: so it
    all happens in a thread that is left behind when time is up.
    """
    if not url.startswith(("https://", "http://")):
        raise OSError("only http and https are fetched")
    answers: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            answer = urllib.request.urlopen(url, timeout=_READ_TIMEOUT)  # noqa: S310 - checked above
        except (OSError, http.client.HTTPException) as error:
            answers.put(error)
            return
        except ValueError as error:  # a host that no name can have
            answers.put(OSError(_one_line(error)))
            return
        answers.put(answer)
        if given_up.is_set():
            answer.close()

    threading.Thread(target=ask, name="download", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {timeout:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _store(answer: http.client.HTTPResponse, part: Path, progress: Progress | None) -> str:
    """Write the body to ``part``; its sha256."""
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    digest, done = hashlib.sha256(), 0
    with part.open("wb") as out:
        while piece := answer.read(_PIECE):
            out.write(piece)
            digest.update(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
    return digest.hexdigest()


def find_images(
    choice: str | None, folder: Path, *, cifar: Cifar | None = None, progress: Progress | None = None
) -> tuple[CifarArchive, str]:
    """The images that ``choice`` asks for, and a sentence on where they come from.

    ``choice``: a path; ``download`` or ``cifar100``, which fetch the official archive of CIFAR-10 or CIFAR-100 and
    keep it in ``folder``; ``sample``, the images of the package foolbox; or None, which takes CIFAR-10's download,
    from ``folder`` if it is kept there, and without a network the sample. ``cifar``: which of the two a path has to
    hold, None for either.

    Raises Refusal: as ``open_cifar`` and ``download_cifar`` do; ``sample_missing`` without foolbox;
    ``images_missing`` where None finds nothing at all.
    """
    if choice == "sample":
        return _sample()
    if choice not in (None, "download", "cifar100"):
        path = Path(choice).expanduser()
        archive = open_cifar10(path) if cifar is CIFAR10 else open_cifar(path)
        return archive, f"Images from {archive.origin}."

    official = CIFAR100 if choice == "cifar100" else CIFAR10
    kept = folder / official.file
    if kept.is_file():
        archive = open_cifar(kept)
        return archive, f"Images from the kept download {archive.origin}."
    try:
        archive = open_cifar(download_cifar(kept, official, progress=progress))
        return archive, f"Images downloaded: {archive.origin}."
    except Refusal as refusal:
        if choice is not None:
            raise
        no_download = refusal
    try:
        archive, note = _sample()
    except Refusal as no_sample:
        raise Refusal("images_missing", f"{no_download.message} {no_sample.message}") from None
    return archive, f"{no_download.message} {note}"


def _sample() -> tuple[CifarArchive, str]:
    folder = sample_folder()
    if folder is None:
        raise Refusal("sample_missing", "The sample images come with the package foolbox: install that first.")
    archive = open_cifar10(folder)
    archive.origin = "sample of the package foolbox (folder of PNGs)"
    archive.is_sample = True
    return archive, f"Images from the {archive.origin}."
