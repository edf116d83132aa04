"""Table 1 in numbers: the properties that the paper ticks off, measured, and DPA method by method.

Each seed is a run of its own. A number is the mean over seeds, with an interval of the hierarchical
bootstrap over seeds and clusters of prompts (dpa.evaluation.bootstrap).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.errors import InputError
from dpa.evaluation.bootstrap import (
    LEVEL,
    NAN,
    ONE_SEED,
    REQUEST_TOLERANCE,
    DrawnPrompts,
    Interval,
    best_known,
    controls,
    dominances,
    draw_clusters,
    draw_prompts,
    hypervolumes,
    improvements,
    infeasible_shares,
    interval,
    mean_and_error,
    mean_scalar_rewards,
    over_seeds,
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
from dpa.evaluation.validation import SCORER_NAMES, are_outside
from dpa.registry import METHODS, Method
from dpa.report.tables import Table

#: Whose rewards: column prefix -> what it adds to a measure's name.
MEASURE_SUFFIXES = {"r": "", "judge": "_judge", "gold": "_gold"}
#: Headings of the two tables.
TABLE1_HEADING, COMPARISON_HEADING = "Table 1", "DPA's last iteration against the other methods"
#: What DPA and the baselines are compared by.
COMPARED = {
    "hypervolume": "hypervolume",
    "mean_vr": "mean v·r",
    "mean_inner_product": "standardised mean v·r",
    "worst_regret": "worst direction's regret",
}
#: Of these less is better.
LESS_IS_BETTER = ("worst_regret",)
#: Prefix of a direction's regret, before its weights.
REGRET = "regret_"
#: Prefix of what an output moves by when the dial turns, before its name.
TURN = "turn_"
#: Title of a part of the table.
STEERABILITY = "Steerability"

#: Columns of comparison.csv.
COMPARISON_COLUMNS = [
    "method", "measure", "by", "seed", "dpa", "baseline", "difference", "low", "high", "wins",
    "seeds", "mean_difference", "mean_difference_low", "mean_difference_high", "probability",
    "probability_low", "probability_high",
]  # fmt: skip

#: Prefix of the columns that hold what the paper says.
PUBLISHED = "published_"

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


# --- One seed --------------------------------------------------------------------------------


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


# --- All seeds -------------------------------------------------------------------------------


def table1(seeds: Sequence[SeedMeasures], objectives: int, published: pd.DataFrame) -> pd.DataFrame:
    """One row per method. A measure has columns `x`, `x_low`, `x_high`, `x_se`; a cost `x`, `x_se`.

    `x_se` is the standard error of the mean over seeds alone, for those who want it plain.

    `published` is results/published/table1_method_properties.csv; its columns come with the prefix
    `published_`. A method that some seeds lack is summed up over the others (column `seeds`).
    """
    rows = []
    properties = published.set_index("method")
    for method, entry in in_order_of(properties.index):
        having = [seed for seed in seeds if method in seed.measures]
        if not having:
            continue
        row = {
            "method": entry.label,
            "seeds": len(having),
            "objectives_conditioned": {"all": objectives, "one": 1, "none": 0}[entry.objectives],
        }
        for name in having[0].measures[method]:
            row |= _summary(name, np.array([seed.measures[method][name] for seed in having]))
        for name in having[0].costs[method]:
            value, error = mean_and_error([seed.costs[method][name] for seed in having])
            row |= {name: value, f"{name}_se": error}
        if entry.paper_name in properties.index:
            row |= properties.loc[entry.paper_name].add_prefix(PUBLISHED).to_dict()
        rows.append(row)
    return pd.DataFrame(rows)


def in_order_of(published: Iterable[str]) -> list[tuple[str, Method]]:
    """All methods: those of the paper's table in its order, then the others."""
    place = {name: number for number, name in enumerate(published)}
    return sorted(METHODS.items(), key=lambda item: place.get(str(item[1].paper_name), len(place)))


def _summary(name: str, replicates: np.ndarray) -> dict[str, float]:
    """Columns of a measure, from (seeds, replicates)."""
    _, error = mean_and_error(replicates[:, 0].tolist())
    return _columns(name, interval(over_seeds(replicates))) | {f"{name}_se": error}


