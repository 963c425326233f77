"""What `python -m benchmarks precompute` measures over how much, in full and in its short form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vqa_cache.spec import Modality


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The defaults are those of the full form.

    Attributes:
        images: name in the keys -> encoder and number of JPEGs.
        batch_sizes: that sentence-transformers may choose from.
        cosine_items: how many items' cosine is taken where bf16 pays, and where it does not.
        killed: encoder of the run that is killed so many times; `shards` of `rows_per_shard` rows.
        written: encoder of the run whose memory is watched; `written_rows` in all.
    """

    images: Mapping[str, tuple[str, int]] = field(
        default_factory=lambda: {
            "resnet50": ("timm:resnet50:random=0", 512),
            "vitb16": ("timm:vit_base_patch16_224:random=0", 256),
        }
    )
    questions: int = 5000
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256)
    cosine_items: Mapping[Modality, tuple[int, int]] = field(
        default_factory=lambda: {"image": (64, 2), "text": (512, 8)}
    )
    killed: str = "timm:resnet18:random=0"
    kills: int = 20
    shards: int = 8
    rows_per_shard: int = 16
    written: str = "timm:resnet18:random=0:tap=layer1:grid=56"
    written_rows: int = 9966  # of 401,408 bytes: 4 GB
    written_rows_per_shard: int = 1024


FULL = Sizes()
SMALL = Sizes(
    images={
        "resnet50": ("timm:test_resnet:random=0", 12),
        "vitb16": ("timm:test_vit:random=0", 8),
    },
    questions=40,
    batch_sizes=(16, 32),
    cosine_items={"image": (2, 1), "text": (4, 2)},
    killed="timm:test_resnet:random=0",
    kills=1,
    shards=4,
    rows_per_shard=2,
    written="timm:test_resnet:random=0",
    written_rows=60,
    written_rows_per_shard=5,
)
