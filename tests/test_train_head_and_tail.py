"""Frequent and rare answers of each question type, against a count by hand and a restatement."""

from __future__ import annotations

from collections import Counter
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_train_metrics import record

from train.metrics.classification import compute
from train.metrics.head_and_tail import head_and_tail

# type 0: 8 of answer 0, 1 each of 1 and 2: a mean of 10 / 3, so that 1 and 2 are rare
# type 1: 3 of each: even, so that it does not count; type 2: one answer alone
ANSWERS = [0] * 8 + [1, 2] + [0] * 3 + [1] * 3 + [2] * 2
TYPES = [0] * 10 + [1] * 6 + [2] * 2


def test_head_and_tail_worked_out_by_hand() -> None:
    predicted = [0] * 6 + [1] * 2 + [1, 1] + [9] * 8
    given = {
        "truth": ANSWERS,
        "predicted": predicted,
        "num_answers": 10,
        "question_type": np.array(TYPES, np.int32),
    }
    values, _ = compute(record(**given), ["accuracy_head", "accuracy_tail"])
    assert values == {"accuracy_head": pytest.approx(6 / 8), "accuracy_tail": pytest.approx(1 / 2)}
    _, reasons = compute(record(truth=[1, 2], predicted=[1, 2]), ["accuracy_tail"])
    why = "no question type has both frequent and rare answers"
    assert reasons == {"accuracy_tail": why}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=60))
def test_each_type_alone(examples: list[tuple[int, int]]) -> None:
    group, answer = (np.array([one[k] for one in examples], dtype=np.int32) for k in (0, 1))
    head, tail = head_and_tail(answer.astype(np.int64), group)
    for place, (kind, own) in enumerate(examples):
        counts = Counter(a for k, a in examples if k == kind)
        n = counts.total()
        entropy = -sum(c / n * log(c / n) for c in counts.values())
        uneven = len(counts) > 1 and entropy < 0.9 * log(len(counts)) - 1e-12
        rare = counts[own] <= 1.2 * n / len(counts)
        if len(counts) < 2 or abs(entropy - 0.9 * log(len(counts))) > 1e-9:
            assert (head[place], tail[place]) == (uneven and not rare, uneven and rare)
