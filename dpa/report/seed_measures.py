"""What is measured of each seed's run for table 1 and the comparison: replicates and costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.errors import InputError
from dpa.evaluation.bootstrap import (
    NAN,
    DrawnPrompts,
    best_known,
    controls,
    dominances,
    draw_prompts,
    hypervolumes,
    infeasible_shares,
    mean_scalar_rewards,
    policy_points,
    replicate,
    scalar_rewards,
)
from dpa.evaluation.costs import (
    method_budget,
    method_cost,
    policy_bytes,
    samples_per_answer,
    stored_models,
)
from dpa.evaluation.steerability import collapses, dispersions, movements, standard_of
from dpa.evaluation.validation import are_outside
from dpa.registry import METHODS

#: Whose rewards: column prefix -> what it adds to a measure's name.
MEASURE_SUFFIXES = {"r": "", "judge": "_judge", "gold": "_gold"}
#: Prefix of a direction's regret, before its weights.
REGRET = "regret_"

#: Method -> measure -> its bootstrap replicates, or its values by cluster.
Measures = dict[str, dict[str, np.ndarray]]
#: Method -> what it took -> how much.
Costs = dict[str, dict[str, float]]


class SeedMeasures(NamedTuple):
    """All numbers of one run."""

    seed: int
    prompts: int
    clusters: list[str]
    measures: Measures
    by_cluster: Measures
    """What `measures` are on each cluster alone."""
    costs: Costs


def measure_seeds(
    tables: Sequence[pd.DataFrame],
    runs: Sequence[Path],
    stages: dict[str, list[str]],
    objectives: Sequence[str],
    reference: Sequence[float],
    unseen: Sequence[pd.DataFrame] = (),
    outside: Sequence[pd.DataFrame] = (),
) -> list[SeedMeasures]:
    """The numbers of each run, from its prompt_rewards.parquet (bootstrap) and its folder.

    What methods do with `unseen` prompts, where every run has some, are measures of their own,
    `unseen_*`; so is what they do under directions outside of the trained ones, `outside_*`, where
    the tables `outside` have them beside the others. `stages` are the folders of a run that make up
    each method. Raises InputError when a method of a table is unknown or has no entry there, or
    when there is no DPA to compare with.
    """
    for table, run in zip(tables, runs, strict=True):
        _check_table(table, run, stages)
    harder = draw_prompts(unseen) if unseen and all(map(len, unseen)) else [None] * len(tables)
    seeds = [
        _measure_seed(rewards, run, stages, objectives, reference, unseen_rewards)
        for rewards, run, unseen_rewards in zip(draw_prompts(tables), runs, harder, strict=True)
    ]
    if outside and all(are_outside(table).any() for table in outside):
        for seed, rewards in zip(seeds, draw_prompts(outside), strict=True):
            for method, beyond in _measure_outside(rewards, objectives).items():
                seed.measures[method].update(beyond)
    return seeds


def _check_table(table: pd.DataFrame, run: Path, stages: dict[str, list[str]]) -> None:
    seeds = table["seed"].unique().tolist()
    if len(seeds) != 1:
        raise InputError(f"prompt rewards of {run}: seeds {seeds}; give one table for each seed")
    found = set(table["method"])
    if unknown := sorted((found | set(stages)) - set(METHODS)):
        raise InputError(f"unknown methods {unknown}; known: {', '.join(METHODS)}")
    if missing := sorted(found - set(stages)):
        raise InputError(f"--stages: no entry for {missing}; give [] for a published model")


def _measure_seed(
    rewards: DrawnPrompts,
    run: Path,
    stages: dict[str, list[str]],
    objectives: Sequence[str],
    reference: Sequence[float],
    unseen: DrawnPrompts | None,
) -> SeedMeasures:
    table, prompts, clusters, _ = rewards
    found = set(table["method"])
    methods = [method for method in METHODS if method in found]
    directions = _evaluation_directions(table, objectives, prompts)
    measures = _measure(rewards, methods, objectives, reference, directions)
    names = sorted(set(clusters))
    alone = rewards._replace(weights=np.equal.outer(names, clusters).astype(float))
    if unseen is not None:
        for method, found_there in _measure(
            unseen, methods, objectives, reference, directions
        ).items():
            measures[method] |= {
                f"unseen_{name}": found_there[name]
                for name in ("mean_vr", "mean_vr_gold")
                if name in found_there
            }
    return SeedMeasures(
        int(table["seed"].iloc[0]),
        len(prompts),
        names,
        measures,
        _measure(alone, methods, objectives, reference, directions),
        {m: _cost(run, m, stages[m], *directions.shape[::-1]) for m in methods},
    )


def _evaluation_directions(
    table: pd.DataFrame, objectives: Sequence[str], prompts: Sequence[str]
) -> np.ndarray:
    """(directions, k) those of DPA's last iteration."""
    if not (table["method"] == "dpa").any():
        raise InputError("prompt rewards: no dpa, with which all are compared; evaluate it")
    last = _last_iteration(table, "dpa")
    directions = policy_points(table, "dpa", last, objectives, "r", prompts).directions
    if directions is None:
        raise InputError(f"prompt rewards: dpa's iteration {last} takes no directions; train more")
    return directions


