"""What every encoder offers to the pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import torch

from precompute.copies import Copies, Inputs, copies_for
from precompute.encoders.one_pass import forward_together
from precompute.encoders.taps import Block
from precompute.errors import ItemError
from vqa_cache.dtypes import StoredType
from vqa_cache.identity import weights_digest
from vqa_cache.records.table import Identity, PlanKind
from vqa_cache.spec import EncoderSpec, Modality
from vqa_cache.system.device import CPU

Item = Any  # an image file's path, or a text


class Encoder(ABC):
    """A frozen encoder with its tap and its preprocessing.

    Attributes:
        spec: as typed, its tap named.
        modality: "image" or "text".
        label: the model's name in the table's name.
        row_shape: shape of one row; of one token, where rows are ragged.
        ragged: whether a row is as many tokens as `length` says of its item.
        batch_kind, batch_size: default batch plan on a CPU (FORMAT.md 3).
        prepared_together: items that a worker thread preprocesses in one call.
        untrained: whether its weights are random.
        notes: what a user should be told about it when it was opened.
        block: where in the model rows are taken; None takes them from what the whole model gives.
        copies: to and from the device that it computes on, at first the CPU.
    """

    modality: Modality
    library: str
    label: str
    row_shape: tuple[int, ...]
    pooling: str
    batch_size: int
    batch_kind: PlanKind
    ragged: bool = False
    prepared_together: int = 1
    notes: tuple[str, ...] = ()
    block: Block | None = None

    def __init__(
        self, spec: EncoderSpec, module: torch.nn.Module, unused: Collection[str] = ()
    ) -> None:
        """
        Args:
            unused: weights that the checkpoint lacks and the tap does not use; being random, they
                stay out of the identity.
        """
        self.spec = spec
        self.module = module.eval().requires_grad_(False)
        self._unused = frozenset(unused)
        weight = next(self.module.parameters(), None)
        self.copies: Copies = copies_for(CPU if weight is None else weight.device)

    def beside(self, spec: EncoderSpec) -> Encoder | None:
        """An encoder of the same loaded model that differs from this one in tap and raster alone;
        None where that tap needs a model of its own. Raises EncoderError."""
        return None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.copies.device

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        if device != self.device:
            self.module.to(device)
            self.copies = copies_for(device)

    @property
    def untrained(self) -> bool:
        return "random" in self.spec.options

    @property
    def model(self) -> str | None:
        """The model's name that the identity records; None of a local folder, which its content
        identifies."""
        place, _ = self.spec.location
        return None if place else self.spec.model

    @property
    def revision(self) -> str | None:
        """The revision of the weights that the identity records."""
        return self.spec.revision

    @abstractmethod
    def prepare(self, item: Item) -> Any:
        """Decode and preprocess one item; runs in worker threads. Raises ItemError."""

    def prepare_many(self, items: Sequence[Item]) -> list[Any]:
        """What `prepare` gives for each item, or the ItemError it raises."""
        return [self._prepared(item) for item in items]

    def _prepared(self, item: Item) -> Any:
        try:
            return self.prepare(item)
        except ItemError as error:
            return error

    @abstractmethod
    def length(self, prepared: Any) -> int:
        """Tokens of a text, by which it is sorted and batched."""

    def truncated(self, item: Item, prepared: Any) -> bool:
        """Whether `prepare` cut a text to the length that the encoder takes."""
        return False

    @abstractmethod
    def collate(self, prepared: Sequence[Any]) -> Inputs:
        """A batch for `forward`, on the CPU."""

    @abstractmethod
    def call(self, inputs: Inputs) -> Any:
        """The model itself on a batch."""

    def outputs(self, inputs: Inputs) -> Any:
        """What rows are made of where the tap is no block."""
        return self.call(inputs)

    @abstractmethod
    def rows(self, output: Any, inputs: Inputs) -> torch.Tensor:
        """The rows of a batch, as `forward` gives them, from the tensor that the tapped block gave
        or from `outputs`."""

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Rows of a batch, float32 [items, *row_shape]; ragged ones joined, [sum of their lengths,
        *row_shape].

        Args:
            inputs: what `collate` gave, on `device`, where the rows are as well.
        """
        return forward_together([self], inputs)[0]

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        """`forward` of what `prepare` gave for some items."""
        return self.forward(self.copies.to_device(self.collate(prepared)))

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """The resolved configuration, activations included."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """The resolved preprocessing, with backend and version."""

    def identity(self, dtype: StoredType) -> Identity:
        """The identity of the table that this encoder fills."""
        assert self.spec.tap is not None
        return Identity(
            modality=self.modality,
            library=self.library,
            model=self.model,
            revision=self.revision,
            weights=weights_digest(
                {
                    name: tensor
                    for name, tensor in self.module.state_dict().items()
                    if name not in self._unused
                }
            ),
            architecture=self.architecture(),
            preprocessing=self.preprocessing(),
            tap=self.spec.tap,
            pooling=self.pooling,
            dtype=dtype,
        )