def comparison(seeds: Sequence[SeedMeasures]) -> pd.DataFrame:
    """DPA's last iteration against each other method: a row per method, measure, scorer and seed.

    `difference` is DPA minus the method, with its interval over clusters; `wins` counts the seeds,
    of `seeds`, on which DPA is better. `mean_difference` and `probability` (of improvement) are
    over all seeds, with intervals of the bootstrap over seeds and clusters, in each of their rows.
    Hypervolume is compared where both can be steered.
    """
    rows = [
        {"method": entry.label, "measure": measure, "by": by, **gain}
        for method, entry in METHODS.items()
        if method != "dpa"
        for measure in COMPARED
        for by, suffix in MEASURE_SUFFIXES.items()
        for gain in _gains(seeds, method, f"{measure}{suffix}", measure in LESS_IS_BETTER)
    ]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _gains(
    seeds: Sequence[SeedMeasures], method: str, name: str, less_is_better: bool
) -> Iterator[dict[str, float]]:
    """What DPA has over a method, seed by seed; nothing where there is nothing to compare."""
    having = [seed for seed in seeds if _is_known(seed.measures.get(method, {}).get(name))]
    if not having:
        return
    sign = -1 if less_is_better else 1
    dpa, theirs = (np.array([seed.measures[m][name] for seed in having]) for m in ("dpa", method))
    gains = dpa - theirs
    draws = draw_clusters([seed.clusters for seed in having])
    ours_alone, theirs_alone = (_by_cluster(having, m, name, draws.names) for m in ("dpa", method))
    probability = interval(improvements(sign * ours_alone, sign * theirs_alone, draws))
    pooled = _columns("mean_difference", interval(over_seeds(gains)))
    pooled |= _columns("probability", probability)
    for seed, ours, baseline, gain in zip(having, dpa, theirs, gains, strict=True):
        yield {
            "seed": seed.seed,
            "dpa": float(ours[0]),
            "baseline": float(baseline[0]),
            **dict(zip(("difference", "low", "high"), interval(gain), strict=True)),
            "wins": int((sign * gains[:, 0] > 0).sum()),
            "seeds": len(having),
            **pooled,
        }


def _is_known(replicates: np.ndarray | None) -> bool:
    return replicates is not None and not np.isnan(replicates[0])


def _by_cluster(
    seeds: Sequence[SeedMeasures], method: str, name: str, clusters: Sequence[str]
) -> np.ndarray:
    """(seeds, clusters) a measure on each cluster, NaN where a seed lacks it."""
    found = [pd.Series(seed.by_cluster[method][name], seed.clusters) for seed in seeds]
    return np.array([values.reindex(clusters) for values in found])


