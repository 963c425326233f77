"""In which type a training computes."""

from __future__ import annotations

from typing import Literal

import torch

from train.config.precisions import COMPUTE_TYPES, Precision
from train.errors import TrainError
from vqa_cache.system import bf16_gain
from vqa_cache.system.device import device_name

Asked = Literal["auto", "fp32", "bf16", "fp16"]


def choose_precision(
    asked: Asked, device: torch.device, *, rows: int, inner: int, outer: int
) -> Precision:
    """What is computed in.

    "auto" is bf16 on a GPU that has it; on a CPU where the first layer's product, [rows, inner] x
    [inner, outer], is at least 1.3 times faster in it.

    Raises:
        TrainError: this device cannot do what was asked for.
    """
    if asked != "auto":
        check_precision(asked, device, f"train.precision = {asked}")
        return asked
    _sum_products_in_float32()
    if device.type == "cuda":
        return "bf16" if _has_bf16() else "fp32"
    inputs, weights = torch.ones(rows, inner), torch.ones(inner, outer)
    half = COMPUTE_TYPES["bf16"]
    fast_inputs, fast_weights = inputs.to(half), weights.to(half)
    paying = bf16_gain.pays_on_cpu(lambda: inputs @ weights, lambda: fast_inputs @ fast_weights)
    return "bf16" if paying else "fp32"


def check_precision(precision: Precision, device: torch.device, what: str) -> None:
    """Raises TrainError where a device cannot compute in a precision; `what` names who needs it."""
    _sum_products_in_float32()
    if device.type == "cpu" and precision == "fp16":
        raise TrainError(
            f"{what} needs a CUDA device with its gradient scaler, found a CPU; "
            "use auto, fp32 or bf16"
        )
    if device.type == "cuda" and precision == "bf16" and not _has_bf16():
        raise TrainError(
            f"{what} needs a GPU of compute capability 8.0 or above, found "
            f"{device_name(device)}; use auto, fp32 or fp16"
        )


def _sum_products_in_float32() -> None:
    """Or cuBLAS may add the parts of a product of 16-bit numbers in 16 bits."""
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
