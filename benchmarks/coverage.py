"""Whether the 95 % intervals hold: heads of known accuracy and known visual gain, simulated.

Every repetition draws images with one to seven questions of nine texts, some asked once. An image
is hard or easy for a head as a whole, so that its questions are right or wrong together. A head
names the image's colour and answers all its questions from that; another image in its place makes
it answer from the other's colour. Accuracy, the difference of two heads and the visual gain follow
from the probabilities; the intervals are those that results and `compare` print. With 2,000
repetitions chance moves a coverage by 0.005 (one standard deviation), with 200 by 0.015.

\b
coverage_accuracy_<images>      share of repetitions whose interval holds the known accuracy
coverage_difference_<images>    the same, of the difference of two heads
coverage_visual_gain_<images>   the same, of the visual gain
known                           the figures that the intervals should hold
"""

from __future__ import annotations

import click
import numpy as np
import numpy.typing as npt

from benchmarks.measuring.report import json_option, reported
from train.evaluation.controls import partners, visual_gain
from train.metrics.clustered import clustered_interval, seeded_interval
from vqa_cache.system.commands import Command

REPETITIONS, IMAGES = 2_000, (50, 300, 1_500)
COLOURS = np.array([0.4, 0.3, 0.2, 0.1])  # how frequent
# text 0 asks for the colour, 1 to 4 whether it is that one, 5 to 8 likewise, of another wording
TEXTS = np.array([0.3, 0.15, 0.1, 0.1, 0.05, 0.1, 0.1, 0.05, 0.05])
FIRST, SECOND = (0.35, 0.9), (0.45, 0.92)  # heads: probability of the colour in (hard, easy) images
SHARE_HARD = 0.5
_ASKED_ONCE = 0.05  # share of questions whose text nobody else asks
Whole = npt.NDArray[np.int64]


@click.command("coverage", cls=Command, help=__doc__)
@click.option("--repetitions", default=REPETITIONS, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@json_option
def command(repetitions: int, seed: int, as_json: bool) -> None:
    with reported(as_json=as_json) as report:
        report.figures |= {"repetitions": repetitions, "known": known()}
        for images in IMAGES:
            report.begin(f"{images:,} images, {repetitions:,} times")
            report.figures |= coverage(images, repetitions, seed)


def coverage(images: int, repetitions: int, seed: int) -> dict[str, float]:
    """Shares of repetitions whose intervals hold what is known."""
    true = known()
    held = dict.fromkeys(true, 0)
    for number in range(repetitions):
        found = intervals(images, np.random.default_rng([seed, images, number]))
        for name, (low, high) in found.items():
            held[name] += low <= true[name] <= high
    return {f"coverage_{name}_{images}": count / repetitions for name, count in held.items()}


def known() -> dict[str, float]:
    """Accuracy and visual gain of the first head, and how much better the second is."""
    first, second = (
        sum(share * _accuracy(text, _seen(head), together=True) for text, share in enumerate(TEXTS))
        for head in (FIRST, SECOND)
    )
    shuffled = sum(
        share * _accuracy(text, _seen(FIRST), together=False) for text, share in enumerate(TEXTS)
    )
    return {
        "accuracy": float(first),
        "difference": float(second - first),
        "visual_gain": float(first - shuffled),
    }


def _seen(head: tuple[float, float]) -> npt.NDArray[np.float64]:
    """P(colour that a head names | true colour), [true, named]: wrong ones as they are frequent."""
    right = SHARE_HARD * head[0] + (1 - SHARE_HARD) * head[1]
    wrong = np.where(np.eye(len(COLOURS), dtype=bool), 0.0, COLOURS[None])
    return np.eye(len(COLOURS)) * right + wrong / wrong.sum(1, keepdims=True) * (1 - right)


def _accuracy(text: int, seen: npt.NDArray[np.float64], *, together: bool) -> float:
    """P(right) of a text, given its own image's colour or an independent one."""
    named = seen if together else np.broadcast_to(COLOURS @ seen, seen.shape)
    colours = np.arange(len(COLOURS))
    equal = _answer(text, colours)[:, None] == _answer(text, colours)[None]
    return float(COLOURS @ (named * equal).sum(1))


def _answer(text: npt.ArrayLike, colour: Whole) -> Whole:
    """Answers as numbers: the colour, or 10 for no and 11 for yes."""
    text = np.asarray(text)
    asked = (text - 1) % len(COLOURS)
    found: Whole = np.where(text == 0, colour, 10 + (asked == colour))
    return found


def intervals(images: int, draw: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The three intervals, of one simulated data set."""
    image = np.repeat(np.arange(images), draw.integers(1, 8, images))
    text = draw.choice(len(TEXTS), len(image), p=TEXTS)
    once = draw.random(len(image)) < _ASKED_ONCE
    questions = np.where(once, len(TEXTS) + np.arange(len(image)), text)
    colour = draw.choice(len(COLOURS), images, p=COLOURS)
    hard = draw.random(images) < SHARE_HARD
    # what is hard for one head is so for the other, and half of the images fail together
    luck = draw.random((2, images))
    luck[1] = np.where(draw.random(images) < 0.5, luck[0], luck[1])
    named = [
        _named(head, colour, hard, own, draw)
        for head, own in zip((FIRST, SECOND), luck, strict=True)
    ]
    truth = _answer(text, colour[image])
    first, second = (_answer(text, one[image]) == truth for one in named)
    order = partners(questions, int(draw.integers(1 << 32)))
    instead = _answer(text, named[0][image[order]]) == truth
    difference = second.astype(np.float64) - first
    gain = visual_gain(first, instead, image)
    return {
        "accuracy": clustered_interval(first.astype(np.float64), image),
        "difference": seeded_interval(difference, image, []),
        "visual_gain": (gain["visual_gain_low"], gain["visual_gain_high"]),
    }


def _named(
    head: tuple[float, float],
    colour: Whole,
    hard: npt.NDArray[np.bool_],
    luck: npt.NDArray[np.float64],
    draw: np.random.Generator,
) -> Whole:
    """The colour that a head names for each image."""
    wrong = draw.choice(len(COLOURS), len(colour), p=COLOURS)
    while (same := wrong == colour).any():
        wrong[same] = draw.choice(len(COLOURS), int(same.sum()), p=COLOURS)
    found: Whole = np.where(luck < np.where(hard, *head), colour, wrong)
    return found
