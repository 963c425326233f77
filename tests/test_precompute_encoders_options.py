"""Near names of a misspelt model."""

from __future__ import annotations

from precompute.encoders.options import near_names


def test_names_that_go_on_come_first_then_alike_ones() -> None:
    known = ["resnet50_gn", "resnet50", "resnext50", "resnetv2_50", "vit_base", "ViT-B-32"]
    assert near_names("resnet5", known)[:3] == ["resnet50", "resnet50_gn", "resnext50"]
    assert near_names("vit_bse", known) == ["vit_base"]
    assert near_names("nothing", known) == []
