"""The validation curve: mean rewards of every method under every direction (paper, section 3.2)."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.errors import InputError
from dpa.metrics import best_scalar_rewards, hypervolume, steered_scalar_rewards
from dpa.prompts import normalise
from dpa.records import Prompt, ScoredSample, decode_lines, read_jsonl


class Policy(NamedTuple):
    """A policy's place in the comparison: `dpa` has an iteration, baselines have none."""

    method: str
    iteration: int | None

    @classmethod
    def parse(cls, name: str) -> "Policy":
        """`dpa-3` → (dpa, 3); `sft` → (sft, None)."""
        method, _, iteration = name.partition("-")
        return cls(method, int(iteration) if iteration else None)


#: Rewards of a response by a scorer that knows the truth: (prompt, response) -> one per objective.
Gold = Callable[[str, str], Sequence[float]]


def gold_scorer(name: str | None) -> Gold | None:
    """A gold scorer by its name in the configuration."""
    if name is None:
        return None
    if name == "quickstart":
        from dpa.world import gold_rewards

        return gold_rewards
    raise InputError(f"unknown gold scorer {name!r}; known: quickstart")


def summarise(
    policy: Policy,
    records: Sequence[ScoredSample],
    objectives: Sequence[str],
    seed: int,
    gold: Gold | None,
    prompts: dict[str, str],
) -> Iterator[dict]:
    """Rows of validation_rewards.csv: means over prompts and samples, one row per direction.

    `prompts` maps ids to texts, for the gold scorer.
    """
    ordered = sorted(records, key=lambda r: r.direction_index)
    for index, group in groupby(ordered, lambda r: r.direction_index):
        rows = list(group)
        columns = {"v": rows[0].direction, "r": _mean([r.rewards for r in rows]), "gold": None}
        if gold is not None:
            columns["gold"] = _mean([gold(prompts[r.prompt_id], r.response) for r in rows])
        yield {
            "method": policy.method,
            "iteration": policy.iteration,
            "seed": seed,
            "direction_index": index,
            **{
                f"{prefix}_{name}": values[i] if values else None
                for prefix, values in columns.items()
                for i, name in enumerate(objectives)
            },
            "mean_tokens": _mean([[r.response_tokens] for r in rows])[0],
            "n": len(rows),
        }


def _mean(values: Sequence[Sequence[float]]) -> list[float]:
    return np.mean(values, axis=0).round(4).tolist()


def collect(
    responses: Sequence[Path],
    prompts: Path,
    objectives: Sequence[str],
    seed: int,
    gold: Gold | None,
) -> pd.DataFrame:
    """The table of all policies; a file's stem names its policy (`dpa-3.jsonl`)."""
    texts = {p.prompt_id: normalise(p.prompt) for p in decode_lines(prompts, Prompt)}
    rows = [
        row
        for path in responses
        for row in summarise(
            Policy.parse(path.stem), read_jsonl(path, ScoredSample), objectives, seed, gold, texts
        )
    ]
    return pd.DataFrame(rows).astype({"iteration": "Int64"})


def read_table(path: Path) -> pd.DataFrame:
    """validation_rewards.csv. Raises InputError when it is missing or has other columns."""
    try:
        table = pd.read_csv(path, dtype={"iteration": "Int64"})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; rerun collect_validation_rewards") from None
    needed = {"method", "iteration", "seed", "direction_index", "mean_tokens", "n"}
    if missing := sorted(needed - set(table.columns)):
        raise InputError(f"{path}: no column {missing}; rerun collect_validation_rewards")
    return table


def front(
    table: pd.DataFrame, method: str, iteration: int | None, objectives: Sequence[str], by: str
) -> np.ndarray:
    """(points, k) mean rewards of a policy in direction order, `by` the reward model or gold.

    `by` is the column prefix, `r` or `gold`. Empty when the table does not have the policy.
    """
    rows = table[table["method"] == method]
    rows = rows[rows["iteration"].isna() if iteration is None else rows["iteration"] == iteration]
    rows = rows.sort_values("direction_index")
    return rows[[f"{by}_{name}" for name in objectives]].to_numpy(dtype=float)


def mean_scalar_reward(points: np.ndarray, directions: np.ndarray, steered: bool) -> float:
    """Mean over the evaluation directions of v.r.

    A policy that is `steered` by directions is scored at the point it gave for each; any other at
    its most favourable point for each direction.
    """
    score = steered_scalar_rewards if steered else best_scalar_rewards
    return float(score(points, directions).mean())


def front_hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Hypervolume of a front, in percent of the box from the reference corner to the ideal."""
    return hypervolume(points, np.asarray(reference, dtype=float))
