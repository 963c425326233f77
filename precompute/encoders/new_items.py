"""Rows of new images and texts, made as those of a table were: by the very encoder, through the
same decoder and preprocessing, in the table's precision, rounded to its stored type.

A row is that of the table up to the order of summation: a batch of another size may differ in the
last bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch

from precompute.encoders import load_encoder
from precompute.encoders.base import Encoder
from precompute.errors import ItemError
from precompute.numerics import Numerics, check_stored, to_stored
from vqa_cache.errors import RefusedError
from vqa_cache.keys import nfc
from vqa_cache.quantised import as_given
from vqa_cache.records.table import Identity
from vqa_cache.spec import parse_spec
from vqa_cache.system.device import choose_device

AT_ONCE = 16  # items in a batch


class TableEncoder:
    """The encoder whose rows a table holds.

    Attributes:
        encoder: loaded, on the device that is computed on.
        identity: of the table.
    """

    def __init__(
        self,
        spec: str,
        name: str,
        identity: Identity,
        computed_in: str,
        loaded: Iterable[TableEncoder] = (),
    ) -> None:
        """
        Args:
            spec: as the experiment names it.
            name: the table's.
            computed_in: "fp32" or "bf16", of the table's record.
            loaded: others that may lend their model.

        Raises:
            EncoderError: it cannot be loaded.
            RefusedError: it is not the table's encoder.
        """
        parsed = parse_spec(spec).with_default_tap(identity.modality)
        self.encoder: Encoder = load_encoder(
            parsed, identity.modality, [one.encoder for one in loaded]
        )
        self.identity = identity
        self._numerics = Numerics("bf16" if computed_in == "bf16" else "fp32")
        found = self.encoder.identity(identity.dtype)
        if found.id != identity.id:
            differs = ", ".join(_differing(identity.as_json(), found.as_json()))
            raise RefusedError(
                f"encoder {spec}: is not the one whose rows table {name} holds, its {differs} "
                "differ; expected the same files and library versions as in stage 1 "
                "(vqa-cache info shows them)"
            )
        self.encoder.to(choose_device())

    def rows(self, items: Sequence[str]) -> Iterator[tuple[torch.Tensor, int]]:
        """Of each image file or text its row as a table gives it, [1, *row_shape], or [tokens,
        *row_shape] of a ragged table, and the number of those.

        Raises:
            ItemError: one cannot be encoded; the text names it.
        """
        waiting = iter(items)
        while batch := list(islice(waiting, AT_ONCE)):
            yield from self._batch(batch)

    def _batch(self, items: Sequence[str]) -> Iterator[tuple[torch.Tensor, int]]:
        encoder = self.encoder
        prepared = [self._prepared(item) for item in items]
        rows = self._numerics.encode(encoder, prepared)
        stored = to_stored(rows, self.identity.dtype)
        lengths = [encoder.length(one) if encoder.ragged else 1 for one in prepared]
        for error in check_stored(rows, stored).values():
            raise ItemError(f"{encoder.modality} {items[0]!r} or one beside it: {error}")
        yield from zip(as_given(stored).split(lengths), lengths, strict=True)

    def _prepared(self, item: str) -> object:
        try:
            return self.encoder.prepare(nfc(item) if self.encoder.modality == "text" else item)
        except ItemError as error:
            raise ItemError(f"{self.encoder.modality} {item}: {error}") from None


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    return [field for field in a if a[field] != b[field]]
