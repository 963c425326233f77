"""Projections multiplied element by element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch

from train.fusion.projected import Projected


class Product(Projected):
    """Each modality projected to `dim`, activated, then multiplied element by element.

    Antol et al. 2015 (arXiv:1505.00468) join image and question in this way. With `l2` each
    projection has length 1, and with `rescale` the product is then multiplied by sqrt(dim), which
    keeps its elements at the size they have without the normalisation.
    """

    lanes_alike = True

    def __init__(self, sizes: Mapping[str, int], *, rescale: bool = True, **options: Any) -> None:
        super().__init__(sizes, **options)
        self.factor = math.sqrt(self.out_features) if self.l2 and rescale else 1.0

    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        product = reduce(torch.mul, self.project(inputs))
        return product * self.factor if self.factor != 1 else product
