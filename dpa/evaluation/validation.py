"""The validation curve: mean rewards of every method under every direction (paper, section 3.2)."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.artefacts.frames import read_csv_table
from dpa.artefacts.jsonl import decode_lines
from dpa.config.steering import ObjectiveConfig, Pessimism
from dpa.errors import InputError
from dpa.evaluation.metrics import (
    best_scalar_rewards,
    hypervolume,
    is_degenerate,
    steered_scalar_rewards,
)
from dpa.members import scalar_score
from dpa.objectives import objective_rewards
from dpa.records import Prompt, Sample, ScoredSample
from dpa.registry import parse_policy
from dpa.text.prompts import normalise


class Policy(NamedTuple):
    """A policy's place in the comparison; methods whose iterations are compared have one."""

    method: str
    iteration: int | None

    @classmethod
    def parse(cls, name: str) -> "Policy":
        """`dpa-3` → (dpa, 3); `sft` → (sft, None)."""
        return cls(*parse_policy(name))


#: Prefixes of columns: the reward model's outputs, and a unit step along a direction in them.
OUTPUT, STEP = "output_", "step_"
#: Column prefix of a reward -> who gives it. All but the first never select responses.
SCORER_NAMES = {"r": "reward model", "judge": "judge", "gold": "gold scorer"}

#: The column of what selection maximised for an iteration, where that is not v.r of `r_*`: another
#: measure in each iteration, so no prefix of rewards that are compared.
SELECTOR = "selector_scalar_reward"

#: Rewards of a response by a scorer that knows the truth: (prompt, response) -> one per objective.
Gold = Callable[[str, str], Sequence[float]]


def gold_scorer(name: str | None, objectives: Sequence[ObjectiveConfig]) -> Gold | None:
    """A gold scorer by its name in the configuration."""
    if name is None:
        return None
    if name == "quickstart":
        from dpa.quickstart.world import gold_scores

        return lambda prompt, response: objective_rewards(gold_scores(prompt, response), objectives)
    raise InputError(f"unknown gold scorer {name!r}; known: quickstart")


