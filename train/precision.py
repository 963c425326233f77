"""In which type a training computes."""

from __future__ import annotations

from typing import Literal

import torch

from train.errors import TrainError
from train.step import COMPUTE_TYPES, Precision
from vqa_cache import bf16_gain

Asked = Literal["auto", "fp32", "bf16", "fp16"]


def choose_precision(asked: Asked, *, rows: int, inner: int, outer: int) -> Precision:
    """What is computed in.

    "auto" takes bf16 where the first layer's product, [rows, inner] x [inner, outer], is at least
    1.3 times faster in it.

    Raises:
        TrainError: this device cannot do what was asked for.
    """
    if asked == "fp16":
        raise TrainError(
            "train.precision = fp16 needs a CUDA device with its gradient scaler, found a CPU; "
            "use auto, fp32 or bf16"
        )
    if asked != "auto":
        return asked
    inputs, weights = torch.ones(rows, inner), torch.ones(inner, outer)
    half = COMPUTE_TYPES["bf16"]
    fast_inputs, fast_weights = inputs.to(half), weights.to(half)
    paying = bf16_gain.pays(lambda: inputs @ weights, lambda: fast_inputs @ fast_weights)
    return "bf16" if paying else "fp32"