def _columns(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


# --- For readers -----------------------------------------------------------------------------

#: Title of the part that says which rows had the same to learn from.
BUDGET = "Budget"
#: Title of a part of the table, what it says, and its columns: name, heading, format, unit.
SECTIONS: list[tuple[str, str, list[tuple[str, str, str, float]]]] = [
    (
        "Properties",
        "Control is Spearman's correlation of the requested and the obtained trade-off, the mean "
        "over objectives (0: no control; a dash: nothing can be requested). A request is "
        f"infeasible if a reward misses it by more than {REQUEST_TOLERANCE:g} points; a direction "
        "requests no rewards, so there is nothing to miss. Models are those stored to serve every "
        "evaluated direction. The last columns are the paper's.",
        [
            ("objectives_conditioned", "objectives conditioned on", ".0f", 1),
            ("control", "control", ".3f", 1),
            ("control_judge", "control (judge)", ".3f", 1),
            ("control_gold", "control (gold)", ".3f", 1),
            ("models", "models stored", ".0f", 1),
            ("bytes", "MB stored", ",.1f", 1e6),
            ("infeasible_share", "infeasible share", ".3f", 1),
            ("infeasible_share_judge", "infeasible share (judge)", ".3f", 1),
            ("infeasible_share_gold", "infeasible share (gold)", ".3f", 1),
        ],
    ),
    (
        "Rewards",
        "Hypervolume is in percent of the box from the reference corner to the ideal, of methods "
        "that can be steered. Mean v·r takes a steered method at its own point for each direction, "
        "any other at its most favourable one. The worst regret is that of the direction in which "
        "it is largest. Dominated is the share of a method's points to which some point of DPA is "
        "at least equal in every objective.",
        [
            ("hypervolume", "hypervolume", ".2f", 1),
            ("hypervolume_judge", "hypervolume (judge)", ".2f", 1),
            ("hypervolume_gold", "hypervolume (gold)", ".2f", 1),
            ("mean_vr", "mean v·r", ".2f", 1),
            ("mean_vr_judge", "mean v·r (judge)", ".2f", 1),
            ("mean_vr_gold", "mean v·r (gold)", ".2f", 1),
            ("worst_regret", "worst regret", ".2f", 1),
            ("worst_regret_judge", "worst regret (judge)", ".2f", 1),
            ("worst_regret_gold", "worst regret (gold)", ".2f", 1),
            ("dominated_by_dpa", "dominated by DPA", ".3f", 1),
            ("dominated_by_dpa_judge", "dominated by DPA (judge)", ".3f", 1),
            ("dominated_by_dpa_gold", "dominated by DPA (gold)", ".3f", 1),
        ],
    ),
    (
        "Outside of the trained directions",
        "Under the directions of evaluation.outside_degrees, which no other number counts: methods "
        "that take directions at the point they gave, others at their most favourable one.",
        [
            ("outside_mean_vr", "mean v·r", ".2f", 1),
            ("outside_mean_vr_judge", "mean v·r (judge)", ".2f", 1),
            ("outside_mean_vr_gold", "mean v·r (gold)", ".2f", 1),
            ("outside_worst_regret", "worst regret", ".2f", 1),
            ("outside_worst_regret_judge", "worst regret (judge)", ".2f", 1),
            ("outside_worst_regret_gold", "worst regret (gold)", ".2f", 1),
        ],
    ),
    (
        "Unseen prompts",
        "Mean v·r on the prompts of data.unseen_prompts, which no other number counts.",
        [
            ("unseen_mean_vr", "mean v·r", ".2f", 1),
            ("unseen_mean_vr_judge", "mean v·r (judge)", ".2f", 1),
            ("unseen_mean_vr_gold", "mean v·r (gold)", ".2f", 1),
        ],
    ),
    (
        STEERABILITY,
        "Standardised mean v·r (mean inner product) and dispersion, the mean determinant of the "
        "rewards' covariance under one direction, are of rewards standardised by the SFT policy's "
        "validation mean and standard deviation. Degenerate responses are very short or "
        "repetitive; equal ones are pairs under two directions. Miscalibration is how unequally "
        "far directions move the reward model's outputs along what they ask; side effects are the "
        "share of the movement across it.",
        [
            ("mean_inner_product", "standardised v·r", ".3f", 1),
            ("mean_inner_product_judge", "standardised v·r (judge)", ".3f", 1),
            ("mean_inner_product_gold", "standardised v·r (gold)", ".3f", 1),
            ("dispersion", "dispersion", ".3f", 1),
            ("dispersion_judge", "dispersion (judge)", ".3f", 1),
            ("dispersion_gold", "dispersion (gold)", ".3f", 1),
            ("degenerate_share", "degenerate", ".3f", 1),
            ("equal_share", "equal across directions", ".3f", 1),
            ("miscalibration", "miscalibration", ".3f", 1),
            ("side_effects", "side effects", ".3f", 1),
        ],
    ),
    (
        BUDGET,
        "What methods learn from. Iterations are rounds of sampling and training, of one expert "
        "where there are several; labels are responses with rewards or ratings: samples that were "
        "scored (equal ones once) or rated as feedback, original responses that SteerLM learns, "
        "and both answers of DPO's pairs. The last column is how far a budget is from DPA's.",
        [
            ("iterations", "iterations", ",.0f", 1),
            ("responses_sampled", "responses sampled", ",.0f", 1),
            ("labels", "labels", ",.0f", 1),
        ],
    ),
    (
        "Cost",
        "Of making the method as it was evaluated, for PPO and RSF one trade-off only. Tokens "
        "trained are response tokens of the training rows, counted once for all epochs; seconds "
        "are the wall time of its jobs one after the other. Best of n costs what its policy did, "
        "and with every answer the responses that it is the best of (blank: one).",
        [
            ("tokens_sampled", "tokens sampled", ",.0f", 1),
            ("responses_scored", "responses scored", ",.0f", 1),
            ("tokens_trained", "tokens trained", ",.0f", 1),
            ("seconds", "seconds", ",.0f", 1),
            ("samples_per_answer", "responses per answer", ",.0f", 1),
        ],
    ),
]

#: Of which measures the best is bold, and which that is.
BEST = {
    "control": max, "hypervolume": max, "mean_vr": max, "worst_regret": min, "unseen_mean_vr": max,
}  # fmt: skip


def table1_tables(table: pd.DataFrame) -> list[Table]:
    """Table 1 in parts with what their columns mean."""
    found = []
    for title, meaning, columns in SECTIONS:
        present = [column for column in columns if column[0] in table]
        if not present:
            continue
        published = [c for c in table if c.startswith(PUBLISHED)] if title == "Properties" else []
        header = ["method", *(heading for _, heading, _, _ in present)]
        against = _against_dpa(table) if title == BUDGET else None
        header += ["against DPA"] if against else []
        header += ["paper: " + c.removeprefix(PUBLISHED).replace("_", " ") for c in published]
        rows = [
            [
                row["method"],
                *(_cell(row, name, form, unit) for name, _, form, unit in present),
                *([against[row["method"]]] if against else []),
                *("–" if pd.isna(row[name]) else row[name] for name in published),
            ]
            for row in table.to_dict("records")
        ]
        best = {
            place: BEST[measure]
            for place, (name, *_) in enumerate(present, start=1)
            if (measure := name.removesuffix("_judge").removesuffix("_gold")) in BEST
        }
        found.append(Table(title, meaning, header, rows, best=best))
        if title == "Rewards":
            found += _regret_tables(table)
        if title == STEERABILITY:
            found[-1] = found[-1]._replace(note=f"{meaning}{_standards(table)}")
            found += _turn_table(table)
    return found


def _standards(table: pd.DataFrame) -> str:
    """By what rewards are standardised, as a sentence."""
    prefix = "standard_mean_"
    first = table.iloc[0]
    parts = [
        f"{name.removeprefix(prefix).replace('_', ' ')} {first[name]:.2f} and "
        f"{first[name.replace('_mean_', '_sd_', 1)]:.2f}"
        for name in table
        if name.startswith(prefix) and not name.endswith(("_low", "_high", "_se"))
    ]
    return f" Means and deviations are {', '.join(parts)}." if parts else ""


def _turn_table(table: pd.DataFrame) -> Iterator[Table]:
    """How every output of the reward model moves when the dial turns."""
    names = [c for c in table if c.startswith(TURN) and not c.endswith(("_low", "_high", "_se"))]
    steered = table[table[names].notna().any(axis=1)].to_dict("records") if names else []
    if steered:
        yield Table(
            "Outputs when the dial turns",
            "What each output of the reward model gains from the first evaluated direction to the "
            "last, in points.",
            ["output", *(row["method"] for row in steered)],
            [
                [name.removeprefix(TURN), *(_cell(row, name, "+.2f", 1) for row in steered)]
                for name in names
            ],
        )


def _against_dpa(table: pd.DataFrame) -> dict[str, str]:
    """For each method by how much its budget differs from DPA's."""
    budgets = table.set_index("method")[["iterations", "responses_sampled", "labels"]]
    dpa = budgets.loc[METHODS["dpa"].label]
    found = {}
    for method, own in budgets.iterrows():
        parts = []
        if (more := own["iterations"] - dpa["iterations"]) and not np.isnan(more):
            parts.append(f"{more:+g} iterations")
        for column, noun in (("responses_sampled", "responses"), ("labels", "labels")):
            share = own[column] / dpa[column] - 1 if dpa[column] else NAN
            if not np.isnan(share) and round(100 * share):
                parts.append(f"{100 * share:+.0f} % {noun}")
        known = "equal" if own.notna().all() else "–"
        found[str(method)] = ", ".join(parts).replace("-", "−") or known
    return found


def _regret_tables(table: pd.DataFrame) -> Iterator[Table]:
    """The regret of every method, direction by direction and by each scorer."""
    names = SCORER_NAMES | {"gold": "gold"}
    for by, suffix in MEASURE_SUFFIXES.items():
        ends = (
            "_low",
            "_high",
            "_se",
            *(s for s in MEASURE_SUFFIXES.values() if s != suffix and s),
        )
        regrets = [
            name
            for name in table
            if name.startswith(REGRET) and name.endswith(suffix) and not name.endswith(ends)
        ]
        rows = []
        for name in regrets:
            weights = name.removeprefix(REGRET).removesuffix(suffix).split("_")
            cells = (f"{regret:.2f}" for regret in table[name])
            rows.append([f"({', '.join(f'{float(v):.2f}' for v in weights)})", *cells])
        if rows:
            yield Table(
                f"Regret by direction, {names[by]}",
                "What a method's v·r falls short of the highest in this direction of all methods "
                "in the table, each at its most favourable point. How sure it is says table1.csv.",
                ["direction", *table["method"]],
                rows,
            )


def comparison_tables(table: pd.DataFrame) -> list[Table]:
    """The comparison as one table: by how much DPA wins, how probably, and on how many seeds."""
    names = SCORER_NAMES | {"gold": "gold"}
    rows = []
    for (method, measure, by), group in table.groupby(["method", "measure", "by"], sort=False):
        first = group.iloc[0].to_dict()
        rows.append(
            [
                method,
                COMPARED[measure],
                names[by],
                _cell(first, "mean_difference", "+.2f", 1),
                _cell(first, "probability", ".2f", 1),
                f"{first['wins']} of {first['seeds']}",
                ", ".join(f"{difference:+.2f}" for difference in group["difference"]),
            ]
        )
    header = ["against", "measure", "by", "DPA minus method", "probability of improvement"]
    return [Table("", "", [*header, "seeds won", "seed by seed"], rows)]


def table1_lead(seeds: Sequence[SeedMeasures]) -> str:
    """How the numbers of table 1 are to be read."""
    return f"{'Means over seeds' if len(seeds) > 1 else 'Seed'} {_drawn_text(seeds)}"


def comparison_lead(seeds: Sequence[SeedMeasures]) -> str:
    """How the numbers of the comparison are to be read."""
    return (
        f"{'Seeds in order:' if len(seeds) > 1 else 'Seed'} {_drawn_text(seeds)} The probability "
        "of improvement is that of a run of DPA to be better than one of the method on a cluster, "
        "all drawn at random (Agarwal et al., arXiv 2108.13264); 0.5 is no difference."
    )


def _drawn_text(seeds: Sequence[SeedMeasures]) -> str:
    numbers = ", ".join(str(seed.seed) for seed in seeds)
    prompts = f"{seeds[0].prompts} prompts in {len(seeds[0].clusters)} clusters"
    paired = f"in brackets, {LEVEL:g} % intervals of a bootstrap, paired across methods, over"
    if len(seeds) > 1:
        return f"{numbers}; {prompts}; {paired} seeds and clusters."
    return f"{numbers}; {prompts}; {paired} clusters. {ONE_SEED}"


def _cell(row: dict, name: str, form: str, unit: float) -> str:
    """`value`, `value [low, high]` or `value ± se`; a dash where there is none."""
    value, low, high, error = (
        row.get(name + end, NAN) / unit for end in ("", "_low", "_high", "_se")
    )
    if np.isnan(value):
        return "–"
    if not np.isnan(low):
        return f"{value:{form}} [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}" if np.isnan(error) else f"{value:{form}} ± {error:{form}}"
