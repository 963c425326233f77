"""Model hubs out of reach: found out fast, told in one clear line."""

from __future__ import annotations

import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec

_TIMEOUT_SECONDS = 4.0
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/")


def check_reachable(spec: EncoderSpec) -> None:
    """Call before a spec that may download is loaded and, if possible, before transformers or timm
    is imported. Where the hub does not answer, its libraries are told to use local files alone:
    their own retries take minutes."""
    place, _ = spec.location
    if place or {"random", "weights"} & spec.options.keys() or os.environ.get("HF_HUB_OFFLINE"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answered
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants = sys.modules.get("huggingface_hub.constants")
        if constants is not None:
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def commit_of(path: str) -> str | None:
    """The commit that a file in the hub's local cache belongs to; None for any other path."""
    found = _SNAPSHOT.search(Path(path).as_posix())
    return found.group(1) if found is not None else None


@contextmanager
def clear_errors(spec: EncoderSpec) -> Iterator[None]:
    """Around code that may download: whatever the hub's library raises becomes an EncoderError."""
    try:
        yield
    except EncoderError:
        raise
    except Exception as error:  # the hub's clients raise OSError, ValueError and their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(
            f"encoder {spec}: its weights or files cannot be had ({reason}); without a model hub "
            "name a local folder (dir:FOLDER, made by save_pretrained), an installed package "
            "(pkg:PACKAGE/FOLDER), weights=FILE, or a seeded untrained model (random=0)"
        ) from error
