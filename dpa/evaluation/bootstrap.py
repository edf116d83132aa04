"""How sure numbers about fronts are: a hierarchical bootstrap over seeds and clusters. No torch.

Seeds and clusters of prompts are drawn with replacement, the same ones for every method, so that a
difference of two methods is judged on equal terms. A cluster is drawn with all its prompts, and
for all seeds alike: they share what is easy and hard. Of n seeds or clusters n - 1 are drawn, for
which the variance of the replicates' mean is s^2 / n; n would make it too small by (n - 1) / n
(McCarthy and Snowden, The bootstrap and finite population sampling, 1985).

Every statistic maps the replicates of one or two fronts, (replicates, points, k), to one number per
replicate; replicate 0 is the sample itself:

    volumes = []
    for table, prompts, clusters, weights in draw_prompts(tables):  # one table for each seed
        points = policy_points(table, "dpa", 3, objectives, "r", prompts)
        volumes.append(hypervolumes(replicate(weights, points.rewards), reference))
    interval(over_seeds(np.array(volumes)))
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.artefacts.frames import read_parquet_table
from dpa.errors import InputError
from dpa.evaluation.metrics import hypervolume
from dpa.evaluation.validation import are_outside
from dpa.registry import METHODS
from dpa.seeds import derive_seed

#: Bootstrap replicates of an interval.
REPLICATES = 1000
#: Percent of the replicates that lie in an interval.
LEVEL = 95.0
#: Points of 0-100 by which a reward may miss the condition that asked for it.
REQUEST_TOLERANCE = 10.0

#: What the numbers of a single seed do not say.
ONE_SEED = (
    "There is one seed: what varies between seeds, the models' training and sampling, is in no "
    "interval. Run several (`seed: [0, 1, 2]`)."
)

NAN = float("nan")


class Interval(NamedTuple):
    """A number with the ends of its interval; NaN where it is undefined."""

    value: float
    low: float = NAN
    high: float = NAN


class PolicyPoints(NamedTuple):
    """A policy's mean rewards for each prompt, (prompts, points, k), and what it was asked for.

    `directions` or `conditions`, (points, k), are None where the policy was not asked for any; both
    are None where it cannot be steered.
    """

    rewards: np.ndarray
    directions: np.ndarray | None
    conditions: np.ndarray | None


# --- From the table to arrays ----------------------------------------------------------------


def read_prompt_rewards(
    path: Path, objectives: Sequence[str], unseen: bool = False, outside: bool = False
) -> pd.DataFrame:
    """prompt_rewards.parquet: one seed's mean rewards by method, iteration, direction and prompt.

    Without the unseen prompts, or (`unseen`) those alone; without the directions outside of the
    trained ones, or (`outside`) with them. Raises InputError when it is missing, has
    no such objectives, has a method that is not ours, or a row twice.
    """
    rewards = [f"{prefix}_{name}" for prefix in "vcr" for name in objectives]
    key = ["method", "iteration", "direction_index", "prompt_id"]
    remedy = "rerun collect_validation_rewards"
    table = read_parquet_table(path, remedy, {*key, "seed", "cluster", "unseen", *rewards})
    try:
        table = table.astype({"iteration": "Int64"})
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: iteration: {error}; {remedy}") from None
    if unknown := sorted(set(table["method"]) - set(METHODS), key=str):
        raise InputError(
            f"{path}: {unknown} are no methods of ours; {remedy}, and have others' numbers drawn "
            "by figures.extra"
        )
    if len(twice := table[table.duplicated(key)]):
        row = twice.iloc[0][key].tolist()
        raise InputError(f"{path}: two rows for {row}; rerun collect_validation_rewards")
    table = table[table["unseen"].astype(bool) == unseen]
    return table if outside else table[~are_outside(table)]


def common_prompts(table: pd.DataFrame) -> list[str]:
    """The prompts that every policy has answered at every point, sorted.

    A policy may lack one that its system prompt makes too long. Raises InputError when none is
    left.
    """
    points = len(table[["method", "iteration", "direction_index"]].drop_duplicates())
    answered = table.groupby("prompt_id").size()
    prompts = sorted(answered.index[answered == points])
    if not prompts:
        raise InputError("no prompt was answered by every method; evaluate all on the same prompts")
    return prompts


def policy_points(
    table: pd.DataFrame,
    method: str,
    iteration: int | None,
    objectives: Sequence[str],
    by: str,
    prompts: Sequence[str],
) -> PolicyPoints:
    """A policy's rewards `by` the reward model (`r`), the judge (`judge`) or gold (`gold`).

    Prompts are in the given order and points in that of direction_index, whatever the order of the
    rows. Raises InputError when the table lacks the policy or one of its rewards.
    """

    def values(prefix: str) -> np.ndarray:
        columns = [f"{prefix}_{name}" for name in objectives]
        return policy_columns(table, method, iteration, columns, prompts)

    rewards = values(by)
    if not rewards.shape[1] or np.isnan(rewards).any():
        name = method if iteration is None else f"{method}, iteration {iteration}"
        raise InputError(f"{name}: rewards are missing; rerun collect_validation_rewards")
    # What is asked for is the same for all prompts.
    asked = {prefix: values(prefix)[0] for prefix in "vc"}
    directions, conditions = (None if np.isnan(a).any() else a for a in asked.values())
    return PolicyPoints(rewards, directions, conditions)


def policy_columns(
    table: pd.DataFrame,
    method: str,
    iteration: int | None,
    columns: Sequence[str],
    prompts: Sequence[str],
) -> np.ndarray:
    """(prompts, points, columns) of a policy, in the order of policy_points."""
    rows = table[table["method"] == method]
    rows = rows[rows["iteration"].isna() if iteration is None else rows["iteration"] == iteration]
    indices = sorted(rows["direction_index"].unique())
    grid = pd.MultiIndex.from_product([prompts, indices])
    rows = rows.set_index(["prompt_id", "direction_index"]).reindex(grid)
    values = rows[list(columns)].to_numpy(dtype=float, na_value=NAN)
    return values.reshape(len(prompts), len(indices), len(columns))


# --- Bootstrap -------------------------------------------------------------------------------


class ClusterDraws(NamedTuple):
    """How often each cluster is drawn; row 0 takes every cluster once."""

    names: list[str]
    counts: np.ndarray
    """(1 + replicates, clusters)"""

    def of_prompts(self, clusters: Sequence[str]) -> np.ndarray:
        """(1 + replicates, prompts) weights of a seed's prompts, which are of these clusters."""
        weights = self.counts[:, np.searchsorted(self.names, clusters)]
        # Only seeds that have few clusters in common can be left without any: they count whole.
        weights[weights.sum(axis=1) == 0] = 1
        return weights


