"""What makes a table another table, and what does not."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BERT, SIZES, VIT, save_bert

import vqa_cache
from benchmarks.measuring.warm import Finished, Warm
from precompute.encoders import load_encoder
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")


def identity(text: str, modality: Modality = "image", dtype: str = "float16") -> str:
    return load_encoder(parse_spec(text), modality).identity(dtype).id


def change_json(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    assert all(content.get(name) != value for name, value in values.items())
    path.write_text(json.dumps(content | values))


def change_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(name for name in sorted(state) if name.endswith("weight") and state[name].ndim == 2)
    state[name][0, 0] += 1e-3
    save_file(state, path, metadata={"format": "pt"})


def change_activation(folder: Path) -> None:
    change_json(folder / "config.json", hidden_act="relu")


def change_epsilon(folder: Path) -> None:
    change_json(folder / "config.json", layer_norm_eps=1e-3)


def change_resize_filter(folder: Path) -> None:
    change_json(folder / "preprocessor_config.json", resample=3)


def change_normalisation(folder: Path) -> None:
    change_json(folder / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.4])


def change_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["big"], words["very"] = words["very"], words["big"]
    path.write_text(json.dumps(content))


def change_case(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", do_lower_case=False)


IMAGE_CHANGES = [
    change_weight, change_activation, change_epsilon, change_resize_filter, change_normalisation
]  # fmt: skip
TEXT_CHANGES = [change_weight, change_activation, change_epsilon, change_tokenizer, change_case]


@pytest.mark.parametrize("change", IMAGE_CHANGES)
def test_an_image_model_changed_is_another(
    tmp_path: Path, vit_folder: Path, change: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    before = identity(f"dir:{folder}")
    assert identity(f"dir:{vit_folder}") == before
    change(folder)
    assert identity(f"dir:{folder}") != before


@pytest.mark.parametrize("change", TEXT_CHANGES)
def test_a_text_model_changed_is_another(
    tmp_path: Path, bert_folder: Path, change: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    before = identity(f"dir:{folder}", "text")
    assert identity(f"dir:{bert_folder}", "text") == before
    change(folder)
    assert identity(f"dir:{folder}", "text") != before


def test_every_choice_makes_another_table(vit_folder: Path) -> None:
    resnet = "timm:test_resnet:random=0:size=32"
    texts = [
        resnet, f"{resnet}:interpolation=nearest", f"{resnet}:crop_pct=0.5", f"{resnet}:tap=layer1",
        f"{resnet}:tap=layer1:grid=2", f"{resnet}:tap=layer2", resnet.replace("32", "64"),
        "timm:test_resnet:random=1:size=32", f"dir:{vit_folder}", f"dir:{vit_folder}:tap=mean",
        f"dir:{vit_folder}:grid=2", VIT, VIT.replace("random=0", "random=1"), f"{VIT}:tap=pooler",
    ]  # fmt: skip
    ids = [identity(text) for text in texts]
    ids += [identity(resnet, dtype=dtype) for dtype in ("float32", "bfloat16")]
    ids += [identity(text, "text") for text in (BERT, f"{BERT}:tap=cls", f"{BERT}:max_length=9")]
    assert len(set(ids)) == len(ids)


def test_where_and_with_how_many_threads_is_no_part(tmp_path: Path, vit_folder: Path) -> None:
    moved = shutil.copytree(vit_folder, tmp_path / "quite" / "another-name")
    threads = torch.get_num_threads()
    before = identity(f"dir:{vit_folder}")
    torch.set_num_threads(threads + 1)
    try:
        assert identity(f"dir:{moved}") == before
    finally:
        torch.set_num_threads(threads)
    record = load_encoder(parse_spec(f"dir:{moved}"), "image").identity("float16").as_json()
    assert str(tmp_path) not in json.dumps(record)
    assert record["model"] is None


def test_a_prepared_item_changes_nothing(bert_folder: Path) -> None:
    encoder = load_encoder(parse_spec(f"dir:{bert_folder}"), "text")
    before = encoder.identity("float16")
    encoder.prepare("word " * 1000)
    assert encoder.identity("float16") == before


# ---------------------------------------------------------------- through the command


class Command:
    """Stage 1 over one dataset into one cache, again and again."""

    def __init__(self, warm: Warm, dataset: Path, cache: Path) -> None:
        self._warm, self._dataset, self.cache = warm, dataset, cache

    def __call__(self, *arguments: object, **how: Any) -> Finished:
        where = ("--dataset", "jsonl", "--root", self._dataset, "--cache", self.cache)
        return self._warm(*where, "--precision", "fp32", *arguments, **how)

    def encoded(self, *arguments: object, **how: Any) -> dict[str, int]:
        """Table -> rows that this run encoded."""
        done = self(*arguments, "--json", **how)
        assert done.status == 0, done.stderr
        return {row["table"]: row["encoded"] for row in json.loads(done.stdout)["tables"]}

    @property
    def tables(self) -> list[str]:
        return list(vqa_cache.open(self.cache).tables)


@pytest.fixture
def command(warm: Warm, dataset: Path, tmp_path: Path) -> Command:
    return Command(warm, dataset, tmp_path / "cache")


@pytest.mark.parametrize("change", [change_weight, change_activation, change_resize_filter])
def test_a_changed_folder_is_noticed_and_encoded_beside(
    command: Command, tmp_path: Path, vit_folder: Path, change: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    assert list(command.encoded("--image", f"dir:{folder}").values()) == [10]
    change(folder)
    assert list(command.encoded("--image", f"dir:{folder}").values()) == [10]
    assert len(command.tables) == 2
    assert list(command.encoded("--image", f"dir:{folder}").values()) == [0]
    assert len(command.tables) == 2


@pytest.mark.parametrize("where", ["model", "option"])
def test_a_changed_tokenizer_is_noticed(
    command: Command, tmp_path: Path, bert_folder: Path, where: str
) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "words")
    random = f"hf:bert:random=0:{SIZES}:tokenizer=dir:{folder}"
    text = f"dir:{folder}" if where == "model" else random
    first = command.encoded("--text", text)
    change_tokenizer(folder)
    second = command.encoded("--text", text)
    assert list(first.values()) == list(second.values()) == [26]
    assert set(first) != set(second)


def test_changed_weights_of_timm_are_noticed(command: Command, tmp_path: Path) -> None:
    import timm

    path = tmp_path / "weights.pth"
    tables: set[str] = set()
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_resnet").state_dict(), path)
        tables |= set(command.encoded("--image", f"timm:test_resnet:weights={path}:size=32"))
    assert len(tables) == 2


def test_nothing_else_encodes_again(command: Command, tmp_path: Path, vit_folder: Path) -> None:
    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    what = ("--image", f"dir:{folder}", "--text", BERT)
    first = command.encoded(*what)
    assert sum(first.values()) == 36
    nothing = dict.fromkeys(first, 0)
    assert command.encoded(*what, "--workers", 4) == nothing
    assert command.encoded(*what, threads=2) == nothing
    (command.cache / "memo.sqlite").unlink()
    assert command.encoded(*what, threads=2) == nothing
    assert command.encoded(*what, "--rehash") == nothing
    moved = folder.rename(tmp_path / "renamed")
    assert command.encoded("--image", f"dir:{moved}", "--text", BERT) == nothing
    command.cache = command.cache.rename(tmp_path / "moved cache")
    assert command.encoded("--image", f"dir:{moved}", "--text", BERT) == nothing
    # both names that the folder had find the table
    cache = vqa_cache.open(command.cache)
    for name in ("vit", "renamed"):
        assert cache.find_table(f"dir:/anywhere/{name}", "image").name in first


def test_a_moved_dataset_encodes_nothing_again(command: Command, tmp_path: Path) -> None:
    first = command.encoded("--image", VIT)
    command._dataset = shutil.copytree(command._dataset, tmp_path / "elsewhere")
    assert command.encoded("--image", VIT) == dict.fromkeys(first, 0)


def test_rehash_ignores_what_is_remembered_of_encoders(command: Command) -> None:
    first = command.encoded("--image", VIT)
    memo = command.cache / "memo.sqlite"
    connection = sqlite3.connect(memo)
    connection.execute("UPDATE identities SET table_id = 'ff'")
    connection.commit()
    connection.close()
    assert command.encoded("--image", VIT) == dict.fromkeys(first, 0)  # an id that no table has
    [other] = command.encoded("--image", VIT.replace("random=0", "random=1"))
    connection = sqlite3.connect(memo)
    wrong = vqa_cache.open(command.cache).tables[other].id
    connection.execute("UPDATE identities SET table_id = ?", (wrong,))
    connection.commit()
    connection.close()
    assert set(command.encoded("--image", VIT, "--rehash")) == set(first)


@pytest.mark.parametrize(
    ("option", "recorded", "other"),
    [
        ("--precision", "fp32", "bf16"),
        ("--batch-size", "3", "4"),
        ("--format", "hdf5", "zarr"),
        ("--rows-per-shard", "7", "8"),
    ],
)
def test_another_setting_is_refused_and_the_recorded_one_named(
    warm: Warm, dataset: Path, tmp_path: Path, option: str, recorded: str, other: str
) -> None:
    cache = tmp_path / "cache"
    base = ("--dataset", "jsonl", "--root", dataset, "--cache", cache, "--image", VIT)
    begun = {"--precision": "fp32", option: recorded}
    assert warm(*base, *(part for pair in begun.items() for part in pair)).status == 0
    before = {path: path.read_bytes() for path in cache.rglob("*.json")}
    told = warm(*base, option, other).error_line()
    assert f"was begun with {option} {recorded}, asked for {other}" in told
    assert "image/transformers.vit/cls/float16@" in told
    assert {path: path.read_bytes() for path in cache.rglob("*.json")} == before
    assert warm(*base, option, recorded).status == 0
    assert warm(*base).status == 0


# ---------------------------------------------------------------- a hub, as it lies on disk


@pytest.fixture
def hub(warm: Warm, libraries: None) -> Path:
    """The folder of org/tiny in the hub's cache: two commits that differ in the tokenizer alone."""
    folder = warm.hub / "models--org--tiny"
    shutil.rmtree(folder, ignore_errors=True)
    first = save_bert(folder / "snapshots" / ("a" * 40))
    second = shutil.copytree(first, folder / "snapshots" / ("b" * 40))
    change_tokenizer(second)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "refs" / "v2").write_text("b" * 40)
    return folder


