"""Writing that survives a crash: a folder of one's own, sync, rename, sync of the folder.

A rename alone is not durable: the folder that holds the name has to be synced as well.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

_PREFIX = ".tmp-"
_WORKSPACE = re.compile(r"\.tmp-[0-9a-f]{32}")
_LOCK = "lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # a file system that has none


class Workspace:
    """A new folder `.tmp-<32 hex digits>` beside a file or folder to be, for one writer alone.

    A lock is held on it while its writer lives, so that others know what was left over: a process
    id and a host's name may be those of a writer in another container as well.

    Attributes:
        path: what is to be written, in the folder under its final name.
    """

    def __init__(self, final: Path) -> None:
        while True:
            folder = final.with_name(_PREFIX + secrets.token_hex(16))
            with naming(final):
                folder.mkdir()
                lock = _take(folder)
            if lock is not None:  # else it was taken for left over before the lock was held
                break
        self.path = folder / final.name
        self._lock = lock

    def close(self) -> None:
        """Delete the folder with what is still in it."""
        if self._lock >= 0:
            remove(self.path.parent)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def claimed(beside: Path, token: str) -> Iterator[bool]:
    """Whether this is the only one to hold the claim `.tmp-<token>` beside a name; it is held while
    the block runs, and goes with its process. Who goes on without it does work twice, no harm.

    Args:
        token: 32 hex digits.
    """
    folder = beside.with_name(_PREFIX + token)
    with naming(beside):
        folder.mkdir(exist_ok=True)
        lock = _take(folder)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            remove(folder)
            os.close(lock)


def _take(folder: Path) -> int | None:
    """The lock of a workspace, held until it is closed; None where it is held or gone. Where the
    file system has no locks, a workspace is nobody's and never counts as left over."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        return None
    try:
        with suppress(FileNotFoundError, BlockingIOError):
            _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / _LOCK)):
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _flock(descriptor: int, how: int) -> bool:
    """Whether the lock is held now; false where the file system has none. Raises BlockingIOError
    where another holds it and `how` says not to wait."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that exists, waiting for it. It goes with its process; a file system
    without locks gives none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks only what may be written
    except PermissionError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_temporary(path: Path | str) -> bool:
    """Whether readers must ignore this name."""
    return os.path.basename(path).startswith(_PREFIX)


def remove_stale_temporaries(root: Path) -> None:
    """Delete what writers that are no longer alive left unfinished, anywhere below a folder."""
    for folder, folders, _ in os.walk(root):
        for name in folders:
            if _WORKSPACE.fullmatch(name):
                _remove_if_stale(Path(folder, name))
        # a finished Zarr shard was synced and named as a whole: nothing unfinished is inside
        folders[:] = [name for name in folders if not is_temporary(name) and name[-5:] != ".zarr"]


def _remove_if_stale(workspace: Path) -> None:
    if has_writer(workspace):
        return
    with suppress(PermissionError):  # another user's
        lock = _take(workspace)
        if lock is not None:
            remove(workspace)
            os.close(lock)


def has_writer(workspace: Path) -> bool:
    """Whether the writer of a temporary name lives, or may live: where there are no locks, or they
    may not be read. A name without a lock, of an earlier version say, has none."""
    try:
        descriptor = os.open(workspace / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True
    try:
        return not _flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, present or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def remove_whole(path: Path) -> None:
    """Delete a folder, present or not, so that no part of it is ever seen under its name."""
    with suppress(FileNotFoundError), Workspace(path) as aside:
        os.rename(path, aside)


def make_folder(folder: Path, root: Path) -> None:
    """Make a folder and those above it, down from `root`, which exists, durably: also those that
    are there already, since whoever made them may have died before it synced."""
    folder.mkdir(parents=True, exist_ok=True)
    for between in folder.absolute().relative_to(root.absolute()).parents:
        sync_folder(root / between)


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
def naming(path: Path) -> Iterator[None]:
    """Say in an OSError of the block which file it was about: a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def publish(temporary: Path, final: Path) -> None:
    """Sync `temporary`, give it its final name and sync the folder."""
    with naming(final):
        sync_tree(temporary)
        put_in_place(temporary, final)


def put_in_place(synced: Path, final: Path) -> None:
    """Give what was synced its final name and sync the folder. A folder that is in the way (left by
    a writer that died before its record) is removed first."""
    with naming(final):
        if synced.is_dir() or final.is_dir():
            remove_whole(final)
        os.replace(synced, final)
        sync_folder(final.parent)


def write_file(final: Path, content: bytes) -> None:
    """Replace or create a file, whole or not at all."""
    with naming(final), Workspace(final) as temporary:
        temporary.write_bytes(content)
        publish(temporary, final)


def create_file(final: Path, content: bytes) -> bool:
    """Create a file, whole or not at all; False, and nothing changed, if the name is taken."""
    with naming(final), Workspace(final) as temporary:
        temporary.write_bytes(content)
        sync_tree(temporary)
        try:
            os.link(temporary, final)  # unlike rename, fails when the name exists
        except FileExistsError:
            return False
        sync_folder(final.parent)
    return True
