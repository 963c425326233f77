"""What an experiment may say, section by section.

A key is its dotted path ("head.hidden"). Sections with a `name` (fusion, head, loss, optimizer,
schedule) hand their other keys to the factory of that name, whose signature says what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.answers import KEPT_APART
from train.components import families
from train.components.lookup import accepts
from train.config.keys import flatten
from vqa_cache.spec import Features

# what changes neither weights nor figures, and so leaves a run's id alone
WITHOUT_EFFECT = ("load", "baselines", "train.keep_last", "train.keep_best", "train.snapshot_every")


Weights = Literal["pretrained", "seeded"]
Fidelity = Literal["exact", "frozen_form", "proxy", "not_cacheable"]


class Section(BaseModel):
    """A section of fixed keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Component(BaseModel):
    """A section whose keys beside `name` are the options of a factory."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The factory's options."""
        return dict(self.model_extra or {})


class Question(Component):
    """How a question is read: a branch, and the words of those branches that read words.

    tokeniser: "whitespace" (lower case, punctuation apart), "sorted_unique" (each word once, in
        alphabetical order: a journal's mistake), or `pkg:`/`dir:` and a folder with a word-piece
        vocabulary.
    min_count: words that the training part has less often are unknown.
    longest: words of a question beyond these are left out.
    vectors: a file of word vectors that the embedding begins with, or "random=SEED:dim=WIDTH".
    """

    tokeniser: str = "whitespace"
    min_count: int = Field(1, ge=1)
    longest: int = Field(30, ge=1)
    vectors: str | None = None


def hidden_widths(head: Component) -> list[int]:
    """Widths of a head's hidden layers, as far as its option `hidden` or `layers` tells: a head of
    one's own may have a number there, or anything else."""
    hidden = head.options.get("hidden", head.options.get("layers", []))
    widths = hidden if isinstance(hidden, list) else [hidden]
    return [width for width in widths if type(width) is int]


class Answers(Section):
    """Which answers there are to choose from.

    vocabulary: "train" takes the `k` most frequent answers of the training part, "all" takes them
        all; otherwise a text file with one answer a line, or a list of answers, of which the first
        `k` count.
    min_count: answers that the training part has less often are none of them.
    source: count each example's majority answer, or the answers of all annotators.
    normalise: "vqa" merges answers that the official evaluation normalises alike.
    merge: "plurals" makes one answer of a singular and its plural, the more frequent of them,
        except for the plurals in `kept_apart`.
    other: a truth outside the vocabulary is wrong, or of a class "other", or dropped.
    """

    vocabulary: str | list[str] = "train"
    k: int = Field(1000, ge=1)
    min_count: int = Field(1, ge=1)
    source: Literal["majority", "all"] = "majority"
    normalise: Literal["none", "vqa"] = "none"
    merge: Literal["none", "plurals"] = "none"
    kept_apart: list[str] = sorted(KEPT_APART)
    other: Literal["wrong", "class", "drop"] = "wrong"


class Evaluation(Section):
    """How figures are computed.

    zero_division: the precision of a class that is never predicted.
    wordnet: the folder of WordNet's files, for WUPS; without it there is none.
    """

    zero_division: Literal[0, 1] = 0
    wordnet: str | None = None


