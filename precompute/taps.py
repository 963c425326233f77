"""`python -m precompute.taps ENC`: where an encoder can be tapped, and what a row then takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import click

from precompute.errors import OutOfReachError, PrecomputeError
from vqa_cache.spec import EncoderSpec, Modality, default_tap, parse_spec
from vqa_cache.system.commands import Command, json_option

_PROBES = 3  # items in the batch that is looked at; a block must give as many rows


@dataclass(frozen=True)
class Tap:
    """A place in a model where rows are taken.

    Attributes:
        output: what the model gives there for one item; "tokens" where texts differ in length.
        row: shape of the row that is stored, averaged over space or tokens.
        grid: cells a side that `grid=` can ask for at most, 0 where there is no raster.
        ragged: whether a row is one `row` for each token.
    """

    name: str
    output: tuple[int | str, ...]
    row: tuple[int, ...]
    grid: int = 0
    ragged: bool = False

    @property
    def bytes_fp16(self) -> int:
        """Bytes of a row stored as fp16, of a ragged one those of a token."""
        return 2 * math.prod(self.row)


@dataclass
class Survey:
    """Every tap of an encoder, and why some of the family's are not among them."""

    spec: EncoderSpec
    modality: Modality
    taps: list[Tap] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def default(self) -> str | None:
        """The tap of a spec that names none; None where the model has it not."""
        tap = default_tap(self.spec, self.modality)
        return None if tap in self.refused else tap

    def as_json(self) -> dict[str, Any]:
        """One object; each tap with the spec that names it."""
        return {
            "encoder": str(self.spec),
            "modality": self.modality,
            "default": self.default,
            "taps": [
                {
                    "tap": tap.name,
                    "spec": str(replace(self.spec, tap=tap.name)),
                    "output": tap.output,
                    "row": tap.row,
                    "bytes_fp16": tap.bytes_fp16,
                    "grid": tap.grid,
                    "ragged": tap.ragged,
                }
                for tap in self.taps
            ],
            "refused": self.refused,
        }


def survey(spec: EncoderSpec, modality: Modality) -> Survey:
    """Look at the family's taps and at every named block of a model.

    Raises:
        EncoderError: the encoder cannot be loaded at any of the family's taps.
    """
    from precompute.encoders import common_taps, load_encoder
    from precompute.independence import check_independence

    found = Survey(spec.without_tap(), modality)
    default = default_tap(spec, modality)
    names = sorted(common_taps(spec), key=lambda name: name != default)
    encoder = failure = None
    for name in names:
        try:
            loaded = load_encoder(replace(found.spec, tap=name), modality)
            check_independence(loaded)
        except OutOfReachError:  # for every tap, and each would ask the hub again
            raise
        except PrecomputeError as error:
            failure = failure or error
            found.refused[name] = str(error)
            continue
        encoder = encoder or loaded
        tokens = ("tokens",) if loaded.ragged else ()
        row = loaded.row_shape
        found.taps.append(Tap(name, (*tokens, *row), row, ragged=loaded.ragged))
    if encoder is None:
        assert failure is not None
        raise failure
    found.taps += [tap for tap in _blocks(encoder) if tap.name not in names]
    return found


def _blocks(encoder: Any) -> Iterator[Tap]:
    """Taps at the named blocks, in the order in which they run."""
    import torch

    from precompute.canaries import prepared_canaries
    from precompute.encoders.taps import ImagePooling, first_tensor

    seen: dict[str, torch.Tensor] = {}

    def note(name: str) -> Any:
        def keep(_module: object, _inputs: object, output: object) -> None:
            tensor = first_tensor(output)
            if tensor is not None and name not in seen:  # a tap takes the first run
                seen[name] = torch.empty_like(tensor, device="meta")

        return keep

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in encoder.module.named_modules()
        if name
    ]
    with torch.inference_mode():
        encoder.encode(prepared_canaries(encoder)[:_PROBES])
    for hook in hooks:
        hook.remove()
    images = encoder.modality == "image"
    pool = ImagePooling(channels_last=getattr(encoder.module, "output_fmt", "") == "NHWC")
    for name, output in seen.items():
        if not output.is_floating_point() or not 2 <= output.ndim <= (4 if images else 3):
            continue
        if len(output) != _PROBES:
            continue
        row = tuple(pool(output).shape[1:])
        shape: tuple[int | str, ...] = tuple(output.shape[1:])
        grid = 0
        if images and output.ndim > 2:
            cells = math.prod(output.shape[1:]) // row[0]
            grid = math.isqrt(cells) if output.ndim == 3 else _side(shape, row[0])
        elif output.ndim == 3:
            shape = ("tokens", *shape[1:])
        yield Tap(name, shape, row, grid)


def _side(shape: tuple[int | str, ...], channels: int) -> int:
    """The shorter side of a map, whichever end its channels are at."""
    high, wide = shape[1:] if shape[0] == channels else shape[:2]
    return min(int(high), int(wide))


@click.command(cls=Command)
@click.argument("encoder", metavar="ENC")
@click.option(
    "--modality",
    type=click.Choice(["image", "text"]),
    help="By default images, or texts where the model takes none.",
)
@json_option
def main(encoder: str, modality: Modality | None, as_json: bool) -> None:
    """Print the taps of an encoder: names, shapes, bytes a row in fp16.

    ENC is spelled as for precompute; append the first column to it, for example
    timm:resnet50.a1_in1k:tap=layer3, and :grid=G to keep G x G cells of an image.
    """
    found = _survey_either(parse_spec(encoder), modality)
    if as_json:
        click.echo(json.dumps(found.as_json()))
        return
    default = f"by default tap={found.default}" if found.default else "no default: name a tap"
    click.echo(f"{found.spec} ({found.modality}), {default}")
    columns = [_told(tap) for tap in found.taps]
    widths = [max(len(row[column]) for row in columns) for column in range(4)]
    for row in columns:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        click.echo("  ".join((*cells, row[4])).rstrip())
    for reason in found.refused.values():
        click.echo(f"not available: {reason}")


def _told(tap: Tap) -> tuple[str, str, str, str, str]:
    grid = f"grid up to {tap.grid}" if tap.grid else ""
    output, row = ("x".join(map(str, shape)) for shape in (tap.output, tap.row))
    size = f"{tap.bytes_fp16:,} bytes{' a token' if tap.ragged else ''}"
    return f"tap={tap.name}", output, f"row {'*x' if tap.ragged else ''}{row}", size, grid


def _survey_either(spec: EncoderSpec, modality: Modality | None) -> Survey:
    from precompute.encoders import modalities

    if modality is not None:
        return survey(spec, modality)
    known = modalities(spec)
    if len(known) == 1 or "tokenizer" in spec.options:
        return survey(spec, known[-1])
    try:
        return survey(spec, "image")
    except OutOfReachError:
        raise
    except PrecomputeError as error:
        try:
            return survey(spec, "text")
        except PrecomputeError:
            raise error from None


if __name__ == "__main__":
    main()
