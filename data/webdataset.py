"""Webdataset tars: `<split>-000000.tar`, ..., or `<split>.tar`, or tars in a folder <split>/.

Files of one example follow each other and share their name up to the first dot:

    0001.jpg  0001.json             one picture and the fields of `data.records`
    0002.left.png  0002.right.png  0002.json     several pictures, in the tar's order

The JSON needs no `image`, and where it has none of `image_id` the name is one. The tars are read
where they lie and have to be uncompressed.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.example import DatasetError
from data.records import KEYS, Malformed, Record, Records, is_visible

_PART = re.compile(r"(.+?)[-_.]?\d+")
_PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
Member = tuple[str, tarfile.TarInfo, bytes | None]  # ending, where, content of a json
_LONGEST = 1 << 20  # bytes of the fields of one example


class Webdataset(Records):
    """Adapter of webdataset tars, see the module's docstring for their places and members."""

    name = "webdataset"

    def found(self) -> Iterator[str]:
        return (_split_of(path, self.root) for path in self._every())

    def paths(self, split: str) -> list[Path]:
        return [path for path in self._every() if _split_of(path, self.root) == split]

    def expected_files(self) -> list[str]:
        return [f"{split}-*.tar" for split in ("train", "val", "test")]

    def rows(self, split: str) -> Iterator[tuple[str, Record | Malformed]]:
        for path in self.paths(split):
            inside = path.relative_to(self.root).as_posix()
            for name, members in _groups(path):
                yield f"{path}: {name}", _row(name, members, inside)

    def record(self, row: Record, split: str) -> Record:
        return row

    def _every(self) -> list[Path]:
        found = (path for pattern in ("*.tar", "*/*.tar") for path in self.root.glob(pattern))
        return sorted(path for path in found if is_visible(path))


def _split_of(path: Path, root: Path) -> str:
    if path.parent != root:
        return path.parent.name
    part = _PART.fullmatch(path.stem)
    return part[1] if part else path.stem


def _groups(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """Members that follow each other and share a name."""
    current = ""
    group: list[Member] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = Path(member.name)
                if not member.isreg() or not is_visible(file):
                    continue
                stem, _, ending = file.name.partition(".")
                name = (file.parent / stem).as_posix()
                if group and name != current:
                    yield current, group
                    group = []
                current = name
                group.append((ending, member, _fields(tar, member, ending)))
        if group:
            yield current, group
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DatasetError(
            f"{path}: not an uncompressed tar, or truncated ({error}); get the file again"
        ) from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None


def _fields(tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> bytes | None:
    if ending != "json" or member.size > _LONGEST:
        return None
    file = tar.extractfile(member)
    return None if file is None else file.read()


def _row(name: str, members: list[Member], inside: str) -> Record | Malformed:
    content = next((content for _, _, content in members if content is not None), None)
    pictures = [
        f"{inside}::{member.offset_data}+{member.size}"
        for ending, member, _ in members
        if ending.rpartition(".")[2].lower() in _PICTURES
    ]
    if content is None or not pictures:
        found = ", ".join(ending or "no ending" for ending, _, _ in members)
        return Malformed(f"found {found}; expected a picture and a json of the same name")
    try:
        entry: Any = json.loads(content)
    except (ValueError, RecursionError):
        return Malformed("its json is truncated or invalid, expected one object")
    if not isinstance(entry, dict):
        return Malformed(f"its json is a {type(entry).__name__}, expected an object")
    names = [name, *([f"{name}/{number}" for number in range(1, len(pictures))])]
    fields = {key: value for key, value in entry.items() if key in KEYS}
    return {"image_id": names, **fields, "image": pictures}
