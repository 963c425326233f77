"""Metrics against values worked out by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from data.answers import vqa_accuracy_official as official_of_one
from data.answers import vqa_accuracy_simple as simple_of_one
from train.components import families
from train.errors import TrainError
from train.inputs.references import References
from train.metrics.classification import METRICS, Evaluated, accuracy_by_type, compute
from train.metrics.vqa_accuracy import official_scores

# three classes; truth 3 and 4 are two answers outside the vocabulary
PREDICTED = [0, 0, 1, 1, 0, 2]
TRUTH = [0, 1, 1, 1, 3, 4]


def record(**changes: Any) -> Evaluated:
    n = len(changes.get("truth", TRUTH))
    fields: dict[str, Any] = {
        "num_answers": 3,
        "predicted": PREDICTED,
        "truth": TRUTH,
        "cross_entropy": np.arange(n, dtype=np.float64),
        "in_top5": np.arange(n) % 2 == 0,
        "image": np.arange(n),
        "references": "one answer each",
        **changes,
    }
    fields.setdefault("in_vocabulary", np.asarray(fields["truth"]) < fields["num_answers"])
    fields.setdefault("all_predicted", fields["predicted"])
    names = ("predicted", "truth", "image", "all_predicted")
    arrays = {name: np.asarray(fields[name]) for name in names}
    return Evaluated(**{**fields, **arrays})


def value(name: str, **changes: Any) -> float:
    return float(families.METRIC.find(name)(record(**changes)))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_value_or_a_reason(name: str) -> None:
    values, reasons = compute(record(), [name])
    assert (values[name] is None) == (name in reasons)
    empty = np.zeros(0, np.int64)
    values, reasons = compute(record(predicted=empty, truth=empty, image=empty), [name])
    assert values[name] is None
    assert reasons[name] == "no labelled example to evaluate"


def test_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(TrainError, match="unknown metric 'acuracy'; did you mean accuracy"):
        families.METRIC.find("acuracy")


def test_accuracy_counts_truths_outside_as_wrong() -> None:
    assert value("accuracy") == pytest.approx(3 / 6)
    assert value("ceiling") == pytest.approx(4 / 6)


def test_macro_figures_average_over_the_classes_that_occur() -> None:
    # truths 0, 1, 3, 4 occur. 0: predicted 3, right 1 of 1. 1: predicted 2, right 2 of 3.
    # 3 and 4 are never predicted: precision, recall and F1 are 0. Class 2 never occurs.
    assert value("precision_macro") == pytest.approx((1 / 3 + 1 + 0 + 0) / 4)
    assert value("recall_macro") == pytest.approx((1 + 2 / 3) / 4)
    assert value("f1_macro") == pytest.approx((2 / (3 + 1) + 2 * 2 / (2 + 3)) / 4)


def test_figures_by_class_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    random = np.random.default_rng(5)
    for _ in range(20):
        truth, predicted = random.integers(0, 12, (2, 200))
        predicted = np.where(random.random(200) < 0.5, truth, predicted // 2)
        for average in ("macro", "weighted", "micro"):
            precision, recall, f1, _ = precision_recall_fscore_support(
                truth, predicted, average=average, zero_division=0, labels=np.unique(truth)
            )
            given = {"truth": truth, "predicted": predicted, "num_answers": 12}
            if average == "micro":
                if set(predicted) <= set(truth):
                    assert value("accuracy", **given) == pytest.approx(precision)
                assert value("accuracy", **given) == pytest.approx(recall)
                continue
            assert value(f"precision_{average}", **given) == pytest.approx(precision)
            assert value(f"f1_{average}", **given) == pytest.approx(f1)
            own = "recall_macro" if average == "macro" else "accuracy"
            assert value(own, **given) == pytest.approx(recall)


def test_cross_entropy_averages_truths_in_the_vocabulary() -> None:
    assert value("cross_entropy") == pytest.approx((0 + 1 + 2 + 3) / 4)
    values, reasons = compute(record(truth=[3, 4], predicted=[0, 1]), ["cross_entropy"])
    assert values["cross_entropy"] is None
    assert reasons["cross_entropy"] == "no truth is in the vocabulary"


def test_cross_entropy_that_is_infinite_has_no_value() -> None:
    values, reasons = compute(record(cross_entropy=np.array([1, np.inf, 1, 1, 1, 1])))
    assert values["cross_entropy"] is None
    assert reasons["cross_entropy"] == "infinite: the model gives a truth no probability at all"
    assert values["accuracy"] == pytest.approx(3 / 6)


def test_outputs_that_are_not_finite_have_no_figures() -> None:
    values, reasons = compute(record(not_finite=2))
    assert set(values.values()) == {None}
    assert set(reasons.values()) == {"2 outputs of the model are not finite"}


def test_the_ceiling_is_over_all_that_have_an_answer() -> None:
    """With other = "drop" or "class" no truth is outside any more; the answers still are."""
    inside = np.array([True, True, False, False, False])
    assert value("ceiling", truth=[0, 1, 1, 1, 0, 2], in_vocabulary=inside) == pytest.approx(2 / 5)


def test_top5_needs_more_than_five_answers() -> None:
    assert value("top5_accuracy", num_answers=6) == pytest.approx(0.5)
    _, reasons = compute(record(num_answers=5), ["top5_accuracy"])
    assert reasons["top5_accuracy"] == "the vocabulary has 5 answers, 5 are all"


def test_error_without_clusters_is_the_usual_one() -> None:
    # each example its own image: sqrt(n / (n - 1) * n p (1 - p)) / n = sqrt(p (1 - p) / (n - 1))
    assert value("accuracy_se") == pytest.approx((0.5 * 0.5 / 5) ** 0.5)


def test_error_is_clustered_by_image() -> None:
    # residuals +-0.5; image 7: +0.5 -0.5, image 8: +0.5 +0.5, image 9: -0.5 -0.5
    # sums 0, 1, -1: sqrt(3 / 2 * 2) / 6
    assert value("accuracy_se", image=[7, 7, 8, 8, 9, 9]) == pytest.approx(3**0.5 / 6)


def test_error_of_one_image_is_unknown() -> None:
    _, reasons = compute(record(image=[4] * 6), ["accuracy_se"])
    assert "of one image" in reasons["accuracy_se"]


def test_accuracy_by_type() -> None:
    correct = np.array([True, False, True, True])
    codes = np.array([1, 1, 0, -1], np.int32)
    assert accuracy_by_type(correct, codes, ["number", "yes/no", "never"]) == {
        "number": {"accuracy": 1.0, "n": 1},
        "yes/no": {"accuracy": 0.5, "n": 2},
    }


def test_official_scores_of_ten_annotators() -> None:
    scores = official_scores(np.arange(11))
    assert scores[:5] == pytest.approx([0, 0.3, 0.6, 0.9, 1.0])
    assert (scores[4:] == 1).all()


def test_vqa_accuracy_equals_the_one_of_single_questions() -> None:
    """Compared with data.answers over texts where cleaning, normalising and agreement matter."""
    texts = ["yes", "Yes", "yes ", "a", "", "two", "2", "the dog", "dog", "t-shirt", "t shirt"]
    random = np.random.default_rng(0)
    answers = random.integers(0, len(texts), (200, 10)).astype(np.int32)
    answers[:60] = answers[:60, :1]  # unanimous: compared as they are
    answers[60:80, 1:] = answers[60:80, :1]
    classes = ["yes", "Yes", "2", "dog", "the dog", "", "t shirt", "never said"]
    predicted = random.integers(0, len(classes), 200)
    references = References(answers, texts, classes)
    changes = {"references": references, "predicted": predicted, "truth": predicted}
    for name, one in [
        ("vqa_accuracy_official", official_of_one),
        ("vqa_accuracy_simple", simple_of_one),
        ("vqa_accuracy_official_2017", partial(official_of_one, flavour="official_2017")),
        ("vqa_accuracy_evalai", partial(official_of_one, flavour="evalai")),
        ("vizwiz_accuracy", partial(official_of_one, flavour="vizwiz")),
    ]:
        expected = [
            one(classes[guess], [texts[code] for code in row])
            for guess, row in zip(predicted, answers, strict=True)
        ]
        assert 0.05 < np.mean(expected) < 0.95
        assert value(name, num_answers=8, **changes) == pytest.approx(np.mean(expected))
    best = [
        max(official_of_one(one, [texts[c] for c in row]) for one in classes) for row in answers
    ]
    assert value("vqa_ceiling", num_answers=8, **changes) == pytest.approx(np.mean(best))
    assert 0.5 < np.mean(best) < 0.99


def test_vqa_accuracy_without_ten_annotators_says_why() -> None:
    _, reasons = compute(record(references="3 of 6 examples have ..."), ["vqa_accuracy_official"])
    assert reasons["vqa_accuracy_official"] == "3 of 6 examples have ..."
