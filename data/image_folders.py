"""Where the images of a dataset lie: each folder is listed once, no image is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

ENDINGS = (".jpg", ".png", ".jpeg")


class ImageFolders:
    """Files by name in the first of several folders that has them."""

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        """`folders` are relative to `root`; the first is where a complete copy has them."""
        self._first = folders[0]
        self._folders: list[tuple[str, frozenset[str]]] = []
        for folder in dict.fromkeys(folders):
            if (root / folder).is_dir():
                names = frozenset(path.name for path in (root / folder).iterdir())
                self._folders.append((folder, names))

    def path(self, *names: str) -> str:
        """The image's path relative to the root: of the names, with one of ENDINGS where a name
        has none, the first that a folder has; else the first of the names in the first folder."""
        wanted = [name + ending for name in names for ending in _endings(name)]
        for folder, there in self._folders:
            for name in wanted:
                if name in there:
                    return f"{folder}/{name}"
        return f"{self._first}/{wanted[0]}"


def _endings(name: str) -> tuple[str, ...]:
    return ("",) if name.lower().endswith(ENDINGS) else ENDINGS


class CocoImages:
    """COCO's images by number: COCO_<subtype>_<12 digits>.jpg of 2014 and 2015, or <12 digits>.jpg
    as in COCO 2017, whose train2017 and val2017 hold the images of 2014 dealt out anew."""

    FOLDERS_2017: ClassVar[dict[str, tuple[str, ...]]] = {
        "train2014": ("train2017", "val2017"),
        "val2014": ("val2017", "train2017"),
        "test2015": ("test2017",),
        "train2017": ("val2017",),
        "val2017": ("train2017",),
        "test2017": (),
    }

    def __init__(self, root: Path, *subtypes: str) -> None:
        """`subtypes`: the folders to look in, the first one first."""
        every = dict.fromkeys(
            folder for subtype in subtypes for folder in (subtype, *self.FOLDERS_2017[subtype])
        )
        self._folders = ImageFolders(
            root, [place for folder in every for place in (folder, f"images/{folder}")]
        )
        old = [subtype for subtype in subtypes if not subtype.endswith("2017")]
        twins = ["train2014", "val2014"] if subtypes[0].endswith("2017") else []
        official = [f"COCO_{subtype}_%012d" for subtype in (*old, *twins)]
        self._stems = [*official, "%012d"] if old else ["%012d", *official]
        self._known: dict[int, str] = {}

    def path(self, image_id: int) -> str:
        """The image's path relative to the root; the official one where no file is found."""
        if image_id not in self._known:
            names = [stem % image_id for stem in self._stems]
            self._known[image_id] = self._folders.path(*names)
        return self._known[image_id]
