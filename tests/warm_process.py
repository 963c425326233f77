"""A warm process that runs stage 1, for tests that need a process of their own.

Importing torch, timm and transformers takes seconds, so tests of kills, limits and exit codes ask
one server, which has imported everything and computed nothing, to fork for them. This file run as a
script is that server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Finished:
    """How a run ended; a negative status is the signal that killed it."""

    status: int
    stdout: str
    stderr: str
    events: int

    def error_line(self) -> str:
        """The one line of a user's error: exit 1, nothing else on stderr but notes and progress."""
        assert self.status == 1, (self.status, self.stdout, self.stderr)
        assert "Traceback" not in self.stderr, self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.stderr
        assert self.stderr.rstrip("\n").splitlines()[-1] == lines[0], self.stderr
        return lines[0].removeprefix("error: ")


class Warm:
    """Runs `python -m MODULE ARGS` in a fork of a process that has imported everything.

    Attributes:
        hub: an empty folder that the model hub's library takes for its cache; it is offline.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.hub = folder / "hub"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(self.hub)}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._count = 0

    def start(self, *arguments: object, module: str = "precompute", **how: Any) -> Started:
        """Begin a run.

        Args:
            how: `threads`; `count`: count the operations that change files; `kill_at`: SIGKILL
                just before this one; `full_at`: from this one on the disk is full; `file_limit`:
                bytes a file may have.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        output = self._folder / str(self._count)
        output.mkdir()
        request = {"arguments": list(map(str, arguments)), "module": module, "output": str(output)}
        self._process.stdin.write(json.dumps(request | how) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise RuntimeError(self._process.stderr.read())
        return Started(int(line), output)

    def __call__(self, *arguments: object, module: str = "precompute", **how: Any) -> Finished:
        """Run to the end."""
        return self.start(*arguments, module=module, **how).wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()


@dataclass(frozen=True)
class Started:
    """A run in its own process."""

    pid: int
    output: Path

    def wait(self, seconds: float = 60) -> Finished:
        deadline = time.monotonic() + seconds
        while not (self.output / "status").exists():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError((self.output / "stderr").read_text())
            time.sleep(0.01)
        events = self.output / "events"
        return Finished(
            int((self.output / "status").read_text()),
            (self.output / "stdout").read_text(),
            (self.output / "stderr").read_text(),
            int(events.read_text() or 0) if events.exists() else 0,
        )


# ---------------------------------------------------------------- the server


def _serve() -> None:
    """Fork for every line of stdin; a waiter process writes down how each child ended."""
    import precompute.__main__
    from precompute.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    import zarr  # noqa: F401
    from conftest import BERT, RESNET, VIT

    import vqa_cache.__main__
    from precompute.encoders import load_encoder
    from vqa_cache.spec import parse_spec

    # loading imports what the libraries import late; with one thread, nothing hinders a fork
    load_encoder(parse_spec(VIT), "image")
    load_encoder(parse_spec(BERT), "text")
    load_encoder(parse_spec(RESNET), "image")

    mains = {"precompute": precompute.__main__.main, "vqa_cache": vqa_cache.__main__.main}
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            _wait_for_child(request, mains[request["module"]], writing)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # waiters that are done
                pass
        os.close(writing)
        with os.fdopen(reading) as pipe:
            print(pipe.read(), flush=True)


def _wait_for_child(request: dict[str, Any], main: Callable[..., Any], pipe: int) -> None:
    child = os.fork()
    if child == 0:
        os.close(pipe)
        _run(request, main)
    os.write(pipe, str(child).encode())
    os.close(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    target = Path(request["output"]) / "status"
    target.with_suffix(".part").write_text(str(status))
    target.with_suffix(".part").rename(target)
    os._exit(0)


def _run(request: dict[str, Any], main: Callable[..., Any]) -> None:
    output = Path(request["output"])
    for name, number in (("stdout", 1), ("stderr", 2)):
        descriptor = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        _prepare(request, output)
        main(request["arguments"], prog_name=request["module"])
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _prepare(request: dict[str, Any], output: Path) -> None:
    import torch

    torch.set_num_threads(request.get("threads", 1))
    if "file_limit" in request:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], request["file_limit"]))
    if "count" in request or "kill_at" in request or "full_at" in request:
        count_operations(request, output)


def count_operations(request: Mapping[str, Any], output: Path) -> None:
    """Count what changes files under the eyes of a crash; kill or fail at one of them."""
    import errno

    count = 0
    kill_at, full_at = request.get("kill_at", -1), request.get("full_at", -1)

    def counted(original: Callable[..., Any], half: Callable[..., Any] | None) -> Any:
        """`half` does half of a write, as a kill in its midst would leave it."""

        def operation(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            if count == kill_at:
                if half is not None:
                    half(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            if half is not None and -1 < full_at <= count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count += 1
            (output / "events").write_text(str(count))
            return original(*arguments, **more)

        return operation

    pwrite, write_bytes = os.pwrite, Path.write_bytes
    os.pwrite = counted(pwrite, lambda file, data, at: pwrite(file, data[: len(data) // 2], at))
    Path.write_bytes = counted(  # type: ignore[method-assign]
        write_bytes, lambda path, data: write_bytes(path, data[: len(data) // 2])
    )
    for name in ("fsync", "replace", "rename", "link"):
        setattr(os, name, counted(getattr(os, name), None))


if __name__ == "__main__":
    _serve()
