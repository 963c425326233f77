"""Fusions: from one row per modality to one vector per example.

A fusion is a module with `out_features`, built from `sizes` (modality -> width, in the order image,
text) and called with `inputs` (modality -> float [batch, width]). An experiment with one modality
has one input; every fusion accepts that. Those here extend `Fusion`, which has `transform`.
"""

FUSIONS: dict[str, str] = {
    "concat": "train.fusion.concat:Concat",
    "product": "train.fusion.product:Product",
    "sum": "train.fusion.sum:Sum",
    "gmu": "train.fusion.gmu:GatedMultimodalUnit",
    "low_rank": "train.fusion.low_rank:LowRank",
}
