"""The way of a batch to the device that an encoder computes on, and of its rows back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Inputs = Any  # a tensor, or a dictionary of which some values are tensors
Fetch = Callable[[], torch.Tensor]


class Copies:
    """Plain copies; on the CPU none at all."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def to_device(self, inputs: Inputs) -> Inputs:
        """What an encoder has collated on the CPU, on the device."""
        return _each_tensor(inputs, lambda tensor: tensor.to(self.device))

    def to_host(self, rows: torch.Tensor) -> Fetch:
        """What gives the rows on the CPU, waiting for them if need be."""
        return rows.cpu


class CudaCopies(Copies):
    """Copies through pinned memory on a stream of their own: a batch travels while the one before
    it is computed, and nobody waits before the rows are asked for."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream = torch.cuda.Stream(device)

    def to_device(self, inputs: Inputs) -> Inputs:
        """See `Copies.to_device`."""
        computing = torch.cuda.current_stream(self.device)

        def bring(tensor: torch.Tensor) -> torch.Tensor:
            with torch.cuda.stream(self._stream):
                brought = tensor.pin_memory().to(self.device, non_blocking=True)
            brought.record_stream(computing)  # its memory is not used again before that has read it
            return brought

        brought = _each_tensor(inputs, bring)
        computing.wait_stream(self._stream)
        return brought

    def to_host(self, rows: torch.Tensor) -> Fetch:
        """See `Copies.to_host`."""
        fetched = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        fetched.copy_(rows, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def fetch() -> torch.Tensor:
            done.synchronize()
            return fetched

        return fetch


def copies_for(device: torch.device) -> Copies:
    """The copies that suit a device."""
    return CudaCopies(device) if device.type == "cuda" else Copies(device)


def _each_tensor(inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
    if isinstance(inputs, torch.Tensor):
        return change(inputs)
    return {
        name: change(value) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