def _last_iteration(table: pd.DataFrame, method: str) -> int | None:
    """None for methods without iterations."""
    last = table.loc[table["method"] == method, "iteration"].max()
    return None if pd.isna(last) else int(last)


def _measure(
    rewards: DrawnPrompts,
    methods: Sequence[str],
    objectives: Sequence[str],
    reference: Sequence[float],
    directions: np.ndarray,
) -> Measures:
    """Replicates of all measures; the same prompts are drawn for every method and scorer."""
    table, prompts, _, weights = rewards
    measures: Measures = {method: {} for method in methods}
    for by, suffix in MEASURE_SUFFIXES.items():
        if f"{by}_{objectives[0]}" not in table:
            continue
        points = {
            m: policy_points(table, m, _last_iteration(table, m), objectives, by, prompts)
            for m in methods
        }
        fronts = {m: replicate(weights, points[m].rewards) for m in methods}
        best = best_known(fronts.values(), directions)
        for method, (_, asked, conditions) in points.items():
            steered = asked is not None
            if asked is not None and not _same(asked, directions):
                raise InputError(f"{method}: not evaluated in dpa's directions; evaluate it again")
            front, values = fronts[method], measures[method]
            # A single point spans no front: it has its regrets.
            values[f"hypervolume{suffix}"] = (
                hypervolumes(front, reference)
                if steered or conditions is not None
                else np.full(len(front), NAN)
            )
            regrets = best - scalar_rewards(front, directions, steered)
            values[f"worst_regret{suffix}"] = regrets.max(axis=1)
            for direction, regret in zip(directions, regrets.T, strict=True):
                values[f"{REGRET}{'_'.join(f'{v:g}' for v in direction)}{suffix}"] = regret
            values[f"mean_vr{suffix}"] = mean_scalar_rewards(front, directions, steered)
            values[f"control{suffix}"] = controls(front, asked if steered else conditions)
            values[f"infeasible_share{suffix}"] = infeasible_shares(front, points[method])
            values[f"dominated_by_dpa{suffix}"] = (
                np.full(len(front), NAN)
                if method == "dpa"
                else dominances(fronts["dpa"], front, reference)
            )
        if f"{by}2_{objectives[0]}_{objectives[0]}" not in table:
            continue  # of a run before there were any
        if standard := standard_of(rewards, objectives, by):
            for method, front in fronts.items():
                values, policy = measures[method], (method, _last_iteration(table, method))
                values[f"mean_inner_product{suffix}"] = mean_scalar_rewards(
                    (front - standard.mean) / standard.sd,
                    directions,
                    points[method].directions is not None,
                )
                values[f"dispersion{suffix}"] = dispersions(
                    rewards, policy, objectives, by, standard
                )
                for name, mean, sd in zip(objectives, *standard, strict=True):
                    values[f"standard_mean_{name}{suffix}"] = np.full(len(front), mean)
                    values[f"standard_sd_{name}{suffix}"] = np.full(len(front), sd)
    if "degenerate" in table:
        for method in methods:
            policy = (method, _last_iteration(table, method))
            measures[method] |= collapses(rewards, policy) | movements(rewards, policy)
    return measures


def _measure_outside(rewards: DrawnPrompts, objectives: Sequence[str]) -> Measures:
    """Replicates of mean v.r and worst regret under the directions outside of the trained ones.

    A method that was not asked for them counts with its most favourable point.
    """
    table, prompts, _, weights = rewards
    within, beyond = table[~are_outside(table)], table[are_outside(table)]
    directions = _evaluation_directions(beyond, objectives, prompts)
    measures: Measures = {method: {} for method in table["method"].unique()}
    for by, suffix in MEASURE_SUFFIXES.items():
        if f"{by}_{objectives[0]}" not in table:
            continue
        inside, asked = (
            {
                m: replicate(
                    weights,
                    policy_points(
                        part, m, _last_iteration(table, m), objectives, by, prompts
                    ).rewards,
                )
                for m in part["method"].unique()
            }
            for part in (within, beyond)
        )
        best = best_known([*inside.values(), *asked.values()], directions)
        for method, values in measures.items():
            found = scalar_rewards(asked.get(method, inside[method]), directions, method in asked)
            values[f"outside_mean_vr{suffix}"] = found.mean(axis=1)
            values[f"outside_worst_regret{suffix}"] = (best - found).max(axis=1)
    return measures


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b)


def _cost(
    run: Path, method: str, stages: Sequence[str], objectives: int, directions: int
) -> dict[str, float]:
    models = stored_models(method, objectives, directions)
    stored = {"models": models, "bytes": models * policy_bytes(run, stages)}
    costs = stored | method_budget(run, stages)._asdict() | method_cost(run, stages)._asdict()
    if METHODS[method].chooses_from is not None:
        costs["samples_per_answer"] = samples_per_answer(run, method)
    return costs
