"""Question branches: from a question's words or tokens to one vector, perhaps with states.

A branch is a module built from `given`, the specification of what it reads, with its options as
keyword-only parameters, and called with that `Input`; it gives `Encoded`. The type of `given` in
its signature says what it accepts (`given: Words`, `given: Tokens`). Its attributes: `gives`, a
Vector; `states`, the Tokens of its states or None.
"""

QUESTIONS: dict[str, str] = {
    "word_lstm": "train.questions.word_lstm:WordLstm",
    "token_lstm": "train.questions.token_lstm:TokenLstm",
    "attention_pool": "train.questions.attention_pool:AttentionPool",
}
