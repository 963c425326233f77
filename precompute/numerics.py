"""What an encoder computes in, and the type its rows are stored in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from precompute.copies import Fetch
from precompute.encoders.base import Encoder
from precompute.encoders.one_pass import forward_together
from precompute.errors import OutOfMemoryError
from vqa_cache.dtypes import raw_rows as raw_rows
from vqa_cache.quantised import to_stored as to_stored
from vqa_cache.quantised import widened
from vqa_cache.system import bf16_gain
from vqa_cache.system.device import device_name

Precision = Literal["fp32", "bf16"]
MOST_LOST = 0.01  # of a row's largest value; fp16 loses 0.0005, bf16 (unless tiny) and int8 0.004


@dataclass(frozen=True)
class Numerics:
    """How an encoder is run."""

    precision: Precision

    def encode(self, encoder: Encoder, prepared: Sequence[Any]) -> torch.Tensor:
        """Rows of one batch, as `Encoder.forward` gives them, float32 and on the CPU."""
        return self.launch(encoder, prepared)()

    def launch(self, encoder: Encoder, prepared: Sequence[Any]) -> Fetch:
        """Begin to encode a batch; what gives its rows, as `encode` does. A GPU computes meanwhile,
        a CPU has done it already.

        Raises:
            OutOfMemoryError: the device has no memory for the batch.
        """
        with self._told(encoder, len(prepared)), self.computing(encoder.device):
            return encoder.copies.to_host(encoder.encode(prepared).float())

    def launch_together(self, encoders: Sequence[Encoder], prepared: Sequence[Any]) -> list[Fetch]:
        """`launch` of several encoders of one model, in one forward pass."""
        first = encoders[0]
        if len(encoders) == 1:
            return [self.launch(first, prepared)]
        with self._told(first, len(prepared)), self.computing(first.device):
            inputs = first.copies.to_device(first.collate(prepared))
            every = forward_together(encoders, inputs)
            return [first.copies.to_host(rows.float()) for rows in every]

    @contextmanager
    def _told(self, encoder: Encoder, items: int) -> Iterator[None]:
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            other = (
                ""
                if encoder.device.type == "cpu"
                else (", or encode on the CPU: CUDA_VISIBLE_DEVICES= in front of the command")
            )
            raise OutOfMemoryError(
                f"encoder {encoder.spec}: {device_name(encoder.device)} has no memory for a batch "
                f"of {items}; free its memory, begin the table with a smaller "
                f"--batch-size{other}"
            ) from error

    @contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """Without gradients, in this precision. float32 stays float32: by default cuDNN shortens it
        to TF32, and chooses algorithms that sum in another order each time."""
        exact: AbstractContextManager[Any] = nullcontext()
        if device.type == "cuda":
            exact = torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            )
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), exact, autocast:
            yield


def _is_memory(error: Exception) -> bool:
    """Whether memory ended; on a CPU torch has no error of its own for it."""
    own = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return own or "can't allocate memory" in str(error)


def check_stored(rows: torch.Tensor, stored: torch.Tensor) -> dict[int, str]:
    """Rows (ragged: tokens) that cannot be stored: position among them -> what is wrong.

    Args:
        rows: as computed, [n, ...].
        stored: the same in the stored type.
    """
    whole, kept = rows.flatten(1), widened(stored).flatten(1)
    largest = whole.abs().amax(1)
    change = (whole - kept).abs().amax(1)
    kind = str(stored.dtype).removeprefix("torch.")
    # int8 holds what its scale does
    limits = torch.finfo(torch.float32 if stored.dtype == torch.int8 else stored.dtype)
    wrong = {}
    for position in torch.nonzero(~(change <= MOST_LOST * largest)).flatten().tolist():
        value = float(largest[position])
        if not math.isfinite(value):
            wrong[position] = "the encoder's output is not finite"
        elif torch.isfinite(kept[position]).all():
            wrong[position] = (
                f"all values are tiny (at most {value:.3g}) and {kind} keeps them no better than "
                f"to {float(change[position]):.1g}; store it as bf16: --dtype bf16"
            )
        else:
            wrong[position] = (
                f"value {value:.6g} does not fit in {kind} (at most {limits.max:.6g}); "
                "store it as bf16: --dtype bf16"
            )
    return wrong


def underflow(rows: torch.Tensor, stored: torch.Tensor) -> float:
    """The share of values other than zero that became zero in the stored type."""
    there = rows != 0
    return float((there & (widened(stored) == 0)).sum() / there.sum().clamp(min=1))


def choose_precision(encoder: Encoder, prepared: Sequence[Any]) -> Precision:
    """bf16 only where it is at least 1.3 times faster on the encoder's own shapes."""
    exact, fast = Numerics("fp32"), Numerics("bf16")
    pays = bf16_gain.pays_on_cpu if encoder.device.type == "cpu" else bf16_gain.pays
    paying = pays(lambda: exact.encode(encoder, prepared), lambda: fast.encode(encoder, prepared))
    return "bf16" if paying else "fp32"
