"""Attention: from an image's positions and a question to one vector.

An attention is a module built from `image`, `question` and `states`, the specifications of what it
looks at and is led by, with its options as keyword-only parameters. It is called with the image's
`Input` and the question's `Encoded`, and gives [b, gives.d]. The types in its signature say what it
accepts (`image: Grid | Tokens, question: Vector, states: Tokens | None`; `states: Tokens` where it
needs them).
"""

ATTENTIONS: dict[str, str] = {
    "stacked": "train.attention.stacked:StackedAttention",
    "bottom_up": "train.attention.bottom_up:BottomUpAttention",
    "mcan": "train.attention.mcan:CoAttention",
    "bilinear": "train.attention.bilinear:BilinearAttention",
    "multi_query": "train.attention.multi_query:MultiQueryAttention",
}
