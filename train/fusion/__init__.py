"""Fusions: from one row per modality to one vector per example.

A fusion is a module with `out_features`, built from `sizes` (modality -> width, in the order image,
text) and called with `inputs` (modality -> float [batch, width]). An experiment with one modality
has one input; every fusion accepts that.
"""

FUSIONS: dict[str, str] = {
    "concat": "train.fusion.concat:Concat",
    "product": "train.fusion.product:Product",
}