class Training(Section):
    """How long, in what pieces, and what is kept.

    overfit: train and evaluate on the first N examples alone (0 = off): a check that a head can
        learn at all.
    order: of the examples: "full" shuffles them all; with "by_image" a batch holds all questions
        of its images, and what depends on the image alone is computed once for each.
    precision: of matrix products; "auto" is bf16 where that is at least 1.3 times faster here.
    evaluate_every, snapshot_every: in epochs; a fraction is allowed, down to one step. An
        interrupted run goes on from its last snapshot (0 = none but the one that a signal makes).
    keep_last, keep_best: so many of the newest and of the best snapshots are kept.
    patience: the training ends after so many evaluations without a better one (0 = never).
    clip_norm, clip_value: a step's gradient is kept to that length, each number of it to that size
        (0 = as it is).
    uniform_init: every weight and bias begins between minus and plus this (0 = as its layer says).
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(512, ge=1)
    order: Literal["full", "by_image"] = "full"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    overfit: int = Field(0, ge=0)
    snapshot_every: float = Field(1.0, ge=0, allow_inf_nan=False)
    evaluate_every: float = Field(1.0, gt=0, allow_inf_nan=False)
    keep_last: int = Field(2, ge=1)
    keep_best: int = Field(1, ge=0)
    patience: int = Field(0, ge=0)
    clip_norm: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip_value: float = Field(0.0, ge=0, allow_inf_nan=False)
    uniform_init: float = Field(0.0, ge=0, allow_inf_nan=False)


class Config(Section):
    """All of an experiment. `seed` draws weights and dropout, `data_seed` the held-out tenth and
    the order of samples."""

    seed: int = Field(0, ge=0)
    data_seed: int = Field(0, ge=0)
    load: Literal["auto", "map", "read"] = "auto"
    baselines: Literal["on", "off"] = "on"
    features: Features = Features()
    answers: Answers = Answers()
    question: Question | None = None
    attention: Component | None = None
    fusion: Component = Component(name="concat")
    head: Component
    loss: Component = Component(name="cross_entropy")
    optimizer: Component
    schedule: Component = Component(name="constant")
    evaluation: Evaluation = Evaluation()
    train: Training = Training()

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities: the loss's option of that
        name, 1 where it has none."""
        option = self.loss.options.get("temperature", 1.0)
        return float(option) if isinstance(option, int | float) else 1.0

    def values(self) -> dict[str, Any]:
        """The config as plain nested dicts, without keys that are None."""
        return self.model_dump(exclude_none=True)

    def identity(self) -> dict[str, Any]:
        """What of the config decides a run's outcome, flat: dotted key -> value."""
        flat = flatten(self.values())
        return {key: value for key, value in flat.items() if key not in WITHOUT_EFFECT}


class Published(Section):
    """An accuracy that others published: a share, the split, and how many examples it has."""

    figure: float = Field(ge=0, le=1)
    split: str
    n: int | None = Field(None, ge=1)


class StandIn(Section):
    """What takes the place of another value on a data set that needs no download.

    weights: of an encoder, or of word vectors: "pretrained" ones, or "seeded" ones that nobody
        trained.
    """

    instead_of: Any = None
    used: Any = None
    weights: Weights | None = None


class About(Section):
    """What documents an experiment and leaves a run's id alone.

    source: where it was published.
    fidelity: "exact", or "frozen_form" of what trained its encoder too, or a "proxy" with parts
        that are not the published ones, or "not_cacheable".
    why: what differs from what was published.
    faithful: the published mistakes that are reproduced.
    stand_ins: dotted key -> what stands in for it.
    """

    source: str | None = None
    fidelity: Fidelity | None = None
    why: str | None = None
    published: Published | None = None
    faithful: list[str] = []
    stand_ins: dict[str, StandIn] = {}

    def lines(self) -> list[str]:
        """What a user should know, a line each."""
        told = {"seeded": " (seeded, nobody trained it)", "pretrained": " (pretrained)"}
        return [
            f"{key}: {one.used} stands in for {one.instead_of}{told.get(one.weights or '', '')}"
            for key, one in self.stand_ins.items()
        ]


NOTHING_SAID = About()
DOCUMENTATION = ("source", "fidelity", "why", "published")


@dataclass(frozen=True)
class Experiment:
    """A named config, the command of stage 1 that encodes what it needs, and what documents it."""

    name: str
    config: Config
    precompute: str
    about: About = NOTHING_SAID


def reads_words(config: Config) -> bool:
    """Whether the question branch is given words, which are made of the stored texts."""
    if config.question is None:
        return False
    kinds = accepts(families.QUESTION.find(config.question.name), "given")
    return any(kind.__name__ == "Words" for kind in kinds)