def prompt_rewards(
    responses: Sequence[Path],
    prompts: Path,
    objectives: Sequence[ObjectiveConfig],
    seed: int,
    gold: Gold | None,
    judged: Sequence[Path] = (),
    trained_directions: int | None = None,
    selectors: Sequence[Path] = (),
    pessimism: Pessimism = "none",
) -> pd.DataFrame:
    """Rewards of all policies by prompt; a file's stem names its policy (`dpa-3.jsonl`).

    One row per policy, direction and prompt: the direction's weights `v_*` or the condition `c_*`,
    mean rewards `r_*` (by the judge, if its scores are `judged`, `judge_*`; by gold `gold_*`), mean
    length `tokens`, number of responses `n`, the prompt's `cluster` (itself, where the data has
    none) and whether it is `unseen`; where the first `trained_directions` are not all, whether the
    direction is `outside` of them. What every table, figure and interval is made from.
    For dpa.evaluation.steerability: means of products of two rewards (`r2_*`, `judge2_*`,
    `gold2_*`) and of the reward model's outputs (`output_*`), the unit step that a direction asks
    for in them (`step_*`); the shares of `degenerate` responses and of pairs with one under another
    direction that are `equal`.

    `selectors` are files of a policy's scores, by each reward model that selected for it; the
    column SELECTOR is then the mean of what it maximised with that `pessimism`.
    """
    asked = {p.prompt_id: p for p in decode_lines(prompts, Prompt)}
    names = [objective.name for objective in objectives]
    judges = pair_judged(responses, judged)
    rows = []
    for path in responses:
        policy = Policy.parse(path.stem)
        judge = rewards_by(judges[path], path) if judges else None
        members = [rewards_by(other, path) for other in selectors if other.stem == path.stem]
        ordered = sorted(
            decode_lines(path, ScoredSample), key=lambda r: (r.direction_index, r.prompt_id)
        )
        answers: dict[str, list[ScoredSample]] = {}
        for sample in ordered:
            answers.setdefault(sample.prompt_id, []).append(sample)
        for (index, prompt_id), found in groupby(
            ordered, lambda r: (r.direction_index, r.prompt_id)
        ):
            group = list(found)
            rewards = {"r": [r.rewards for r in group]}
            if judge is not None:
                rewards["judge"] = [judge[sample_key(r)] for r in group]
            prompt = asked.get(prompt_id)
            if prompt is None:
                raise InputError(
                    f"{path}: prompt {prompt_id} is not in the prompt file {prompts}; rerun "
                    "sample_evaluation"
                )
            if gold is not None:
                text = normalise(prompt.prompt)
                rewards["gold"] = [list(gold(text, r.response)) for r in group]
            columns = {"v": group[0].direction, "c": group[0].condition}
            columns |= {by: np.mean(given, axis=0) for by, given in rewards.items()}
            maximised = None
            if members and group[0].direction is not None:
                maximised = fmean(
                    scalar_score(r.direction or (), [m[sample_key(r)] for m in members], pessimism)
                    for r in group
                )
            rows.append(
                {
                    "method": policy.method,
                    "iteration": policy.iteration,
                    "seed": seed,
                    "direction_index": index,
                    "prompt_id": prompt_id,
                    "cluster": prompt.cluster or prompt_id,
                    "unseen": prompt.unseen,
                    **{
                        f"{prefix}_{name}": None if values is None else float(values[i])
                        for prefix, values in columns.items()
                        for i, name in enumerate(names)
                    },
                    **({SELECTOR: maximised} if selectors else {}),
                    "tokens": float(np.mean([r.response_tokens for r in group])),
                    "n": len(group),
                    **_products(rewards, names),
                    **_outputs(group, objectives),
                    "degenerate": float(np.mean([is_degenerate(r.response) for r in group])),
                    "equal": _equal_share(group, answers[prompt_id]),
                }
            )
    table = pd.DataFrame(rows).astype(
        {"iteration": "Int64", "equal": float}
        | dict.fromkeys(_prefixed("vc", names), float)
        | ({SELECTOR: float} if selectors else {})
    )
    if trained_directions is not None:
        table["outside"] = table["direction_index"] >= trained_directions
    return table


def are_outside(table: pd.DataFrame) -> pd.Series:
    """Which rows are under directions that policies were not trained on; none without a column."""
    none = pd.Series(False, index=table.index)
    return table["outside"].astype(bool) if "outside" in table else none


def _products(rewards: dict[str, list[list[float]]], names: Sequence[str]) -> dict[str, float]:
    return {
        f"{by}2_{a}_{b}": float(np.mean([r[i] * r[j] for r in given]))
        for by, given in rewards.items()
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    }


def _outputs(
    group: Sequence[ScoredSample], objectives: Sequence[ObjectiveConfig]
) -> dict[str, float | None]:
    """The mean of each reward-model output, and its part of the unit step that is asked for."""
    outputs = list(group[0].attributes)
    found: dict[str, float | None] = {
        f"{OUTPUT}{name}": float(np.mean([r.attributes[name] for r in group])) for name in outputs
    }
    weights = np.array([[o.outputs.get(name, 0.0) for name in outputs] for o in objectives])
    step = None
    if group[0].direction is not None and (towards := group[0].direction @ weights).any():
        step = towards / np.linalg.norm(towards)
    return found | {
        f"{STEP}{name}": None if step is None else float(step[i]) for i, name in enumerate(outputs)
    }


def _equal_share(group: Sequence[ScoredSample], answers: Sequence[ScoredSample]) -> float | None:
    """Share of pairs of a response and one to the same prompt under another direction."""
    others = Counter(
        " ".join(r.response.split())
        for r in answers
        if r.direction_index != group[0].direction_index
    )
    if not others:
        return None
    equal = sum(others[" ".join(r.response.split())] for r in group)
    return equal / (others.total() * len(group))


#: What tells a policy's samples apart.
SampleKey = tuple[str, int, int]


