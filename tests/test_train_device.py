"""Where stage 2 computes, and in what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from train.engine.precision import check_precision, choose_precision
from train.errors import TrainError
from train.inputs.device import environment, rng_devices
from vqa_cache.system.device import CPU, choose_device, device_name

GPU = torch.device("cuda", 0)


def test_without_a_gpu_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device = choose_device()
    assert device == CPU
    assert device_name(device) == "cpu"
    assert rng_devices(device) == []
    assert environment(device)["device"] == "cpu"
    assert rng_devices(GPU) == [0]


def choose(asked: Any, device: torch.device) -> str:
    return choose_precision(asked, device, rows=8, inner=8, outer=8)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu_is_bf16_where_it_has_that(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    assert choose("auto", GPU) == expected
    assert choose("fp16", GPU) == "fp16"


def test_what_a_device_cannot_do_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainError, match=r"^train.precision = fp16 needs a CUDA device with its"):
        choose("fp16", CPU)
    with pytest.raises(TrainError, match=r"^fp16, in which the run was begun, needs a CUDA device"):
        check_precision("fp16", CPU, "fp16, in which the run was begun,")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    expected = r"^train.precision = bf16 needs a GPU of compute capability 8.0 .* found Tesla V100;"
    with pytest.raises(TrainError, match=expected):
        choose("bf16", GPU)
