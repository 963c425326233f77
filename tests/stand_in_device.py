"""A device beside the CPU for machines without a GPU: it computes with the CPU's kernels, and as a
GPU does it refuses to mix its tensors with the CPU's.

`rows` and `fill` are to be called in a process of their own: torch knows the device ever after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache as once
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from vqa_cache.spec import Modality, parse_spec

NAME = "standin"
Rows = npt.NDArray[np.float32]
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class OnDevice(torch.Tensor):
    """A tensor of the device; its numbers are in `held`, a tensor of the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=device()
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: only inside `StandIn`")


class StandIn(TorchDispatchMode):
    """Makes tensors of the device compute."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
            return False
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        held = {id(one.held): one for one in tensors if isinstance(one, OnDevice)}
        mixed = held and any(one.ndim and not isinstance(one, OnDevice) for one in tensors)
        if mixed and func not in _COPIES:
            raise RuntimeError(f"{func}: tensors of two devices")
        there = bool(held)
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = "cpu"
        given = tree_map(lambda one: one.held if isinstance(one, OnDevice) else one, (args, kwargs))
        result = func(*given[0], **given[1])
        if not there:
            return result

        def on_device(one: Any) -> Any:
            if not isinstance(one, torch.Tensor):
                return one
            return held[id(one)] if id(one) in held else OnDevice(one)  # in place: itself

        return tree_map(on_device, result)


def device() -> torch.device:
    """The stand-in."""
    return torch.device(NAME, 0)


@once
def register() -> None:
    """Make it known to torch, for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME)
    torch.get_device_module(NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch.__future__.set_overwrite_module_params_on_conversion(True)


@contextmanager
def stand_in() -> Iterator[torch.device]:
    """The device, in the block."""
    register()
    # inference mode does not know views of a tensor that is made in Python
    with mock.patch("torch.inference_mode", torch.no_grad), StandIn():
        yield device()


def rows(spec: str, modality: Modality, items: list[str]) -> tuple[Rows, Rows]:
    """Rows of an encoder computed on the CPU, and on the device."""
    from precompute.encoders import load_encoder
    from precompute.numerics import Numerics

    encoder = load_encoder(parse_spec(spec), modality)
    prepared = [encoder.prepare(item) for item in items]
    on_cpu = Numerics("fp32").encode(encoder, prepared)
    with stand_in() as there:
        encoder.to(there)
        inputs = encoder.copies.to_device(encoder.collate(prepared))
        with torch.inference_mode():
            assert encoder.forward(inputs).device == there
        on_device = Numerics("fp32").encode(encoder, prepared)
    return on_cpu.numpy(), on_device.numpy()


def fill(cache: str, root: str, request: dict[str, Any]) -> list[str]:
    """Fill tables on the device as stage 1 does; what it says.

    Args:
        root: of a `jsonl` dataset.
        request: what is asked for, and `memory`: items that the device has memory for.
    """
    from precompute.encoders.base import Encoder
    from precompute.errors import PrecomputeError
    from precompute.pipeline import Request, precompute
    from precompute.progress import ConsoleReporter

    memory = request.pop("memory", None)
    said: list[str] = []
    reporter = ConsoleReporter(quiet=True)
    encode = Encoder.encode

    def within_memory(encoder: Encoder, prepared: Sequence[Any]) -> torch.Tensor:
        if encoder.device.type == NAME and memory is not None and len(prepared) > memory:
            raise torch.OutOfMemoryError
        return encode(encoder, prepared)

    with (
        mock.patch.object(reporter, "say", said.append),
        mock.patch("vqa_cache.system.device.choose_device", device),
        mock.patch.object(Encoder, "encode", within_memory),
        stand_in(),
    ):
        try:
            precompute(Request("jsonl", root, cache, **request), reporter)
        except PrecomputeError as error:
            said.append(str(error))
    return said