def sample_key(sample: Sample) -> SampleKey:
    return sample.prompt_id, sample.direction_index, sample.sample_index


def pair_judged(scored: Sequence[Path], judged: Sequence[Path]) -> dict[Path, Path]:
    """The judge's file for each of the reward model's; empty without a judge.

    Raises InputError unless they are of the same policies in the same order.
    """
    if judged and [path.name for path in judged] != [path.name for path in scored]:
        raise InputError("--judged: give the judge's file of each policy in --scored, in its order")
    return dict(zip(scored, judged, strict=False))


def rewards_by(other: Path, scored: Path) -> dict[SampleKey, list[float]]:
    """Another scorer's rewards of a policy's scored samples. Raises InputError if they are of other
    samples."""
    found = {sample_key(r): (r.response, r.rewards) for r in decode_lines(other, ScoredSample)}
    ours = {sample_key(r): r.response for r in decode_lines(scored, ScoredSample)}
    if {key: response for key, (response, _) in found.items()} != ours:
        raise InputError(f"{other}: of other samples than {scored}; rerun score_evaluation")
    return {key: rewards for key, (_, rewards) in found.items()}


def _prefixed(prefixes: Iterable[str], names: Sequence[str]) -> list[str]:
    return [f"{prefix}_{name}" for prefix in prefixes for name in names]


def validation_rewards(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """validation_rewards.csv: means over responses, one row per policy, seed and direction.

    `table` is prompt_rewards'; gold columns are empty where there is no gold scorer, and those of
    a judge and of selectors are there only with one. Unseen prompts have columns of their own,
    `unseen_*`, which are there if such prompts are; so is `outside`, which tells other directions
    than the trained ones.
    """
    rows = []
    for key, group in table.groupby(
        ["method", "iteration", "seed", "direction_index"], dropna=False, sort=False
    ):
        unseen = group[group["unseen"]]
        rows.append(
            dict(zip(["method", "iteration", "seed", "direction_index"], key, strict=True))
            | {c: group[c].iloc[0] for c in [*_prefixed("v", names), "outside"] if c in group}
            | _means(group[~group["unseen"]], names)
            | {f"unseen_{c}": x for c, x in _means(unseen, names).items() if len(unseen)}
        )
    return pd.DataFrame(rows).astype({"iteration": "Int64"})


def _means(group: pd.DataFrame, names: Sequence[str]) -> dict[str, float | int | None]:
    """Means over the responses of a policy's prompts; None for what has no column."""
    weights = group["n"].to_numpy()

    def mean(column: str) -> float | None:
        if column not in group or not len(group):
            return None
        return round(float(np.average(group[column], weights=weights)), 4)

    judge = ["judge"] if f"judge_{names[0]}" in group else []
    rewards = {column: mean(column) for column in _prefixed(["r", *judge, "gold"], names)}
    if SELECTOR in group:
        rewards |= {SELECTOR: mean(SELECTOR)}
    return rewards | {"mean_tokens": mean("tokens"), "n": int(weights.sum())}


def read_validation_rewards(path: Path) -> pd.DataFrame:
    """validation_rewards.csv. Raises InputError when it is missing or has other columns."""
    needed = {"method", "iteration", "seed", "direction_index", "mean_tokens", "n"}
    return read_csv_table(
        path, "rerun collect_validation_rewards", needed, dtype={"iteration": "Int64"}
    )


def front(
    table: pd.DataFrame, method: str, iteration: int | None, objectives: Sequence[str], by: str
) -> np.ndarray:
    """(points, k) mean rewards of a policy in direction order, `by` one of the scorers.

    `by` is the column prefix: `r`, `judge` or `gold`. Means over the seeds, if there are several.
    Without points outside of the trained directions. Empty when the table does not have the policy.
    """
    rows = table[(table["method"] == method) & ~are_outside(table)]
    rows = rows[rows["iteration"].isna() if iteration is None else rows["iteration"] == iteration]
    columns = _prefixed([by], objectives)
    return rows.groupby("direction_index")[columns].mean().to_numpy(dtype=float)


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
