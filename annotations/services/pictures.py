"""Pictures that curators upload for their texts."""

from __future__ import annotations

from typing import IO

import numpy as np
import PIL.Image
from django.core.exceptions import ValidationError

from annotations import image_store

LARGEST_FILE = 5 << 20
MOST_PIXELS = 25_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def store_picture(file: IO[bytes], size: int) -> str:
    """Keep an uploaded picture, on white where it is see-through, and return the hash that texts name it by.

    Raises:
        ValidationError: it is too large, or no picture of a known format.
    """
    if size > LARGEST_FILE:
        raise ValidationError("The picture is larger than 5 MB.")
    try:
        with PIL.Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValidationError("The picture has more than 25 million pixels.")
            seen = picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ValidationError("This is no picture that can be read: use PNG, JPEG, WebP or GIF.") from error
    seen.thumbnail((image_store.LARGEST_SIDE, image_store.LARGEST_SIDE))
    white = PIL.Image.new("RGBA", seen.size, "white")
    return image_store.put(np.asarray(PIL.Image.alpha_composite(white, seen).convert("RGB")))
