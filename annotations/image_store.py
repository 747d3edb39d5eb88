"""Images on disk (or wherever the `images` storage points), under the hash of their pixels."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import PIL.Image
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from numpy.typing import NDArray

from elicit import handing_over
from elicit.archives import pixel_sha256

# The longest side that is sent to a browser.
LARGEST_SIDE = 2048
THUMBNAIL = 128


@dataclass(frozen=True, slots=True)
class Kept:
    """`was_there`: the same pixels had been stored before."""

    sha256: str
    was_there: bool


def keep(pixels: NDArray[np.uint8]) -> Kept:
    """Store (H, W, 3) RGB pixels losslessly, unless they are there."""
    sha256 = pixel_sha256(pixels)
    if has(sha256):
        return Kept(sha256, was_there=True)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    storages["images"].save(file_name(sha256), ContentFile(buffer.getvalue()))
    return Kept(sha256, was_there=False)


def put(pixels: NDArray[np.uint8]) -> str:
    """Store (H, W, 3) RGB pixels losslessly; returns their hash. Storing the same pixels again changes nothing."""
    return keep(pixels).sha256


def has(sha256: str) -> bool:
    try:
        # After a power cut a file may be there without its content.
        return storages["images"].size(file_name(sha256)) > 0
    except FileNotFoundError:
        return False


def remove(sha256: str) -> None:
    """Take a file away; that it is not there changes nothing."""
    storages["images"].delete(file_name(sha256))
    for path in _rendered_folder(sha256).glob(f"{sha256}-*x.png"):
        path.unlink(missing_ok=True)


def pixels(sha256: str) -> NDArray[np.uint8]:
    """The stored pixels, (H, W, 3)."""
    with storages["images"].open(file_name(sha256)) as file, PIL.Image.open(file) as image:
        return cast("NDArray[np.uint8]", np.asarray(image.convert("RGB")))


def rendered(sha256: str, scale: int) -> bytes:
    """A PNG of the image at `scale` times its size, smoothly resampled.

    Raises:
        FileNotFoundError: no such image is stored.
    """
    with storages["images"].open(file_name(sha256)) as file:
        stored: bytes = file.read()
    with PIL.Image.open(io.BytesIO(stored)) as image:
        side = max(image.size)
        scale = max(1, min(scale, LARGEST_SIDE // side))
        if scale == 1 and image.mode == "RGB":
            return stored
        larger = image.convert("RGB").resize((image.width * scale, image.height * scale), PIL.Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        larger.save(buffer, "PNG")
        return buffer.getvalue()


def rendered_file(sha256: str, scale: int) -> Path:
    """The file with what `rendered` gives, made now if nobody asked for it before.

    Raises:
        FileNotFoundError: no such image is stored.
    """
    path = _rendered_folder(sha256) / f"{sha256}-{scale}x.png"
    if path.is_file():
        return path
    body = rendered(sha256, scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
        # The proxy is another user.
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    if not has(sha256):
        # Removed while it was being made.
        path.unlink(missing_ok=True)
        raise FileNotFoundError(sha256)
    return path


def _rendered_folder(sha256: str) -> Path:
    return handing_over.root_of(handing_over.RENDERED) / sha256[:2]


def thumbnail(sha256: str) -> bytes:
    """A JPEG of the image, `THUMBNAIL` pixels on its longer side.

    Raises:
        FileNotFoundError: no such image is stored.
    """
    with storages["images"].open(file_name(sha256)) as file, PIL.Image.open(file) as image:
        factor = THUMBNAIL / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        small = image.convert("RGB").resize(size, PIL.Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def file_name(sha256: str) -> str:
    """Where it lies in the storage."""
    return f"{sha256[:2]}/{sha256}.png"
