"""Projections added element by element."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch

from train.fusion.projected import Projected


class Sum(Projected):
    """Each modality projected to `dim`, activated, then added element by element.

    The joint embedding of Ren et al. 2015 (arXiv:1505.02074) and many baselines.
    """

    lanes_alike = True

    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return reduce(torch.add, self.project(inputs))
