"""CIFAR-10 images out of the archives in which people have them; standard library and numpy.

Nothing is unpacked to the disk, and a pickle can ask for nothing but the array that the official files hold.
Pillow is needed for folders of PNGs alone.
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
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_FILE = "cifar-10-python.tar.gz"

_SIDE = 32
_PLANES = 3 * _SIDE * _SIDE
_RECORD = 1 + _PLANES
_MOST_RECORDS = 10_000
_LARGEST_PICKLE = 2 * _MOST_RECORDS * _RECORD
_PIECE = 1 << 18
_READ_TIMEOUT = 30.0

# The files of the official layouts, in the order of the images.
_FILES: Mapping[Split, tuple[str, ...]] = {
    "test": ("test_batch",),
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
}
_MEMBER = re.compile(r"(?:.*/)?(test_batch|data_batch_[1-5])(\.bin)?")
_PNG = re.compile(r"cifar10_(\d{1,6})_(\d{1,3})\.png")
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")

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

    ``labels``: (B,) int64 in 0..9. ``pixels``: (B, 32, 32, 3) uint8. B is at most 10,000.
    """

    start: int
    labels: NDArray[np.int64]
    pixels: Pixels


class Cifar10Archive(ABC):
    """The images of an archive or a folder; see :func:`open_cifar10`.

    ``origin``: where they come from, as a person would say it. ``splits``: those that are there.
    ``is_sample``: whether they are the few that come with the installation.
    """

    origin: str
    splits: tuple[Split, ...]
    is_sample: bool = False

    def batches(self, split: Split) -> Iterator[ImageBatch]:
        """The images of a split in rising order, one file of at most 10,000 in memory at a time.

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


def open_cifar10(path: Path) -> Cifar10Archive:
    """Open CIFAR-10 images, whatever their form.

    - a ``.tar.gz`` of the official python or binary layout, with all splits or one;
    - either layout unpacked: the folder of the batches or the one above it;
    - a folder of PNGs called ``cifar10_<index>_<label>.png``, all of them test images.

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


class _Official(Cifar10Archive):
    """Files called test_batch and data_batch_1 to 5, pickled or, with .bin, as plain records."""

    def __init__(
        self, name: str, files: Mapping[str, str], opened: Callable[[], AbstractContextManager[_Opener]]
    ) -> None:
        """``files``: where each file of one layout is kept; ``opened``: gives a way to open those places."""
        binary = any(file.endswith(".bin") for file in files)
        self._suffix = ".bin" if binary else ""
        self._name, self._files, self._opened = name, files, opened
        self.origin = f"{name} (official {'binary' if binary else 'python'} layout)"
        present = {file.removesuffix(".bin") for file in files}
        for split, wanted in _FILES.items():
            # With a batch gone, every later image would pass for another one.
            missing = [file for file in wanted if file not in present]
            if missing and len(missing) < len(wanted):
                raise _unreadable(name, f"{missing[0]}{self._suffix} is missing from its {split} images")
        self.splits = tuple(split for split, wanted in _FILES.items() if wanted[0] in present)

    def _batches(self, split: Split) -> Iterator[ImageBatch]:
        decode = _decode_binary if self._suffix else _decode_pickle
        start = 0
        with _told(self._name), self._opened() as open_file:
            for wanted in _FILES[split]:
                file = wanted + self._suffix
                with open_file(self._files[file]) as stream:
                    labels, planes = decode(stream, f"{self._name}: {file}")
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


def _open_tar(path: Path) -> Cifar10Archive:
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
        raise _unreadable(path.name, "it holds no CIFAR-10 batches")

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


def _open_folder(path: Path) -> Cifar10Archive:
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


def _decode_binary(stream: IO[bytes], name: str) -> tuple[NDArray[np.int64], Pixels]:
    """Labels (B,) and colour planes (B, 3072): one label byte and 3,072 pixel bytes per record."""
    # A byte more than there may be: what is too long then has a rest.
    raw = stream.read(_MOST_RECORDS * _RECORD + 1)
    records, rest = divmod(len(raw), _RECORD)
    if rest or not records:
        raise _unreadable(name, f"its length is not that of 1 to {_MOST_RECORDS:,} records of {_RECORD:,} bytes")
    table = np.frombuffer(raw, dtype=np.uint8).reshape(records, _RECORD)
    return _as_labels(table[:, 0], name), table[:, 1:]


