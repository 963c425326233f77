"""Projections multiplied element by element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce

import torch

from train.fusion.projected import Projected


class Product(Projected):
    """Each modality projected to `dim`, activated, then multiplied element by element.

    Antol et al. 2015 (arXiv:1505.00468) join image and question in this way. With `l2` each
    projection has length 1 and the product is scaled by sqrt(dim), which keeps its elements at
    the size they have without the normalisation.
    """

    lanes_alike = True

    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        product = reduce(torch.mul, self.project(inputs))
        return product * math.sqrt(self.out_features) if self.l2 else product
