"""Opening image files. Whatever reads pictures reads them here, so that a check and a run agree on
which ones can be read.

Metadata never decides whether a picture is read: an orientation is applied where it can be read,
and a PNG or JPEG whose other metadata Pillow refuses is decoded without it.
"""

from __future__ import annotations

import errno
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase, BytesIO
from typing import IO, Any, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.members import open_member

# A file is told by its content, so an EPS called .jpg would start Ghostscript; and formats that a
# picture is hardly ever in are so many more ways to break a decoder. Of Pillow's names; JPEG opens
# MPO as well, which is not registered by itself.
IMAGE_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "PCX"),
    *("DIB", "SGI", "QOI"),
)
MOST_ELONGATED = 100  # longer side over shorter: resizing the shorter one multiplies both
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PIXELS_OF_A_PNG = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# a large picture is read; Pillow itself refuses one of twice its limit
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class ImageError(Exception):
    """A picture that cannot be read; the text says why, without its path."""


_OF_A_FILE = {
    None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO,
}  # fmt: skip


def is_of_the_file(error: Exception) -> bool:
    """Whether what failed is the file itself, and will fail again. A shortage, a disk or a network
    that does not answer (EIO, ESTALE, ...) is not."""
    memory = isinstance(error, MemoryError) or "out of memory" in str(error)
    return not memory and getattr(error, "errno", None) in _OF_A_FILE


def open_image(path: str, *, at_least: int | None = None) -> Image.Image:
    """Decode a file, or a picture in one (`data.members`): upright, RGB, transparency on white.

    Args:
        at_least: pixels a side that are enough; a JPEG is then decoded smaller, which is faster.

    Raises:
        ImageError: missing, not an image, truncated, absurdly large or elongated, or of pixels
            whose range nothing tells.
        OSError, MemoryError: what fails is not the file.
    """
    with _named(path):
        try:
            return _decoded(open_member(path), at_least)
        except ImageError:
            raise
        except FileNotFoundError:
            raise ImageError("missing") from None
        except Exception as error:  # broken metadata makes Pillow raise almost anything
            if not is_of_the_file(error):
                raise
            with suppress(Exception):
                picture = _decoded(BytesIO(_without_metadata(path)), at_least)
                warnings.warn(f"metadata that cannot be read ({_why(error, path)})", stacklevel=1)
                return picture
            if isinstance(error, UnidentifiedImageError):
                raise ImageError("not an image that Pillow can read") from None
            raise ImageError(f"cannot be decoded ({_why(error, path)})") from error


def _why(error: Exception, path: str) -> str:
    reason = getattr(error, "strerror", None) or str(error).replace(path, "the file")
    return " ".join(reason.split())[:200] or type(error).__name__


def _decoded(source: BufferedIOBase, at_least: int | None) -> Image.Image:
    with source, Image.open(cast(IO[bytes], source), formats=IMAGE_FORMATS) as file:
        width, height = file.size
        if max(width, height) > MOST_ELONGATED * min(width, height):
            raise ImageError(
                f"is {width}x{height} pixels, one side more than {MOST_ELONGATED} times the other; "
                "crop it"
            )
        if at_least is not None:
            file.draft("RGB", (at_least, at_least))
        file.load()
        turn = _UPRIGHT.get(_orientation(file))
        return _rgb(file if turn is None else file.transpose(turn))


def _orientation(file: Image.Image) -> Any:
    """The EXIF orientation; 1, upright, where none can be read."""
    try:
        value = file.getexif().get(_ORIENTATION, 1)
        hash(value)
    except Exception as error:  # of a parser that trusts what it reads
        warnings.warn(f"EXIF data that cannot be read ({error})", stacklevel=1)
        return 1
    return value


def _rgb(picture: Image.Image) -> Image.Image:
    """Pillow clips deep greyscale to 255, which makes it white. It reads 16-bit colour by the high
    bytes, and so is 16-bit grey read here. It lays transparency on black, pages do on white."""
    if picture.mode.startswith("I;16"):
        deep = np.asarray(picture)
        clear = deep == picture.info.get("transparency", -1)
        return Image.fromarray(np.where(clear, 255, deep >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ImageError(
            "has 32-bit pixels, whose range nothing tells; save it with 8 or 16 bits a pixel"
        )
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def difference_hash(picture: Image.Image) -> int:
    """64 bits of how a picture looks: whether each of 8 x 8 places is darker than the one to its
    right. Another size, format or compression leaves most pictures' bits alone."""
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BILINEAR), dtype=int)
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes())


# ---------------------------------------------------------------- without metadata


def _without_metadata(path: str) -> bytes:
    """A PNG's or a JPEG's pixels, with its EXIF data where they are whole; another file as it is.

    Sources: PNG (W3C, third edition) section 5.3; JPEG (ITU-T T.81) annex B.1.
    """
    with open_member(path) as file:
        content = file.read()
    if content.startswith(_PNG):
        return _PNG + b"".join(_chunks(content))
    if content.startswith(_JPEG):
        return _JPEG + b"".join(_segments(content))
    return content


def _chunks(content: bytes) -> Iterator[bytes]:
    start = len(_PNG)
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        chunk, kind = content[start:end], content[start + 4 : start + 8]
        whole = zlib.crc32(chunk[4:-4]).to_bytes(4) == chunk[-4:]
        if kind in _PIXELS_OF_A_PNG or (kind == b"eXIf" and whole):
            yield chunk
        start = end


def _segments(content: bytes) -> Iterator[bytes]:
    start = len(_JPEG)
    while content[start : start + 1] == b"\xff":
        marker = content[start + 1]
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
        segment = content[start:end]
        if marker == 0xDA:  # the pixels, to the end
            yield content[start:]
            return
        application = 0xE0 <= marker <= 0xEF or marker == 0xFE
        adobe = marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16  # its colours
        if not application or adobe or (marker == 0xE1 and segment[4:10] == b"Exif\0\0"):
            yield segment
        start = end


# ---------------------------------------------------------------- warnings

_reading = threading.local()


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Around code that reads a picture: its warnings in this thread name it."""
    _reading.path = path
    try:
        yield
    finally:
        _reading.path = None


def _naming(show: Any) -> Any:
    def show_warning(message: Any, *args: Any, **named: Any) -> None:
        path = getattr(_reading, "path", None)
        if path is None:
            show(message, *args, **named)
        else:
            print(f"note: image {path}: {message} (told once)", file=sys.stderr)

    return show_warning


# Pillow's warnings do not say which picture; catching them is not safe beside other threads
warnings.showwarning = _naming(warnings.showwarning)
