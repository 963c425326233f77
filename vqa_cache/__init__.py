"""The cache: tables of encoder outputs with commit records, and the examples that use them.

    cache = vqa_cache.open("cache")
    table = cache.tables["text/"]                 # a short name works while it is unique
    table["what color is the circle?"]            # one row
    cache.examples("easy_vqa/train")              # a pandas DataFrame

FORMAT.md beside this file specifies every byte.
"""

from vqa_cache.cache import Cache
from vqa_cache.cache import open_cache as open  # noqa: A004 (vqa_cache.open reads as h5py.File does)
from vqa_cache.errors import CacheError
from vqa_cache.keys import image_key, text_key
from vqa_cache.table import Table

__all__ = ["Cache", "CacheError", "Table", "image_key", "open", "text_key"]
