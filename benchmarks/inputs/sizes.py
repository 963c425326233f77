"""How large the data of the benchmarks are: VQA v2 (Goyal et al. 2017, arXiv:1612.00837)."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 768  # of an image's row and of a question's


@dataclass(frozen=True)
class Sizes:
    """How large a fixture is; split -> count."""

    images: dict[str, int]
    questions: dict[str, int]
    distinct_questions: int
    answers: int
    image_kinds: int = 64
    question_kinds: int = 256


VQA2 = Sizes(
    images={"train": 82_783, "val": 40_504},
    questions={"train": 443_757, "val": 214_354},
    distinct_questions=150_000,
    answers=1_000,
)
