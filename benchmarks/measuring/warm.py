"""A warm process that runs our commands, for whatever needs many short processes of their own.

Importing torch, timm and transformers takes seconds. So tests and benchmarks of kills, limits and
exit codes ask one server, which has imported everything and computed nothing, to fork for them.
This module run as a script is that server.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import click

from benchmarks.measuring.file_calls import FileCalls
from benchmarks.measuring.namespaces import own_processes

ROOT = Path(__file__).parent.parent.parent
STAGE_1 = ("precompute", "vqa_cache")


@dataclass(frozen=True)
class Finished:
    """How a run ended; a negative status is the signal that killed it.

    Attributes:
        operations: the calls that changed files and were seen, in order.
    """

    status: int
    stdout: str
    stderr: str
    operations: list[str]

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

    def __init__(
        self,
        folder: Path,
        encoders: Iterable[tuple[str, str]] = (),
        modules: Sequence[str] = STAGE_1,
    ) -> None:
        """
        Args:
            folder: what runs say is kept in it.
            encoders: (spec, modality) that the server loads once, which imports what the libraries
                import late.
            modules: those that can be run; `<module>.__main__` has a click command, `main` or
                `command`.
        """
        self._folder = folder
        self.hub = folder / "hub"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(self.hub)}
        asked = {"encoders": list(encoders), "modules": list(modules)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measuring.warm", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._count = 0
        self._lock = Lock()  # threads may share a server

    def start(self, *arguments: object, module: str = "precompute", **how: Any) -> Started:
        """Begin a run.

        Args:
            how: `threads`; `file_limit`: bytes a file may have; `file_handles`, `memory`: how many
                may be open, bytes of address space beyond what is used; `patient`: truncated images
                are decoded; `own_processes`: a pid namespace of its own; and what `FileCalls`
                takes, `count` alone to have the operations told.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._count += 1
            output = self._folder / str(self._count)
            output.mkdir(parents=True)
            request = {"arguments": list(map(str, arguments)), "module": module} | how
            request["output"] = str(output)
            self._process.stdin.write(json.dumps(request) + "\n")
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
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()


@dataclass(frozen=True)
class Started:
    """A run in its own process.

    Attributes:
        pid: of the process.
        output: a folder of what it says.
    """

    pid: int
    output: Path

    @property
    def ended(self) -> bool:
        """Whether it has come to its end."""
        return (self.output / "status").exists()

    def kill(self) -> None:
        """SIGKILL, where it runs still."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 60) -> Finished:
        """Until its end; TimeoutError, and a kill, after so many seconds."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError((self.output / "stderr").read_text())
            time.sleep(0.005)
        operations = self.output / "operations"
        return Finished(
            int((self.output / "status").read_text()),
            (self.output / "stdout").read_text(),
            (self.output / "stderr").read_text(),
            operations.read_text().splitlines() if operations.exists() else [],
        )


# ---------------------------------------------------------------- the server


def _serve(encoders: list[list[str]], modules: list[str]) -> None:
    """Fork for every line of stdin; a waiter process writes down how each child ended."""
    from precompute.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    import zarr  # noqa: F401

    from precompute.encoders import load_encoder
    from vqa_cache.spec import parse_spec

    commands = {name: _command(name) for name in modules}
    for spec, modality in encoders:  # with one thread, nothing hinders a fork
        load_encoder(parse_spec(spec), modality)  # type: ignore[arg-type]
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            _wait_for_child(request, commands[request["module"]], writing)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # waiters that are done
                pass
        os.close(writing)
        with os.fdopen(reading) as pipe:
            print(pipe.read(), flush=True)


def _command(module: str) -> click.Command:
    """What `python -m <module>` runs."""
    found = vars(importlib.import_module(f"{module}.__main__"))
    command: click.Command = found.get("main") or found["command"]
    return command


def _wait_for_child(request: dict[str, Any], command: click.Command, pipe: int) -> None:
    if request.get("own_processes"):
        own_processes()
    child = os.fork()
    if child == 0:
        os.close(pipe)
        _run(request, command)
    os.write(pipe, str(child).encode())
    os.close(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    target = Path(request["output"]) / "status"
    target.with_suffix(".part").write_text(str(status))
    target.with_suffix(".part").rename(target)
    os._exit(0)


def _run(request: dict[str, Any], command: click.Command) -> None:
    output = Path(request["output"])
    for name, number in (("stdout", 1), ("stderr", 2)):
        descriptor = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        _prepare(request, output)
        command(request["arguments"], prog_name=request["module"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _prepare(request: dict[str, Any], output: Path) -> None:
    import torch

    torch.set_num_threads(request.get("threads", 1))
    _limit(request)
    if request.get("patient"):
        from PIL import ImageFile

        ImageFile.LOAD_TRUNCATED_IMAGES = True
    if {"count", "kill_at", "fail_at", "pause_at", "record"} & request.keys():
        FileCalls(request, output).install()


def _limit(request: dict[str, Any]) -> None:
    import resource

    if "file_limit" in request:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    if "file_handles" in request:
        resource.setrlimit(resource.RLIMIT_NOFILE, (request["file_handles"],) * 2)
    if "memory" in request:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * os.sysconf("SC_PAGE_SIZE") + request["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    _serve(**json.loads(sys.argv[1]))
