"""The cache: tables of encoder outputs with commit records, and the examples that use them.

    cache = vqa_cache.open("cache")
    table = cache.tables["text/"]                 # a short name works while it is unique
    table["what color is the circle?"]            # one row
    cache.examples("easy_vqa/train")              # a pandas DataFrame

FORMAT.md beside this file specifies every byte.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqa_cache.cache import Cache
    from vqa_cache.cache import open_cache as open  # noqa: A004 (reads as h5py.File does)
    from vqa_cache.errors import CacheError
    from vqa_cache.keys import image_key, text_key
    from vqa_cache.table import Table

__all__ = ["Cache", "CacheError", "Table", "image_key", "open", "text_key"]

_HOMES = {
    "Cache": ("cache", "Cache"),
    "CacheError": ("errors", "CacheError"),
    "Table": ("table", "Table"),
    "image_key": ("keys", "image_key"),
    "open": ("cache", "open_cache"),
    "text_key": ("keys", "text_key"),
}


def __getattr__(name: str) -> Any:
    """On first use: a command's help, or a list of runs, needs neither numpy nor h5py."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
