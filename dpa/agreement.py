"""How well reward-model outputs agree with held-out labels. No torch."""

from collections.abc import Iterable, Sequence

import numpy as np

from dpa.metrics import spearman
from dpa.records import Rating

METRICS_COLUMNS = ("attribute", "n", "pearson", "spearman", "rmse")
RANKING_COLUMNS = ("attribute", "prompts", "spearman_within_prompt", "pairwise_accuracy")

#: (predictions, labels) of one attribute for the responses to one prompt.
Pair = tuple[np.ndarray, np.ndarray]


def labelled_pairs(
    groups: Iterable[tuple[Sequence[Rating], np.ndarray]], names: Sequence[str]
) -> dict[str, list[Pair]]:
    """Per attribute, one (predictions, labels) per prompt, of the responses that are labelled.

    Each group is a prompt's ratings and their scores (responses, outputs).
    """
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    for ratings, scores in groups:
        for column, name in enumerate(names):
            rows = [i for i, rating in enumerate(ratings) if name in rating.attributes]
            labels = np.array([ratings[i].attributes[name] for i in rows])
            if rows:
                pairs[name].append((scores[rows, column], labels))
    return pairs


def prediction_rows(pairs: dict[str, list[Pair]]) -> list[dict]:
    """Rows of predictions.parquet: a label and what was predicted; `prompt` numbers the prompts."""
    return [
        {"attribute": name, "prompt": prompt, "label": float(y), "predicted": float(p)}
        for name, groups in pairs.items()
        for prompt, (predicted, labels) in enumerate(groups)
        for p, y in zip(predicted, labels, strict=True)
    ]


def metrics_table(pairs: dict[str, list[Pair]]) -> list[dict]:
    """Rows of metrics.csv: correlations and root mean square error over all labelled responses.

    Correlations are None where they are undefined (fewer than two distinct values).
    """
    rows = []
    for name, groups in pairs.items():
        row = dict.fromkeys(METRICS_COLUMNS) | {"attribute": name, "n": 0}
        if groups:
            predicted, labels = (np.concatenate(side) for side in zip(*groups, strict=True))
            row["n"] = len(labels)
            row["rmse"] = _rounded(np.sqrt(np.mean((predicted - labels) ** 2)))
            if _distinct(predicted) and _distinct(labels):
                row["pearson"] = _rounded(np.corrcoef(predicted, labels)[0, 1])
                row["spearman"] = _rounded(spearman(predicted, labels))
        rows.append(row)
    return rows


def ranking_table(pairs: dict[str, list[Pair]]) -> list[dict]:
    """Rows of ranking.csv: how well responses to the same prompt are ranked.

    Means over the prompts with at least two distinct labels: Spearman's correlation (0 where the
    predictions are all equal), and the share of differently labelled pairs in the labels' order
    (one half for equal predictions).
    """
    rows = []
    for name, groups in pairs.items():
        ranked = [(p, y) for p, y in groups if _distinct(y)]
        row = dict.fromkeys(RANKING_COLUMNS) | {"attribute": name, "prompts": len(ranked)}
        if ranked:
            within = [spearman(p, y) if _distinct(p) else 0.0 for p, y in ranked]
            row["spearman_within_prompt"] = _rounded(np.mean(within))
            row["pairwise_accuracy"] = _rounded(np.mean([pairwise_accuracy(*r) for r in ranked]))
        rows.append(row)
    return rows


def pairwise_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of pairs with different labels that are predicted in the labels' order, ties half."""
    apart = np.sign(labels[:, None] - labels[None, :])
    agree = np.sign(predicted[:, None] - predicted[None, :]) * apart
    return float((agree[apart != 0].mean() + 1) / 2)


def _distinct(values: np.ndarray) -> bool:
    return len(values) > 1 and bool(values.min() < values.max())


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 4)
