"""Opening image files as every image encoder sees them."""

from __future__ import annotations

from PIL import Image, ImageOps, UnidentifiedImageError

from precompute.errors import ItemError

# part of every image encoder's preprocessing, and so of its identity
OPENING = {"colour": "RGB", "exif_orientation": "applied"}


def open_image(path: str, *, at_least: int | None = None) -> Image.Image:
    """Decode a file, upright and in RGB.

    Args:
        at_least: pixels a side that are enough; a JPEG is then decoded smaller, which is faster.

    Raises:
        ItemError: (without the path) missing, not an image, truncated, or absurdly large.
    """
    try:
        with Image.open(path) as file:
            if at_least is not None:
                file.draft("RGB", (at_least, at_least))
            return ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError:
        raise ItemError("missing") from None
    except UnidentifiedImageError:
        raise ItemError("not an image that Pillow can read") from None
    except Exception as error:  # broken metadata makes Pillow raise almost anything
        reason = getattr(error, "strerror", None) or str(error).replace(path, "the file")
        told = " ".join(reason.split())[:200] or type(error).__name__
        raise ItemError(f"cannot be decoded ({told})") from error
