"""Which of DPA's iterations to use, by a scorer that never selected responses.

The reward model's opinion rises with every iteration, whether responses get better or not. The
judge's is asked on one half of the validation prompts; what is reported of the choice is measured
on the other half.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.errors import InputError
from dpa.evaluation.bootstrap import (
    Interval,
    common_prompts,
    draw_prompts,
    hypervolumes,
    interval,
    mean_scalar_rewards,
    policy_points,
    replicate,
)
from dpa.evaluation.validation import SCORER_NAMES
from dpa.seeds import derive_seed

#: What is reported of the chosen iteration and of the last.
CHOICE_MEASURES = {"hypervolume": "hypervolume", "mean_vr": "mean v·r"}


class IterationChoice(NamedTuple):
    """The content of dpa/chosen.json."""

    iteration: int
    hypervolume: dict[int, Interval]
    """By the judge, of each iteration on the half that chose."""
    fell: int | None
    """The first iteration that fell, which is not taken, nor any after it."""


def choosing_half(prompts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """The prompts that choose, and those on which the choice is reported: in seeded hash order."""
    ordered = sorted(prompts, key=lambda prompt: (derive_seed(seed, "choose", prompt), prompt))
    half = len(ordered) // 2
    if not half:
        raise InputError(
            f"dpa.choose_iteration: {len(ordered)} validation prompts make no halves; give more"
        )
    return sorted(ordered[:half]), sorted(ordered[half:])


def choose_iteration(
    table: pd.DataFrame, objectives: Sequence[str], reference: Sequence[float]
) -> IterationChoice:
    """The choice among DPA's iterations from 1, from the prompt rewards of one seed.

    In order, each is compared with the best so far: hypervolume by the judge, paired over clusters.
    The first whose difference is below zero with its whole bootstrap interval has fallen, and the
    best before it is taken; where none falls, the last.
    """
    seed = int(table["seed"].iloc[0])
    prompts, _ = choosing_half(_prompts(table), seed)
    weights = _weights(table, prompts)
    found: dict[int, np.ndarray] = {}
    best = 0
    for t in _iterations(table):
        points = policy_points(table, "dpa", t, objectives, "judge", prompts)
        found[t] = hypervolumes(replicate(weights, points.rewards), reference)
        if best and interval(found[t] - found[best]).high < 0:
            return IterationChoice(best, {i: interval(volumes) for i, volumes in found.items()}, t)
        if not best or found[t][0] >= found[best][0]:
            best = t
    return IterationChoice(t, {i: interval(volumes) for i, volumes in found.items()}, None)


def _prompts(table: pd.DataFrame) -> list[str]:
    """Those that all of DPA's iterations have answered: other methods have no say in the choice."""
    return common_prompts(table[table["method"] == "dpa"])


def _weights(table: pd.DataFrame, prompts: Sequence[str]) -> np.ndarray:
    rows = table[(table["method"] == "dpa") & table["prompt_id"].isin(prompts)]
    return draw_prompts([rows])[0].weights


def _iterations(table: pd.DataFrame) -> list[int]:
    """DPA's iterations that take directions: iteration 0 is SteerLM."""
    iterations = table.loc[table["method"] == "dpa", "iteration"].dropna().unique()
    if not (found := sorted(int(t) for t in iterations if t > 0)):
        raise InputError("prompt rewards: no iteration of dpa to choose from; train one")
    return found


def chosen_rows(
    table: pd.DataFrame, chosen: int, objectives: Sequence[str], reference: Sequence[float]
) -> list[dict]:
    """Rows of one seed: the chosen iteration and the last by each scorer, on the other half."""
    seed = int(table["seed"].iloc[0])
    _, prompts = choosing_half(_prompts(table), seed)
    weights = _weights(table, prompts)
    rows = []
    for name, t in (("chosen by the judge", chosen), ("last", _iterations(table)[-1])):
        for by in SCORER_NAMES:
            if f"{by}_{objectives[0]}" not in table:
                continue
            rewards, directions, _ = policy_points(table, "dpa", t, objectives, by, prompts)
            if directions is None:
                raise InputError(f"prompt rewards: dpa's iteration {t} takes no directions")
            fronts = replicate(weights, rewards)
            measures = {
                "hypervolume": interval(hypervolumes(fronts, reference)),
                "mean_vr": interval(mean_scalar_rewards(fronts, directions, steered=True)),
            }
            for measure, (value, low, high) in measures.items():
                rows.append(
                    {
                        "seed": seed, "which": name, "iteration": t, "measure": measure, "by": by,
                        "value": value, "low": low, "high": high, "prompts": len(prompts),
                    }
                )  # fmt: skip
    return rows
