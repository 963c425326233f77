"""Keeping a benchmark of the CPU on the CPU."""

from __future__ import annotations

import os


def hide_gpus() -> None:
    """Let torch find no GPU, here and in child processes; before it looks for one."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
