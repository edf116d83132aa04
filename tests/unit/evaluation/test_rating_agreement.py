"""Agreement of predictions with labels."""

import numpy as np
import pytest

from dpa.evaluation.rating_agreement import (
    labelled_pairs,
    metrics_table,
    pairwise_accuracy,
    ranking_table,
)
from dpa.records import Rating


def make_rating(prompt: str, **attributes: float) -> Rating:
    return Rating(
        prompt_id=prompt,
        prompt=prompt,
        response="r",
        attributes=attributes,
        dataset="test",
        split="validation",
    )


@pytest.fixture
def pairs():
    first = [make_rating("p", a=10.0), make_rating("p", a=20.0, b=1.0), make_rating("p", a=40.0)]
    second = [make_rating("q", a=50.0), make_rating("q", a=50.0)]
    scores = [np.array([[12.0, 5.0], [18.0, 5.0], [39.0, 5.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])]
    return labelled_pairs(zip([first, second], scores, strict=True), ["a", "b", "c"])


def test_metrics_over_all_labelled_responses(pairs):
    a, b, c = metrics_table(pairs)
    predicted, labels = [12, 18, 39, 1, 2], [10, 20, 40, 50, 50]
    assert a["n"] == 5
    assert a["pearson"] == pytest.approx(np.corrcoef(predicted, labels)[0, 1], abs=1e-4)
    assert a["spearman"] == pytest.approx(-5.5 / np.sqrt(95), abs=1e-4)
    assert a["rmse"] == pytest.approx(np.sqrt((4 + 4 + 1 + 49**2 + 48**2) / 5), abs=1e-4)
    assert b == {"attribute": "b", "n": 1, "pearson": None, "spearman": None, "rmse": 4.0}
    assert c == {"attribute": "c", "n": 0, "pearson": None, "spearman": None, "rmse": None}


def test_ranking_is_of_prompts_whose_labels_differ(pairs):
    a, b, _ = ranking_table(pairs)
    assert a == {
        "attribute": "a",
        "prompts": 1,
        "spearman_within_prompt": 1.0,
        "pairwise_accuracy": 1.0,
    }
    assert b["prompts"] == 0
    assert b["spearman_within_prompt"] is None


def test_constant_predictions_rank_nothing():
    row = ranking_table({"a": [(np.array([5.0, 5.0]), np.array([1.0, 2.0]))]})[0]
    assert row["spearman_within_prompt"] == 0.0
    assert row["pairwise_accuracy"] == 0.5


def test_pairwise_accuracy_by_hand():
    # Pairs with different labels: (0,1) right, (0,2) wrong, (1,2) equal labels: not counted,
    # (0,3) tied, (1,3) and (2,3): right, right.
    predicted, labels = np.array([2.0, 3.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.0, 1.0])
    assert pairwise_accuracy(predicted, labels) == pytest.approx(2 / 4)
