"""How well a reward model's outputs agree with held-out labels. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.row_counts import RowCounts
from dpa.errors import InputError
from dpa.evaluation.metrics import spearman
from dpa.records import Rating
from dpa.reward.inputs import Group
from dpa.reward.score_samples import PROMPTS_PER_CHUNK
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import Progress

METRICS_COLUMNS = ("attribute", "n", "pearson", "spearman", "rmse")


RANKING_COLUMNS = ("attribute", "prompts", "spearman_within_prompt", "pairwise_accuracy")


#: (predictions, labels) of one attribute for the responses to one prompt.
LabelledScores = tuple[np.ndarray, np.ndarray]


def labelled_pairs(
    groups: Iterable[tuple[Sequence[Rating], np.ndarray]], names: Sequence[str]
) -> dict[str, list[LabelledScores]]:
    """Per attribute, one (predictions, labels) per prompt, of the responses that are labelled.

    Each group is a prompt's ratings and their scores (responses, outputs).
    """
    pairs: dict[str, list[LabelledScores]] = {name: [] for name in names}
    for ratings, scores in groups:
        for column, name in enumerate(names):
            rows = [i for i, rating in enumerate(ratings) if name in rating.attributes]
            labels = np.array([ratings[i].attributes[name] for i in rows])
            if rows:
                pairs[name].append((scores[rows, column], labels))
    return pairs


def prediction_rows(pairs: dict[str, list[LabelledScores]]) -> list[dict]:
    """Rows of predictions.parquet: a label and what was predicted; `prompt` numbers the prompts."""
    return [
        {"attribute": name, "prompt": prompt, "label": float(y), "predicted": float(p)}
        for name, groups in pairs.items()
        for prompt, (predicted, labels) in enumerate(groups)
        for p, y in zip(predicted, labels, strict=True)
    ]


def metrics_table(pairs: dict[str, list[LabelledScores]]) -> list[dict]:
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


def ranking_table(pairs: dict[str, list[LabelledScores]]) -> list[dict]:
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


def held_out_groups(ratings: Path, row_counts: RowCounts) -> list[list[Rating]]:
    """Each validation prompt's ratings; those for training are counted in `row_counts`."""
    groups: dict[str, list[Rating]] = {}
    for rating in decode_lines(ratings, Rating):
        row_counts.read += 1
        if rating.split == "validation":
            groups.setdefault(rating.prompt_id, []).append(rating)
        else:
            row_counts.drop("for training", asked_for=True)
    if not groups:
        raise InputError(
            f"{ratings}: no ratings with split validation; give data.ratings a validation file"
        )
    return list(groups.values())


def groups_of_ratings(groups: Iterable[list[Rating]]) -> list[Group]:
    """Each prompt with the responses that were rated."""
    return [(group[0].prompt, [rating.response for rating in group]) for group in groups]


def score_held_out(
    model: Scorer, ratings: Path, groups: Sequence[list[Rating]]
) -> Iterator[tuple[list[Rating], np.ndarray]]:
    """Groups of ratings with their scores (responses, outputs), of which `ratings` is the file."""
    progress = Progress(len(groups), "prompts")
    starts = range(0, len(groups), PROMPTS_PER_CHUNK)
    chunks = (groups[start : start + PROMPTS_PER_CHUNK] for start in starts)
    for chunk, scores in model.score_stream(chunks, groups_of_ratings):
        for group, array in zip(chunk, scores, strict=True):
            for rating, row in zip(group, array, strict=True):
                named_scores(model.names, row, f"{ratings}: prompt {rating.prompt_id}")
            yield group, array
        progress.advance(len(chunk))
