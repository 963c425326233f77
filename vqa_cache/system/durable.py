"""Writing that survives a crash: temporary name, sync, rename, sync of the folder.

A rename alone is not durable: the folder that holds the name has to be synced as well.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".tmp-"


def temporary_path(final: Path) -> Path:
    """A name beside `final` that no other live process uses and that readers ignore."""
    return final.with_name(f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-{final.name}")


def is_temporary(path: Path | str) -> bool:
    """Whether readers must ignore this name."""
    return os.path.basename(path).startswith(_PREFIX)


def remove_stale_temporaries(root: Path) -> None:
    """Delete what processes of this machine that are no longer alive left unfinished, anywhere
    below a folder."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if live_writer(name) is False:
                remove(Path(folder, name))
        # a finished Zarr shard was synced and named as a whole: nothing unfinished is inside
        folders[:] = [name for name in folders if not is_temporary(name) and name[-5:] != ".zarr"]


def live_writer(path: Path | str) -> bool | None:
    """Whether the process that writes a temporary name is alive; None on another machine."""
    mine = f"{_PREFIX}{socket.gethostname()}-"
    name = os.path.basename(path)
    pid = name.removeprefix(mine).split("-", 1)[0] if name.startswith(mine) else ""
    return _is_alive(int(pid)) if pid.isdecimal() else None


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder, present or not."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def remove_whole(path: Path) -> None:
    """Delete a folder, present or not, so that no part of it is ever seen under its name."""
    aside = temporary_path(path.with_name("old-" + path.name))
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        remove(aside)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make a file, or a folder with everything in it, durable."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            sync_tree(child)
        sync_folder(path)
    else:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Delete `path` when the block raises, so that a full disk is not filled for good."""
    try:
        yield
    except BaseException:
        remove(path)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say in an OSError of the block which file it was about: a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def publish(temporary: Path, final: Path) -> None:
    """Sync `temporary`, give it its final name and sync the folder. A folder that is in the way
    (left by a writer that died before its record) is removed first."""
    with naming(final):
        sync_tree(temporary)
        if final.is_dir():
            remove_whole(final)
        os.replace(temporary, final)
        sync_folder(final.parent)


def write_file(final: Path, content: bytes) -> None:
    """Replace or create a file, whole or not at all."""
    temporary = temporary_path(final)
    with removed_on_error(temporary), naming(final):
        temporary.write_bytes(content)
        publish(temporary, final)


def create_file(final: Path, content: bytes) -> bool:
    """Create a file, whole or not at all; False, and nothing changed, if the name is taken."""
    temporary = temporary_path(final)
    with removed_on_error(temporary), naming(final):
        temporary.write_bytes(content)
        sync_tree(temporary)
        try:
            os.link(temporary, final)  # unlike rename, fails when the name exists
        except FileExistsError:
            return False
        finally:
            remove(temporary)
        sync_folder(final.parent)
    return True
