"""Opening image files as every image encoder sees them."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data.image_formats import IMAGE_FORMATS
from precompute.errors import ItemError

# part of every image encoder's preprocessing, and so of its identity
OPENING = {"colour": "RGB", "exif_orientation": "applied", "sixteen_bit": "high byte"}
# a large picture is read; Pillow itself refuses one of twice its limit
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def open_image(path: str, *, at_least: int | None = None) -> Image.Image:
    """Decode a file, upright and in RGB.

    Args:
        at_least: pixels a side that are enough; a JPEG is then decoded smaller, which is faster.

    Raises:
        ItemError: (without the path) missing, not an image, truncated, absurdly large, or of pixels
            whose range nothing tells.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as file:
            if at_least is not None:
                file.draft("RGB", (at_least, at_least))
            return _rgb(ImageOps.exif_transpose(file))
    except ItemError:
        raise
    except FileNotFoundError:
        raise ItemError("missing") from None
    except UnidentifiedImageError:
        raise ItemError("not an image that Pillow can read") from None
    except Exception as error:  # broken metadata makes Pillow raise almost anything
        reason = getattr(error, "strerror", None) or str(error).replace(path, "the file")
        told = " ".join(reason.split())[:200] or type(error).__name__
        raise ItemError(f"cannot be decoded ({told})") from error


def _rgb(picture: Image.Image) -> Image.Image:
    """Pillow clips deep greyscale to 255, which makes it white. It reads 16-bit colour by the high
    bytes, and so is 16-bit grey read here."""
    if picture.mode.startswith("I;16"):
        high = (np.asarray(picture) >> 8).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ItemError(
            "has 32-bit pixels, whose range nothing tells; save it with 8 or 16 bits a pixel"
        )
    return picture.convert("RGB")
