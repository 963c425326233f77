"""A trained head as an ONNX model, for programs without torch: rows of the encoders in,
probabilities out.

Inputs, by the name of the run's input (a space becomes `_`), of b examples with one image each; n
is what the training had at most, filled up with anything:

    image, text       float32 [b, d] or [b, n, d], rows as the cache has them; int64 [b, n] words
    text_mask, ...    bool [b, n], true where something is; of tokens and words
    image_boxes       float32 [b, n, 4], x y w h as shares of the image; of regions with boxes

Output: `probabilities`, float32 [b, answers], calibrated as `train.predict` tells them. Written by
torch.onnx, and compared with the model itself on random rows before it is kept.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from train.errors import TrainError
from train.inputs.specification import Grid, Input, Specification, Tokens, Vector, Words
from train.predict.model import TrainedModel

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # of a probability, between onnxruntime and torch
_EXAMPLES = (3, 5)  # of the batch that is traced, and of the one that is compared


class HeadOverRows(nn.Module):
    """What `train.predict` does with rows: normalise, run the model, calibrate."""

    def __init__(self, trained: TrainedModel, temperature: float) -> None:
        """
        Args:
            temperature: by which the model's logits are divided, training and calibration together.
        """
        super().__init__()
        self.model = trained.model
        self.specifications = trained.specifications
        self.temperature = temperature
        self._normalise = trained.normalise

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Arguments by name -> probabilities [b, answers]."""
        batch = {}
        for name, one in self.specifications.items():
            argument = argument_of(name)
            values = inputs[argument]
            if not isinstance(one, Words):
                values = self._normalise(name, values)
            mask, boxes = (inputs.get(f"{argument}_{part}") for part in ("mask", "boxes"))
            batch[name] = Input(values, mask, None, boxes)
        logits = self.model(batch).float()
        return (logits / self.temperature).softmax(dim=1)


def check_packages() -> None:
    """Raises TrainError where a package is missing."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise TrainError(
                f"--onnx needs the packages {', '.join(PACKAGES)}: pip install 'vqa-cache[onnx]'"
            )


def write_onnx(trained: TrainedModel, temperature: float, path: Path) -> None:
    """Write the head of a trained model, on the CPU and in fp32.

    Args:
        temperature: as `HeadOverRows`.

    Raises:
        TrainError: the head has a part that ONNX has not, or what was written gives other
            probabilities.
    """
    head = HeadOverRows(trained, temperature).float().eval()
    examples = torch.export.Dim("b", min=1)
    traced = random_rows(trained.specifications, _EXAMPLES[0])
    try:
        with _quietly():
            torch.onnx.export(
                head, (), path, kwargs={"inputs": traced}, dynamo=True, external_data=False,
                verbose=False,
                input_names=list(traced), output_names=["probabilities"],
                dynamic_shapes={"inputs": {name: {0: examples} for name in traced}},
            )  # fmt: skip
    except Exception as error:  # of the exporter, which has dozens
        path.unlink(missing_ok=True)
        why = " ".join(str(error.__cause__ or error).split())[:300]
        raise TrainError(
            f"--onnx: this head cannot be written as ONNX ({why}); the rest of the export is "
            "written and needs none of it"
        ) from error
    compare(head, path, random_rows(trained.specifications, _EXAMPLES[1]))


def compare(head: HeadOverRows, path: Path, rows: Mapping[str, torch.Tensor]) -> None:
    """Raises TrainError, and deletes the file, where it gives other probabilities than the head."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {name: values.numpy() for name, values in rows.items()}
    [found] = session.run(None, given)
    with torch.no_grad():
        expected = head({name: values.clone() for name, values in rows.items()})
    difference = float((torch.from_numpy(found) - expected).abs().max())
    if not difference <= TOLERANCE:
        path.unlink()
        raise TrainError(
            f"--onnx: what was written gives probabilities {difference:.2g} from the "
            f"model's, expected at most {TOLERANCE:g}; the rest of the export is written"
        )


def argument_of(name: str) -> str:
    """Of the run's input in the ONNX model."""
    return name.replace(" ", "_")


def random_rows(specifications: Mapping[str, Specification], b: int) -> dict[str, torch.Tensor]:
    """Arguments of b examples; the first has one word or token, the others more."""
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, one in specifications.items():
        argument = argument_of(name)
        if isinstance(one, Vector):
            found[argument] = torch.randn(b, one.d, generator=draw)
            continue
        n = one.longest
        if isinstance(one, Words):
            ids = torch.randint(1, max(2, one.size), (b, n), generator=draw)
            found[argument] = ids * _mask(b, n)
        else:
            found[argument] = torch.randn(b, n, one.d, generator=draw)
        if not isinstance(one, Grid):
            found[f"{argument}_mask"] = _mask(b, n)
        if isinstance(one, Tokens) and one.boxes:
            found[f"{argument}_boxes"] = torch.rand(b, n, 4, generator=draw)
    return found


def _mask(b: int, n: int) -> torch.Tensor:
    """bool [b, n]: example i has i + 1 positions, at most n."""
    return torch.arange(n)[None] <= torch.arange(b)[:, None]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks to its own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
