"""RewardBench: its prompts as a generation benchmark (paper, appendix A), and its own pairs.

A policy's response is compared with a reference policy's response to the same prompt by a scalar
judge; ties are half a win. A reward model is tested on the benchmark's own pairs. Averages are
taken both ways: over subsets, as the paper's table 2 does, and over prompts. No torch here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpa.artefacts.jsonl import decode_lines, read_jsonl
from dpa.errors import InputError
from dpa.evaluation.rewardbench_data import Sections, subsets_of
from dpa.evaluation.validation import Policy
from dpa.records import Choice, JudgedSample, ScoredChoice


class Rate(NamedTuple):
    """A share of wins with its standard error, on 0-1."""

    level: str
    name: str
    n: int
    wins: int
    ties: int
    rate: float
    error: float


def outcome(ours: float, theirs: float) -> float:
    """1 for a win, 0 for a loss, a half for a tie."""
    return 0.5 if ours == theirs else float(ours > theirs)


def rates(outcomes: Mapping[str, Sequence[float]], sections: Sections) -> list[Rate]:
    """Win rates by subset, by section and over all, from the outcomes of each subset.

    A `section` is the mean of its subsets, as in the paper. `average_macro` (the same) and
    `average_weighted` (every prompt counts once) are given for each section and for `all`.
    """
    subset = {name: _rate("subset", name, outcomes[name]) for name in subsets_of(sections)}
    groups = {section.name: list(section.subsets) for section in sections}
    macro, weighted = [], []
    for name, members in (groups | {"all": list(subset)}).items():
        macro.append(_macro("average_macro", name, [subset[m] for m in members]))
        pooled = [value for m in members for value in outcomes[m]]
        weighted.append(_rate("average_weighted", name, pooled))
    by_section = [rate._replace(level="section") for rate in macro[:-1]]
    return [*subset.values(), *by_section, *macro, *weighted]


def _rate(level: str, name: str, values: Sequence[float]) -> Rate:
    n = len(values)
    wins, ties = sum(v == 1 for v in values), sum(v == 0.5 for v in values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Rate(level, name, n, wins, ties, float(np.mean(values)), error)


def _macro(level: str, name: str, members: Sequence[Rate]) -> Rate:
    """The mean of subsets, which are independent."""
    return Rate(
        level,
        name,
        sum(m.n for m in members),
        sum(m.wins for m in members),
        sum(m.ties for m in members),
        float(np.mean([m.rate for m in members])),
        math.sqrt(sum(m.error**2 for m in members)) / len(members),
    )


def win_rates(
    judged: Sequence[Path],
    reference: Path,
    items: Path,
    sections: Sections,
    names: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of win_rates.csv for one seed: every direction of every policy against the reference.

    A file's stem names its policy. Raises InputError when a prompt lacks a response.
    """
    choices = read_jsonl(items, Choice)
    theirs: dict[str, float] = {}
    for record in decode_lines(reference, JudgedSample):
        if record.direction is not None or record.condition is not None:
            raise InputError(f"{reference}: the reference is a policy that takes no direction")
        theirs[record.prompt_id] = record.score
    rows = []
    for path in judged:
        policy = Policy.parse(path.stem)
        scores: dict[int, dict[str, float]] = {}
        directions: dict[int, list[float] | None] = {}
        for record in decode_lines(path, JudgedSample):
            scores.setdefault(record.direction_index, {})[record.prompt_id] = record.score
            directions[record.direction_index] = record.direction
        for index, ours in sorted(scores.items()):
            outcomes = _outcomes(choices, ours, theirs, path, reference)
            weights: Sequence[float | None] = directions[index] or [None] * len(names)
            for rate in rates(outcomes, sections):
                rows.append(
                    {
                        "method": policy.method,
                        "iteration": policy.iteration,
                        "seed": seed,
                        "direction_index": index,
                        **{f"v_{name}": v for name, v in zip(names, weights, strict=True)},
                        "reference": reference.stem,
                        "level": rate.level,
                        "name": rate.name,
                        "n": rate.n,
                        "wins": rate.wins,
                        "ties": rate.ties,
                        "win_rate": round(100 * rate.rate, 4),
                        "standard_error": round(100 * rate.error, 4),
                    }
                )
    return rows


def _outcomes(
    choices: Sequence[Choice],
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    path: Path,
    reference: Path,
) -> dict[str, list[float]]:
    outcomes: dict[str, list[float]] = {}
    for choice in choices:
        for file, scores in ((path, ours), (reference, theirs)):
            if choice.prompt_id not in scores:
                raise InputError(
                    f"{file}: no response to a prompt of {choice.subset}, {choice.prompt!r:.80}; "
                    "it is longer than sampling.max_prompt_tokens: raise it"
                )
        won = outcome(ours[choice.prompt_id], theirs[choice.prompt_id])
        outcomes.setdefault(choice.subset, []).append(won)
    return outcomes


def accuracies(
    scored: Path, sections: Sections, names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Rows of reward_model_accuracy.csv for one seed: chosen against rejected by objective."""
    choices = read_jsonl(scored, ScoredChoice)
    rows = []
    for i, objective in enumerate(names):
        outcomes: dict[str, list[float]] = {}
        for choice in choices:
            won = outcome(choice.chosen_rewards[i], choice.rejected_rewards[i])
            outcomes.setdefault(choice.subset, []).append(won)
        for rate in rates(outcomes, sections):
            rows.append(
                {
                    "objective": objective,
                    "seed": seed,
                    "level": rate.level,
                    "name": rate.name,
                    "n": rate.n,
                    "accuracy": round(100 * rate.rate, 4),
                    "standard_error": round(100 * rate.error, 4),
                }
            )
    return rows


def as_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table whose iterations are whole numbers."""
    table = pd.DataFrame(list(rows))
    return table.astype({"iteration": "Int64"}) if "iteration" in table else table