def tokenizers(command: Command) -> dict[str, str]:
    """Table -> digest of the tokenizer it was made with."""
    return {
        name: table.record.identity.preprocessing["tokenizer"]
        for name, table in vqa_cache.open(command.cache).tables.items()
    }


def test_a_revision_brings_its_own_tokenizer(command: Command, hub: Path) -> None:
    [main] = command.encoded("--text", "hf:org/tiny")
    [other] = command.encoded("--text", "hf:org/tiny@v2")
    assert main != other
    found = tokenizers(command)
    assert found[main] != found[other]


def test_a_revision_needs_no_main(command: Command, hub: Path) -> None:
    (hub / "refs" / "main").unlink()
    assert list(command.encoded("--text", "hf:org/tiny@" + "b" * 40).values()) == [26]


def test_the_resolved_revision_is_the_identity(command: Command, hub: Path) -> None:
    [main] = command.encoded("--text", "hf:org/tiny")
    record = vqa_cache.open(command.cache).tables[main].record
    assert record.identity.revision == "a" * 40
    # the same commit by its own name is the same table
    assert command.encoded("--text", "hf:org/tiny@" + "a" * 40) == {main: 0}
    assert command.encoded("--text", "hf:org/tiny") == {main: 0}
    # a branch that moved on is another
    (hub / "refs" / "main").write_text("b" * 40)
    [moved] = command.encoded("--text", "hf:org/tiny")
    assert moved != main
    assert command.encoded("--text", "hf:org/tiny@v2") == {moved: 0}
