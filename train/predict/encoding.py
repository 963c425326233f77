"""Rows of new images, questions and answers, by the encoders of a run's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from train.predict.sources import EncodedBy

if TYPE_CHECKING:
    from precompute.encoders.new_items import TableEncoder


class Encoders:
    """The encoders of a run, each loaded once, when it is first needed."""

    def __init__(self, by_input: Mapping[str, EncodedBy]) -> None:
        self._by_input = by_input
        self._loaded: dict[str, TableEncoder] = {}

    def rows(self, name: str, items: Sequence[str]) -> Iterator[tuple[torch.Tensor, int]]:
        """Of each item the rows of an input, see `TableEncoder.rows`.

        Args:
            name: of the input, "answer" for answers' texts.
            items: image files, or texts.

        Raises:
            UserError: the encoder cannot be loaded or is another one; an item cannot be encoded.
        """
        return self._encoder(name).rows(items)

    def _encoder(self, name: str) -> TableEncoder:
        if name not in self._loaded:
            self._loaded[name] = self._load(self._by_input[name])
        return self._loaded[name]

    def _load(self, by: EncodedBy) -> Any:
        from precompute.encoders.new_items import TableEncoder

        same = [one for one in self._loaded.values() if one.identity.id == by.identity.id]
        if same:
            return same[0]
        others = list(self._loaded.values())
        return TableEncoder(by.spec, by.table, by.identity, by.computed_in, others)