def draw_clusters(seeds: Sequence[Sequence[str]], replicates: int = REPLICATES) -> ClusterDraws:
    """Draw from the clusters that the prompts of each seed are of."""
    names = sorted(set().union(*seeds))
    return ClusterDraws(names, _draw("clusters", len(names), replicates))


class DrawnPrompts(NamedTuple):
    """One seed's rewards, the prompts that every policy answered, and how often each is drawn."""

    table: pd.DataFrame
    prompts: list[str]
    clusters: list[str]
    """The cluster of each prompt."""
    weights: np.ndarray
    """(1 + replicates, prompts)"""


def draw_prompts(tables: Sequence[pd.DataFrame]) -> list[DrawnPrompts]:
    """Draw clusters of prompts, the same for all seeds, of which each has its table."""
    if not tables:
        return []
    prompts = [common_prompts(table) for table in tables]
    clusters = [
        table.drop_duplicates("prompt_id").set_index("prompt_id")["cluster"].loc[ids].tolist()
        for table, ids in zip(tables, prompts, strict=True)
    ]
    draws = draw_clusters(clusters)
    weights = [draws.of_prompts(of) for of in clusters]
    return [DrawnPrompts(*found) for found in zip(tables, prompts, clusters, weights, strict=True)]


def over_seeds(values: np.ndarray) -> np.ndarray:
    """(replicates,) means over drawn seeds, from (seeds, replicates); of one seed its own."""
    counts = _draw("seeds", len(values), values.shape[1] - 1)
    return (counts.T * values).sum(axis=0) / counts.sum(axis=1)


def _draw(what: str, n: int, replicates: int) -> np.ndarray:
    """(1 + replicates, n) how often each of n is drawn: the same for equal n."""
    generator = np.random.default_rng(derive_seed("bootstrap", what))
    drawn = generator.multinomial(max(n - 1, 1), np.ones(n) / n, size=replicates)
    return np.vstack([np.ones((1, n)), drawn])


