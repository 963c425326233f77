"""The light probe: ridge regression on a run's own inputs, a few seconds beside its training.

All inputs side by side, each as wide as `WIDEST` at most: a wider one is multiplied by a seeded
Gaussian matrix. Positions of tokens count with their mean, words with how often they occur. Columns
are standardised; the penalty is chosen on the part that selects epochs. Of a large training part
`EXAMPLES` are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from train.config.schema import Config
from train.config.seeds import derive_seed
from train.engine.build import trainable
from train.engine.outputs import Outputs
from train.engine.ridge import Inputs, Moments, Reader, check_stop, columns_of, moments
from train.errors import TrainError
from train.evaluation.evaluate import always
from train.inputs.batch import InputTable
from train.inputs.load import TrainingData
from train.inputs.parts import Part
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.specification import Words

EXAMPLES, SELECTION = 65_536, 8_192
WIDEST = 1_536  # columns of an input
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean eigenvalue
CHUNK = 4_096  # examples that are answered at a time
Solution = tuple[torch.Tensor, torch.Tensor]


def light_probe(
    config: Config, data: TrainingData, stopping: Callable[[], bool]
) -> Callable[[Part], Outputs]:
    """Solve the ridge regression; what it says about a part.

    Raises:
        TrainError: an input is not in memory, where reading a part of its rows takes too long.
        Stopped: `stopping` became true.
    """
    readers = {name: _reader(name, table, config) for name, table in data.tables.items()}
    drawn = torch.Generator().manual_seed(derive_seed(config.data_seed, "light probe"))
    train, selection = data.parts["train"], data.parts[data.selection]
    examples = _some(trainable(data), EXAMPLES, drawn)
    columns = columns_of(train, readers, examples)
    sums = moments(columns, train.truth[examples], len(data.vocabulary), stopping=stopping)
    asked = _some(torch.from_numpy(selection.answered).nonzero()[:, 0], SELECTION, drawn)
    truth = selection.truth[asked].numpy()
    tried = [
        (int((_answers(one, selection, readers, asked, stopping) == truth).sum()), place, one)
        for place, one in enumerate(_solutions(sums))
    ]
    best = max(tried, key=lambda one: one[:2])[2]  # of equals the strongest

    def answer(part: Part) -> Outputs:
        every = torch.arange(len(part))
        predicted = _answers(best, part, readers, every, stopping)
        return replace(always(part, 0), predicted=predicted)

    return answer


def _some(examples: torch.Tensor, most: int, drawn: torch.Generator) -> torch.Tensor:
    if len(examples) <= most:
        return examples
    return examples[torch.randperm(len(examples), generator=drawn)[:most]].sort().values


def _reader(name: str, table: InputTable, config: Config) -> Reader:
    if not table.resident:
        raise TrainError(f"the rows of {name} are not in memory")
    words = table.specification.size if isinstance(table.specification, Words) else None
    width = words or table.width
    matrix = None
    if width > WIDEST:
        seed = derive_seed(config.data_seed, "light probe", name)
        made = torch.Generator().manual_seed(seed)
        matrix = torch.randn((width, WIDEST), generator=made) / WIDEST**0.5
    return Reader(partial(_rows, table, words, matrix), min(width, WIDEST))


def _rows(
    table: InputTable, words: int | None, matrix: torch.Tensor | None, items: ItemRows
) -> torch.Tensor:
    if isinstance(table, ResidentTable):
        rows = table.gather(items).float().cpu()
    else:
        found = table.input(items, None)
        assert found.mask is not None
        values, mask = found.values.cpu(), found.mask.cpu().float()
        if words is None:
            rows = (values.float() * mask[..., None]).sum(1) / mask.sum(1).clamp_min(1)[:, None]
        else:
            rows = torch.zeros((len(values), words)).scatter_add_(1, values, mask)
    return rows if matrix is None else rows @ matrix


def _solutions(sums: Moments) -> list[Solution]:
    """W [width, classes] and bias [classes] of every penalty, float32."""
    scale = (sums.gram.diagonal() / sums.n).sqrt().clamp_min(1e-12)
    scale = torch.where(scale <= 1e-6 * scale.max(), torch.ones_like(scale), scale)
    gram = sums.gram / torch.outer(scale, scale)
    mean = float(gram.diagonal().mean()) or 1.0
    found = []
    for strength in STRENGTHS:
        shrunk = gram + strength * mean * torch.eye(len(gram), dtype=gram.dtype)
        weights = torch.linalg.solve(shrunk, sums.cross / scale[:, None]) / scale[:, None]
        found.append((weights.float(), (sums.mean_y - sums.mean_x @ weights).float()))
    return found


def _answers(
    solution: Solution,
    part: Part,
    readers: Mapping[str, Reader],
    examples: torch.Tensor,
    stopping: Callable[[], bool],
) -> np.ndarray:
    """Its class for each of some examples, int64 [n]."""
    by_image = torch.from_numpy(part.joined.image)[examples].argsort(stable=True)
    predicted = torch.empty(len(examples), dtype=torch.int64)
    for places in by_image.split(CHUNK):  # a chunk has few distinct images
        check_stop(stopping)
        inputs = Inputs(columns_of(part, readers, examples[places]))
        predicted[places] = inputs.predictions(*solution)
    return predicted.numpy()
