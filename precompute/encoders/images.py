"""What image encoders have in common: decoding, and one shape of their input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from data.images import ImageError, is_of_the_file, open_image
from precompute.errors import EncoderError, ItemError, ShortageError
from vqa_cache.spec import EncoderSpec

Transform = Callable[[Image.Image], torch.Tensor]

# part of every image encoder's preprocessing, and so of its identity
OPENING = {
    "colour": "RGB",
    "exif_orientation": "applied",
    "sixteen_bit": "high byte",
    "transparency": "on white",
}
_PROBES = ((96, 64), (64, 96), (64, 64))  # wide, tall, square


def pixels_of(path: str, transform: Transform) -> torch.Tensor:
    """A picture as an encoder takes it, float32 [3, height, width].

    Raises:
        ItemError: it cannot be decoded, or not be preprocessed.
        ShortageError: memory, file handles or the disk failed, not the file.
    """
    try:
        return transform(open_image(path))
    except ImageError as error:
        raise ItemError(str(error)) from error
    except Exception as error:  # of one picture, whatever a library raises
        if not is_of_the_file(error):
            raise ShortageError.of(f"image {path}", error) from error
        reason = " ".join(str(error).split())[:200]
        told = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise ItemError(f"cannot be preprocessed ({told})") from error


def probe_pixels(spec: EncoderSpec, transform: Transform) -> torch.Tensor:
    """A small picture as an encoder takes it, float32 [3, height, width].

    Raises:
        EncoderError: a wide and a tall picture come out in other shapes, which no batch can hold.
    """
    wide, tall, square = (transform(Image.new("RGB", size)) for size in _PROBES)
    if not wide.shape == tall.shape == square.shape:
        shown = [f"{p.shape[-2]}x{p.shape[-1]}" for p in (wide, tall)]
        raise EncoderError(
            f"encoder {spec}: its preprocessing keeps the pictures' own shape (a wide one comes "
            f"out as {shown[0]} pixels, a tall one as {shown[1]}), expected one for all; crop them "
            "or name a height and a width in preprocessor_config.json"
        )
    return square
