"""Splits and small pictures of a cache, listed in `seal.json` at its root, so that no loss of one
passes in silence (FORMAT.md section 7)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import xxhash

from vqa_cache.commit import committing
from vqa_cache.errors import CacheError, DamagedError, is_shortage
from vqa_cache.examples import current_record, newest_generation
from vqa_cache.records.contents import ContentsRecord, PictureEntry, SplitEntry
from vqa_cache.records.record import encode_record, read_record, stamped
from vqa_cache.records.split import SplitRecord
from vqa_cache.system.durable import is_temporary, write_file

FILE = "seal.json"
THUMBNAILS = "thumbnails"


def read_contents(root: Path) -> ContentsRecord:
    """What is listed; nothing where the list is absent, damaged or of a newer version."""
    with suppress(FileNotFoundError, CacheError):
        return read_record(root / FILE, ContentsRecord)
    return ContentsRecord({}, {})


def split_folders(root: Path) -> dict[str, Path]:
    """Folders of splits that have a record, valid or not, by name."""
    paths = sorted((root / "examples").glob("*/*/[0-9]*.json"))
    folders = dict.fromkeys(path.parent for path in paths if not is_temporary(path))
    return {f"{folder.parent.name}/{folder.name}": folder for folder in folders}


def split_record(root: Path, name: str) -> SplitRecord:
    """The current record of a split that exists.

    Raises:
        DamagedError: it is damaged, or not the one that is listed.
        NewerFormatError: a newer version wrote it.
    """
    folder, listed = root / "examples" / name, read_contents(root).splits.get(name)
    if listed is not None and newest_generation(folder) < listed.generation:
        raise DamagedError(f"{folder}: generation {listed.generation} is gone")
    record = current_record(folder)
    if record is None:
        raise DamagedError(f"{folder}: split {name!r} has no record")
    same_number = listed is not None and record.generation == listed.generation
    if same_number and listed != _split_entry(record):
        raise DamagedError(
            f"{folder}: generation {record.generation} is not the one that was "
            f"written: its record differs from what {root / FILE} lists"
        )
    return record


def _split_entry(record: SplitRecord) -> SplitEntry:
    return SplitEntry(record.generation, stamped(record)["digest"])


def picture_path(root: Path, key: str) -> Path:
    """Where the small picture of an image is, if there is one."""
    return root / THUMBNAILS / f"{key}.jpg"


def picture_entry(content: bytes) -> PictureEntry:
    """What is listed of a picture's file."""
    return PictureEntry(len(content), xxhash.xxh3_128_hexdigest(content))


def picture_problem(root: Path, key: str, entry: PictureEntry) -> str | None:
    """What is wrong with a listed picture."""
    path = picture_path(root, key)
    try:
        same = picture_entry(path.read_bytes()) == entry
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        if is_shortage(error):
            raise
        return f"{path}: cannot be read ({error.strerror})"
    return None if same else f"{path}: its bytes differ from those that were written"


def list_contents(
    root: Path,
    *,
    splits: Collection[str] = (),
    pictures: Mapping[str, PictureEntry] | None = None,
    gone: Collection[str] = (),
) -> None:
    """List what was committed, beside what is listed already; without a valid list, all that lies
    there.

    Args:
        splits: names of splits whose current generation was committed.
        pictures: of these image keys.
        gone: keys of images that have no picture any more.
    """
    with committing(root / FILE):
        try:
            listed = read_record(root / FILE, ContentsRecord)
        except (FileNotFoundError, DamagedError):
            listed = _found(root)
        entries = dict(listed.splits)
        for name in splits:
            record = current_record(root / "examples" / name)
            if record is not None:
                entries[name] = _split_entry(record)
        shown = {**listed.thumbnails, **(pictures or {})}
        for key in gone:
            shown.pop(key, None)
        content = encode_record(ContentsRecord(entries, shown))
        path = root / FILE
        if not path.is_file() or path.read_bytes() != content:
            write_file(path, content)


def _found(root: Path) -> ContentsRecord:
    splits = {}
    for name, folder in split_folders(root).items():
        with suppress(CacheError):
            record = current_record(folder)
            if record is not None:
                splits[name] = _split_entry(record)
    files = sorted((root / THUMBNAILS).glob("[0-9a-f]*.jpg"))
    return ContentsRecord(splits, {path.stem: picture_entry(path.read_bytes()) for path in files})
