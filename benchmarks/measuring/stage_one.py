"""Stage 1 as it is timed: set up outside the clock, then from the first file to the last commit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from data.jsonl import Jsonl
from precompute.numerics import Precision
from precompute.pipeline import OpenedJob, Request, commit_splits, fill_tables, jobs
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings, OpenedTable, open_table
from vqa_cache.cache import Cache, create_cache
from vqa_cache.memo import Memo
from vqa_cache.spec import Modality, parse_spec


class Listener(ConsoleReporter):
    """Shows nothing and keeps the lines."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(quiet=True)
        self._said = said

    def say(self, line: str) -> None:
        self._said.append(line)


class StageOne:
    """Encodes a `jsonl` dataset with one encoder, each time into an empty cache.

    Attributes:
        opened: the table, begun; its encoder is loaded. There after `set_up`.
        said: the lines of all turns.
        set_up_seconds: what each setting up took: model load, weights digest, probe, canaries.
    """

    opened: OpenedTable

    def __init__(self, root: Path, spec: str, modality: Modality, folder: Path) -> None:
        """
        Args:
            root: of the dataset.
            folder: an empty folder to be, for the cache.
        """
        self.set_up_seconds: list[float] = []
        self.said: list[str] = []
        self._root, self._spec, self._modality = root, spec, modality
        self._folder = folder
        self._settings = EncoderSettings()
        self._begun: tuple[Cache, Memo] | None = None

    @property
    def precision(self) -> Precision:
        """What the encoder computes in, chosen by the first probe and kept afterwards."""
        return self.opened.table.record.computed_in

    def set_up(self) -> None:
        """An empty cache with the table begun in it."""
        self.close()
        began = time.perf_counter()
        cache = create_cache(self._folder)
        memo = Memo(cache.path / "memo.sqlite")
        self._begun = cache, memo
        spec = parse_spec(self._spec)
        self.opened = open_table(cache, memo, spec, self._modality, self._settings)
        self._settings = EncoderSettings(precision=self.precision)
        self.set_up_seconds.append(time.perf_counter() - began)

    def turn(self) -> float:
        """Encode and commit everything; the number of items."""
        assert self._begun is not None
        cache, memo = self._begun
        images, texts = ((self._spec,), ()) if self._modality == "image" else ((), (self._spec,))
        request = Request("jsonl", str(self._root), str(cache.path), image=images, text=texts)
        reporter = Listener(self.said)
        wanted = commit_splits(request, cache, Jsonl(self._root), memo, reporter)
        [job] = jobs(request, wanted)
        encoder = self.opened.encoder  # kept for the next turn
        [result] = fill_tables(request, [OpenedJob(job, self.opened)], reporter, lambda: False)
        self.opened.encoder = encoder
        return float(result.encoded)

    def close(self) -> None:
        """Delete the cache."""
        if self._begun is not None:
            self._begun[1].close()
            shutil.rmtree(self._folder)
            self._begun = None