def _decode_pickle(stream: IO[bytes], name: str) -> tuple[NDArray[np.int64], Pixels]:
    """Labels (B,) and colour planes (B, 3072) of an official python batch."""
    raw = stream.read(_LARGEST_PICKLE + 1)
    if len(raw) > _LARGEST_PICKLE:
        raise _unreadable(name, "it is too long for a batch")
    batch = _unpickle(raw, name)
    if not isinstance(batch, dict):
        raise _unreadable(name, "it is no CIFAR-10 batch")
    # Python 2 wrote the keys as bytes; copies made by Python 3 may have text.
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    planes = data.values if isinstance(data, _Array) else None
    if planes is None or planes.ndim != 2 or planes.shape[1] != _PLANES:
        raise _unreadable(name, f"its data are no rows of {_PLANES:,} bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _unreadable(name, "its labels are no list of integers")
    if not 1 <= len(planes) <= _MOST_RECORDS or len(labels) != len(planes):
        raise _unreadable(name, f"it has {len(planes):,} images and {len(labels):,} labels")
    if not all(0 <= label <= 9 for label in labels):
        raise _unreadable(name, "it has a label outside 0..9")
    return np.array(labels, dtype=np.int64), planes


def _as_labels(values: NDArray[np.uint8], name: str) -> NDArray[np.int64]:
    if values.max() > 9:
        raise _unreadable(name, f"it has a label outside 0..9: {values.max()}")
    return values.astype(np.int64)


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
                f"The file was refused unread: it asks for {module}.{name}, which no CIFAR-10 batch needs.",
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
        raise _unreadable(name, f"it is no CIFAR-10 batch ({_one_line(error)})") from None
    return value


# Folders of PNGs


class _PngFolder(Cifar10Archive):
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
            if run and (index != run[-1] + 1 or len(run) == _MOST_RECORDS):
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


def download_cifar10(
    target: Path,
    *,
    progress: Progress | None = None,
    connect_timeout: float = 4.5,
    url: str = CIFAR10_URL,
    sha256: str = CIFAR10_SHA256,
) -> Path:
    """Fetch the official archive to ``target`` and return that.

    The bytes go to ``<target>.part``, which takes the name ``target`` only once its sha256 is right and is
    removed otherwise. ``connect_timeout``: seconds until the answer begins, looking the name up included.
    Raises Refusal ``download_failed`` or ``checksum_mismatch``; whatever ``progress`` raises.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _connect(url, connect_timeout) as answer:
                found = _store(answer, part, progress)
            if found != sha256:
                raise Refusal(
                    "checksum_mismatch",
                    f"The download from {url} is not the file expected: its sha256 is {found}, not {sha256}.",
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


def find_images(choice: str | None, folder: Path, *, progress: Progress | None = None) -> tuple[Cifar10Archive, str]:
    """The images that ``choice`` asks for, and a sentence on where they come from.

    ``choice``: a path; ``download``, which fetches the official archive and keeps it in ``folder``;
    ``sample``, the images of the package foolbox; or None, which takes the download, from ``folder`` if it is
    kept there, and without a network the sample.

    Raises Refusal: as ``open_cifar10`` and ``download_cifar10`` do; ``sample_missing`` without foolbox;
    ``images_missing`` where None finds nothing at all.
    """
    if choice == "sample":
        return _sample()
    if choice is not None and choice != "download":
        archive = open_cifar10(Path(choice).expanduser())
        return archive, f"Images from {archive.origin}."

    kept = folder / CIFAR10_FILE
    if kept.is_file():
        archive = open_cifar10(kept)
        return archive, f"Images from the kept download {archive.origin}."
    try:
        archive = open_cifar10(download_cifar10(kept, progress=progress))
        return archive, f"Images downloaded: {archive.origin}."
    except Refusal as refusal:
        if choice == "download":
            raise
        no_download = refusal
    try:
        archive, note = _sample()
    except Refusal as no_sample:
        raise Refusal("images_missing", f"{no_download.message} {no_sample.message}") from None
    return archive, f"{no_download.message} {note}"


def _sample() -> tuple[Cifar10Archive, str]:
    folder = sample_folder()
    if folder is None:
        raise Refusal("sample_missing", "The sample images come with the package foolbox: install that first.")
    archive = open_cifar10(folder)
    archive.origin = "sample of the package foolbox (folder of PNGs)"
    archive.is_sample = True
    return archive, f"Images from the {archive.origin}."
