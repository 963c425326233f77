"""Where torch computes: on the first GPU that CUDA_VISIBLE_DEVICES shows, or on the CPU."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")


def choose_device() -> torch.device:
    """The CUDA device that torch would use, or the CPU."""
    if not torch.cuda.is_available():
        return CPU
    return torch.device("cuda", torch.cuda.current_device())


def device_name(device: torch.device) -> str:
    """What users call it: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
