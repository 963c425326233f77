"""An experiment's data, ready to train on: joined, checked against its components, held."""

from __future__ import annotations

import math

import torch

from train.config.precisions import Precision
from train.config.schema import Experiment, hidden_widths
from train.engine.components import check_components
from train.engine.precision import check_precision, choose_precision
from train.inputs.large.blocks import BLOCK_SIZES, BlockSizes
from train.inputs.load import JoinedData, TrainingData, hold_data, join_data
from vqa_cache.cache import Cache
from vqa_cache.system.device import choose_device


def load_data(
    experiment: Experiment,
    cache: Cache,
    precision: Precision | None = None,
    device: torch.device | None = None,
    *,
    sizes: BlockSizes = BLOCK_SIZES,
) -> TrainingData:
    """Join an experiment's splits with its tables and hold them. Raises as `hold_joined` and
    `train.inputs.load.join_data` do."""
    return hold_joined(join_data(experiment, cache), precision, device, sizes=sizes)


def hold_joined(
    joined: JoinedData,
    precision: Precision | None = None,
    device: torch.device | None = None,
    *,
    sizes: BlockSizes = BLOCK_SIZES,
) -> TrainingData:
    """Hold what an experiment reads.

    Args:
        precision: what an earlier attempt of the run chose; None chooses.
        device: where to compute; None chooses.

    Raises:
        TrainError: a component does not accept an input, the device cannot do the precision, or as
            `train.inputs.load.hold_data` does.
    """
    device = device or choose_device()
    check_components(joined)
    if precision is None:
        precision = _precision(joined, device)
    else:
        check_precision(precision, device, f"{precision}, in which the run was begun,")
    return hold_data(joined, precision, device, sizes=sizes)


def _precision(joined: JoinedData, device: torch.device) -> Precision:
    """For the first layer of the head: its first hidden layer, or its output."""
    config = joined.experiment.config
    return choose_precision(
        config.train.precision,
        device,
        rows=config.train.batch_size,
        inner=sum(math.prod(table.row_shape) for table in joined.tables.values()) or 1024,
        outer=[*hidden_widths(config.head), len(joined.vocabulary)][0],
    )
