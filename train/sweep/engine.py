"""Where packs are trained: here, one after another. engine_ray.py does it on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import vqa_cache
from train.config.precisions import Precision
from train.config.schema import Config, Experiment
from train.engine.data import load_data
from train.inputs.load import TrainingData
from train.loop.training_loop import Watch
from train.sweep.pack import Outcome, Pruner, train_pack
from vqa_cache.keys import json_digest


@dataclass(frozen=True)
class Pack:
    """Trials that share a pass.

    Attributes:
        experiment: names what is read.
        configs: of one pack key, see `pack.pack_key`.
        what: their name in the progress display.
    """

    experiment: Experiment
    configs: tuple[Config, ...]
    pruner: Pruner
    what: str


class Data:
    """Training data of an experiment; what was read last is kept.

    Attributes:
        precisions: data key -> what its trials compute in: the choice for the first of them, so
            that later ones, and other processes, do not choose anew.
    """

    def __init__(self, cache: Path, precisions: Mapping[str, Precision] | None = None) -> None:
        self.folder = cache
        self.cache = vqa_cache.open(cache)
        self.precisions = dict(precisions or {})
        self._key = ""
        self._kept: TrainingData | None = None

    def __call__(self, experiment: Experiment) -> TrainingData:
        """Raises TrainError as load_data does."""
        key = data_key(experiment.config)
        chosen = self.precisions.get(key)
        kept = self._kept
        if kept is None or key != self._key or kept.precision != chosen:
            self._key, self._kept, kept = key, None, None  # never two at once
            self._kept = kept = load_data(experiment, self.cache, precision=chosen)
            self.precisions[key] = kept.precision
        return kept


def data_key(config: Config) -> str:
    """Configs with the same key read the same data; a head may ask for the answers' vectors."""
    read = config.model_dump(include={"features", "answers", "data_seed", "load"})
    train = (config.train.precision, config.train.overfit)
    return json_digest({**read, "train": train, "head": config.head.name})[:12]


Engine = Callable[[Sequence[Pack], Data, Watch], Iterator[tuple[int, list[Outcome]]]]


def run_packs(
    packs: Sequence[Pack], data: Data, watch: Watch
) -> Iterator[tuple[int, list[Outcome]]]:
    """Train packs; yields the place of each one and the outcomes of its configs as it ends.

    Raises:
        TrainError: a pack cannot be trained.
        Stopped: a signal came; packs that were yielded are whole.
    """
    for place, pack in enumerate(packs):
        yield place, train_one(pack, data, watch)


def train_one(pack: Pack, data: Data, watch: Watch) -> list[Outcome]:
    """The outcomes of one pack: what every engine's worker does."""
    return train_pack(
        pack.configs, data(pack.experiment), pruner=pack.pruner, what=pack.what, watch=watch
    )
