"""Losses: from logits [batch, answers] and targets int64 [batch] to one number, in nats.

A target of `IGNORED` takes no part: neither in the sum nor in the mean.
"""

LOSSES: dict[str, str] = {"cross_entropy": "train.losses.cross_entropy:CrossEntropy"}
IGNORED = -1