def replicate(weights: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """(replicates, points, k) mean rewards, from (replicates, prompts) and (prompts, points, k)."""
    prompts, points, k = rewards.shape
    means = weights @ rewards.reshape(prompts, points * k) / weights.sum(axis=1, keepdims=True)
    # Equal means must be equal in the last digit too, or ties in ranks and dominance break.
    return means.round(9).reshape(-1, points, k)


def improvements(ours: np.ndarray, theirs: np.ndarray, draws: ClusterDraws) -> np.ndarray:
    """(replicates,) probability of improvement (Agarwal et al., 2108.13264).

    How probable it is that a run of ours is better than one of theirs on a cluster, all drawn at
    random: over all pairs of seeds and all clusters the share on which ours is higher; of equal
    ones the half. `ours` and `theirs` are (seeds, clusters), NaN for clusters a seed lacks.
    """
    better = (1 + np.sign(ours[:, None] - theirs[None])) / 2
    seeds = _draw("seeds", len(ours), len(draws.counts) - 1)

    def weigh(pairs: np.ndarray) -> np.ndarray:
        return np.einsum("ri,rj,rc,ijc->r", seeds, seeds, draws.counts, pairs, optimize=True)

    known = weigh((~np.isnan(better)).astype(float))
    won = weigh(np.nan_to_num(better))
    return np.divide(won, known, out=np.full(len(won), won[0] / known[0]), where=known > 0)


def interval(replicates: np.ndarray) -> Interval:
    """The sample's value (replicate 0) with the percentile interval of the replicates.

    The interval reaches to the value, which of few clusters may be the largest: a hypervolume is
    concave.
    """
    value = float(replicates[0])
    low, high = np.percentile(replicates[1:], [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error, which is NaN for a single seed."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else NAN
    return float(np.mean(values)), float(error)


# --- Statistics ------------------------------------------------------------------------------


def hypervolumes(fronts: np.ndarray, reference: Sequence[float]) -> np.ndarray:
    """(replicates,) percent of the box that the front dominates (metrics.hypervolume)."""
    corner = np.asarray(reference, dtype=float)
    return np.array([hypervolume(points, corner) for points in fronts])


def scalar_rewards(fronts: np.ndarray, directions: np.ndarray, steered: bool) -> np.ndarray:
    """(replicates, m) v.r under each of the `directions` (m, k).

    A policy that is `steered` by directions (m points) counts with its own point for each, any
    other with its most favourable one.
    """
    if steered:
        return (fronts * directions).sum(axis=2)
    return (fronts @ directions.T).max(axis=1)


def mean_scalar_rewards(fronts: np.ndarray, directions: np.ndarray, steered: bool) -> np.ndarray:
    """(replicates,) mean of scalar_rewards over directions, as validation.mean_scalar_reward."""
    return scalar_rewards(fronts, directions, steered).mean(axis=1)


def best_known(fronts: Iterable[np.ndarray], directions: np.ndarray) -> np.ndarray:
    """(replicates, m) the highest v.r that any front has a point for, under each direction.

    What a policy falls short of it is its regret.
    """
    favourable = [scalar_rewards(points, directions, steered=False) for points in fronts]
    return np.maximum.reduce(favourable)


def dominances(winners: np.ndarray, losers: np.ndarray, reference: Sequence[float]) -> np.ndarray:
    """(replicates,) share of the losers' points that some point of the winners weakly dominates.

    Weakly: at least as good in every objective. As for hypervolume, an objective is maximised where
    its reference is below 50 and minimised elsewhere.
    """
    sign = np.where(np.asarray(reference) < 50, 1.0, -1.0)
    as_good = sign * winners[:, :, None] >= sign * losers[:, None]
    return as_good.all(axis=3).any(axis=1).mean(axis=1)


def controls(fronts: np.ndarray, requested: np.ndarray | None) -> np.ndarray:
    """(replicates,) Spearman's correlation of requested and obtained trade-off over the points.

    `requested` (points, k) are weights or conditions. The mean over the objectives whose request
    varies; an objective that is obtained the same everywhere is not controlled: 0. NaN for a policy
    that cannot be steered (None), and where no request varies.
    """
    if requested is None or not np.ptp(requested, axis=0).any():
        return np.full(len(fronts), NAN)
    varied = np.flatnonzero(np.ptp(requested, axis=0))
    return np.mean([_spearmans(fronts[:, :, i], requested[:, i]) for i in varied], axis=0)


def _spearmans(obtained: np.ndarray, requested: np.ndarray) -> np.ndarray:
    """(replicates,) rank correlations of each row with `requested`; 0 for a constant row."""
    x = _ranks(requested[None])[0] - (len(requested) + 1) / 2
    y = _ranks(obtained) - (len(requested) + 1) / 2
    norm = np.sqrt((x**2).sum() * (y**2).sum(axis=1))
    return np.divide(y @ x, norm, out=np.zeros(len(y)), where=norm > 0)


def _ranks(rows: np.ndarray) -> np.ndarray:
    """Ranks within each row from 1; equal values share the mean of theirs. As scipy's rankdata."""
    return pd.DataFrame(rows.T).rank().to_numpy().T


def infeasible_shares(fronts: np.ndarray, points: PolicyPoints) -> np.ndarray:
    """(replicates,) share of the requests that the policy missed by more than TOLERANCE.

    A condition names the rewards it wants and is missed when any of them is. NaN for policies of
    which no rewards can be requested: a direction names none, and each has its best response.
    """
    if points.conditions is not None:
        missed = np.abs(fronts - points.conditions) > REQUEST_TOLERANCE
        return missed.any(axis=2).mean(axis=1)
    return np.full(len(fronts), NAN)
