"""Images on disk (or wherever the `images` storage points), under the hash of their pixels."""

from __future__ import annotations

import io
from typing import cast

import numpy as np
import PIL.Image
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from numpy.typing import NDArray

from elicit.archives import pixel_sha256

# The longest side that is sent to a browser.
LARGEST_SIDE = 2048


def put(pixels: NDArray[np.uint8]) -> str:
    """Store (H, W, 3) RGB pixels losslessly; returns their hash. Storing the same pixels again changes nothing."""
    sha256 = pixel_sha256(pixels)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    storages["images"].save(_path(sha256), ContentFile(buffer.getvalue()))
    return sha256


def has(sha256: str) -> bool:
    return storages["images"].exists(_path(sha256))


def pixels(sha256: str) -> NDArray[np.uint8]:
    """The stored pixels, (H, W, 3)."""
    with storages["images"].open(_path(sha256)) as file, PIL.Image.open(file) as image:
        return cast("NDArray[np.uint8]", np.asarray(image.convert("RGB")))


def rendered(sha256: str, scale: int) -> bytes:
    """A PNG of the image at `scale` times its size, smoothly resampled.

    Raises:
        FileNotFoundError: no such image is stored.
    """
    with storages["images"].open(_path(sha256)) as file, PIL.Image.open(file) as image:
        side = max(image.size)
        scale = max(1, min(scale, LARGEST_SIDE // side))
        larger = image.convert("RGB").resize((image.width * scale, image.height * scale), PIL.Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        larger.save(buffer, "PNG")
        return buffer.getvalue()


def _path(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}.png"
