"""The Ray cluster that `--engine ray` hands work to, in both stages: a local one, or that of
RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

_SECONDS_TO_ANSWER = 5.0


def connect(error_type: type[Exception]) -> Any:
    """The module `ray`, connected to a cluster; a second call goes on with the same one.

    Args:
        error_type: what is raised, with one clear line, where Ray is not installed or the cluster
            is out of reach.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise error_type(
            "--engine ray needs the package ray: pip install 'vqa-cache[ray]'"
        ) from error
    if ray.is_initialized():
        return ray
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(address)
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        told = str(error).strip().partition("\n")[0]
        raise error_type(
            f"engine ray: no cluster at RAY_ADDRESS={address} ({told}); start one, or unset it"
        ) from error
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ray sets its own, which would exit at once
    return ray


def fetch(ray: Any, references: Any, lost: Callable[[str], Exception]) -> Any:
    """What a task returned, or the list of what several did.

    Args:
        ray: the module, see `connect`.
        lost: from Ray's reason to the error of a task whose process was lost too often.

    Raises what a task raised.
    """
    try:
        return ray.get(references)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise lost(str(error).strip().splitlines()[0]) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at host:port; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
