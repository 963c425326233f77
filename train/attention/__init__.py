"""Attention: from an image's positions and a question to one vector.

An attention is a module built from `image` (a Grid or Tokens), `question` (a Vector) and `states`
(Tokens, or None where the question has none), with its options as keyword-only parameters. It is
called with the image's `Input` and the question's `Encoded`, and gives [b, gives.d].
"""

ATTENTIONS: dict[str, str] = {}
