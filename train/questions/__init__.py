"""Question branches: from a question's words or tokens to one vector, perhaps with states.

A branch is a module built from the specification of what it is given (`Words` or `Tokens`), with
its options as keyword-only parameters, and called with that `Input`; it gives `Encoded`.
Its attributes: `gives`, a Vector; `states`, a Tokens or None.
"""

QUESTIONS: dict[str, str] = {}
