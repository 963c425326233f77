"""Make `import torchvision` work beside a CPU-only torch.

PyPI's Linux torchvision is linked against CUDA; beside a CPU build of torch its compiled operators
cannot load, and its import fails because it registers shapes for two of them. Declaring the two is
enough: nothing here calls them. Where torchvision's own library loads, nothing is done.
"""

from __future__ import annotations

import importlib.util

import torch

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library: torch.library.Library | None = None  # kept: the declarations live as long as it does


def declare_missing_operators() -> None:
    """Call before the first import of timm, open_clip or torchvision."""
    global _library
    if _library is not None or importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name, signature in _OPERATORS.items():
            _library.define(name + signature)
        _forget_failed_import()


def _forget_failed_import() -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
