"""What stage 2 asks of the device that it computes on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy
import torch

from vqa_cache.system.device import device_name


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that nobody uses."""
    return torch.cuda.mem_get_info(device)[0]


def rng_devices(device: torch.device) -> list[int]:
    """What `torch.random.fork_rng(devices=...)` has to keep beside the CPU's random state."""
    return [] if device.index is None else [device.index]


def environment(device: torch.device) -> dict[str, Any]:
    """What figures were made with."""
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
        found["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found["device_memory"] = torch.cuda.mem_get_info(device)[1]
    return found


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
