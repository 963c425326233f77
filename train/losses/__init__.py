"""Losses: from logits [batch, answers] and targets to one number, in nats.

Targets are int64 [batch], one label each; a target of `IGNORED` takes no part: neither in the sum
nor in the mean. A loss with an attribute `targets` is given float [batch, answers] instead, the
annotators' "scores" or "shares" (`train.inputs.soft_targets`). One with a parameter `class_counts`
is given how often train has each answer, one with `answer_types` the type of each, int64 [answers].
"""

LOSSES: dict[str, str] = {
    "cross_entropy": "train.losses.cross_entropy:CrossEntropy",
    "type_cross_entropy": "train.losses.type_cross_entropy:TypeCrossEntropy",
    "binary_cross_entropy": "train.losses.binary_cross_entropy:BinaryCrossEntropy",
    "soft_cross_entropy": "train.losses.soft_cross_entropy:SoftCrossEntropy",
    "kl_divergence": "train.losses.kl_divergence:KlDivergence",
}
IGNORED = -1
