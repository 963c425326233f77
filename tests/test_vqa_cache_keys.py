"""Content keys and canonical JSON."""

from __future__ import annotations

import hashlib
import json
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_cache.keys import (
    canonical_json,
    image_key,
    json_digest,
    nfc,
    pack_keys,
    text_key,
    unpack_keys,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_an_image_key_is_what_sha256sum_prints(tmp_path: Path, size: int) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(np.random.default_rng(size).bytes(size))
    printed = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    assert image_key(file).hex() == printed.stdout[:32]


def test_an_image_key_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        image_key(tmp_path / "none.jpg")


def test_a_text_key_is_what_sha256sum_prints() -> None:
    text = "wie groß ist die Katze?"
    printed = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True)
    assert text_key(text).hex() == printed.stdout.decode()[:32]


def test_composed_and_decomposed_letters_are_one_text() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert composed != decomposed
    assert text_key(composed) == text_key(decomposed)
    assert nfc(decomposed) == composed
    # compatibility forms stay apart: that would be NFKC
    assert text_key("\ufb01") != text_key("fi")
    assert text_key("yes") != text_key("yes ")


@given(st.text())
def test_a_text_key_is_the_head_of_the_digest_of_its_normal_form(text: str) -> None:
    normal = unicodedata.normalize("NFC", text)
    assert text_key(text) == hashlib.sha256(normal.encode()).digest()[:16] == text_key(normal)


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_keys_survive_packing(keys: list[bytes]) -> None:
    packed = pack_keys(keys)
    assert packed.shape == (len(keys), 16)
    assert packed.dtype == np.uint8
    assert unpack_keys(packed) == keys


def test_canonical_json_by_example() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ö": 'say "hi"\n', "Z": []}}
    assert canonical_json(value) == (
        '{"a":{"Z":[],"ö":"say \\"hi\\"\\n"},"b":[1,2.5,null,true]}'.encode()
    )


@given(JSON)
def test_canonical_json_loses_nothing_and_has_one_form(value: object) -> None:
    written = canonical_json(value)
    assert json.loads(written) == value
    assert canonical_json(json.loads(written)) == written
    assert json_digest(value) == hashlib.sha256(written).hexdigest()


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_insertion_does_not_show(value: dict[str, int]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_does_not_know_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"cosine": number})
