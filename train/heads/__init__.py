"""Heads: from a fused vector [batch, in_features] to logits [batch, num_answers].

They are not probabilities. A head is built with `in_features` and `num_answers`; one with a further
parameter `answer_vectors` is given the vocabulary's embeddings [num_answers, width], one with
`answer_types` the number of each answer's type, int64 [num_answers]. Its keyword-only parameters
are the options of `[head]` in an experiment.
"""

HEADS: dict[str, str] = {
    "linear": "train.heads.linear:LinearHead",
    "mlp": "train.heads.mlp:MlpHead",
    "sequence": "train.heads.sequence:SequenceHead",
    "cosine": "train.heads.cosine:CosineHead",
    "type_gate": "train.heads.type_gate:TypeGateHead",
}
