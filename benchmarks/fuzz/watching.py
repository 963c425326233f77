"""Running one input after another in processes of their own, and seeing whatever goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from data.example import DatasetError
from data.images import ImageError
from precompute.errors import PrecomputeError
from train.errors import TrainError
from vqa_cache.errors import CacheError

SECONDS = 20  # for one input, on a machine that does other things too
_USERS = (
    CacheError,
    DatasetError,
    ImageError,
    PrecomputeError,
    TrainError,
    OSError,
)  # one line each
# event -> positions of each path and of the open folder that it starts from
_CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
}
_NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_watched: list[Path] = []  # the folder that an input may change, while one runs
_seen: list[str] = []


@dataclass(frozen=True)
class Crash:
    """An input that made something go wrong: its target and number, and what."""

    target: str
    number: int
    what: str


def run_inputs(
    target: str, numbers: range, folder: Path, prepare: Callable[[Path], Callable[[int], None]]
) -> Iterator[Crash]:
    """Run inputs in a child process, in another one after each that dies.

    Args:
        folder: each child has one of its own in it, whose files alone may change.
        prepare: from that folder to what runs the input of a number. It is called in the child,
            since threads that a library begins do not outlive a fork.
    """
    start = numbers.start
    while start < numbers.stop:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _in_child(range(start, numbers.stop), folder / str(start), prepare, writer)
        os.close(writer)
        last, status = start, -1
        try:
            with os.fdopen(reader, errors="replace") as file:
                for line in file:
                    number, _, what = line.rstrip("\n").partition(" ")
                    last = int(number)
                    if what:
                        yield Crash(target, last, what)
            _, status = os.waitpid(child, 0)
        finally:
            if status == -1:  # this process is being stopped
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        if status:
            yield Crash(target, last, f"the process ended with status {status}")
        start = last + 1 if status else numbers.stop


def _in_child(
    numbers: range,
    folder: Path,
    prepare: Callable[[Path], Callable[[int], None]],
    writer: int,
) -> None:
    """Never returns."""
    try:
        os.fsync = lambda fd: None  # what is written need not outlive the machine
        folder.mkdir()
        attempt = prepare(folder)
        sys.addaudithook(_audit)
        signal.signal(signal.SIGALRM, _too_long)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in numbers:
            os.write(writer, f"{number} \n".encode())  # so that a death has a number
            for what in run_one(folder, partial(attempt, number)):
                told = what.replace("\n", " ")
                os.write(writer, f"{number} {told}\n".encode(errors="backslashreplace"))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(9)


def run_one(folder: Path, attempt: Callable[[], None]) -> Iterator[str]:
    """Run one input; what went wrong: an error that is no user's, too much time, a file outside."""
    _seen.clear()
    with _alarm():
        _watched[:] = [folder]
        try:
            attempt()
        except _USERS as error:
            if "\n" in str(error) and not isinstance(error, TrainError):  # tells all at once
                yield f"a message of several lines: {str(error)!r}"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            yield f"{type(error).__name__} at {last.filename}:{last.lineno}: {str(error)[:200]!r}"
        finally:
            _watched.clear()
    yield from dict.fromkeys(_seen)


@contextmanager
def _alarm() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise RuntimeError(f"took more than {SECONDS} s")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event in _NEVER:
        _seen.append(f"{event} {arguments[0]!r}")
    elif event == "open":
        path, mode, flags = arguments
        if flags & _WRITING if mode is None else set(mode) & set("wax+"):
            _inside(event, path, -1)
    elif event in _CHANGES:
        for path, folder in _CHANGES[event]:
            _inside(event, arguments[path], arguments[folder] if folder is not None else -1)


def _inside(event: str, path: Any, folder: int) -> None:
    """Note a path that is not in the watched folder.

    Args:
        folder: what a relative path starts from, an open one; -1 for the working folder.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        return  # an open file
    base = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
    whole = os.path.realpath(os.path.join(base, os.fsdecode(path)))
    if not Path(whole).is_relative_to(_watched[0]) and whole != os.devnull:
        _seen.append(f"{event} of {whole!r}, which is outside")
