"""Which rewards to ask a policy for: SteerLM's conditions (paper, section 3.1 and 3.2), and what
Rewards-in-Context desires on behalf of a direction.

SteerLM is SFT on annotated responses with the rewards as whole numbers in the system prompt. What
it can be asked for must be read off the data: a condition far from it is infeasible.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from dpa.directions import Direction, sample_direction, scalar_reward
from dpa.errors import InputError
from dpa.runtime.reading import read_json
from dpa.seeds import derive_seed

#: Directions for which iteration 1's targets are worked out.
TARGETS = 64


class Conditions(msgspec.Struct, forbid_unknown_fields=True):
    """`targets`: mean rewards of the best responses by a direction; `curve`: what can be asked for
    with every whole verbosity that the data has."""

    targets: list[list[float]]
    curve: list[list[int]]


def read_conditions(path: Path) -> Conditions:
    """Conditions from their file. Raises InputError when it is missing or malformed."""
    try:
        found = msgspec.convert(read_json(path), Conditions)
    except (InputError, msgspec.ValidationError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: {why}; rerun compute_conditions") from None
    if not (found.targets and found.curve and all([*found.targets, *found.curve])):
        raise InputError(f"{path}: no conditions; rerun compute_conditions")
    if not all(math.isfinite(value) for target in found.targets for value in target):
        raise InputError(f"{path}: a condition is not finite; rerun compute_conditions")
    return found


class RewardRanges(msgspec.Struct, forbid_unknown_fields=True):
    """Of each objective the worst and the best reward of the original responses: where less is
    wanted, the highest and the lowest."""

    worst: list[float]
    best: list[float]

    def __post_init__(self) -> None:
        if not len(self.worst) == len(self.best) > 0:
            raise ValueError("worst and best must be of the same objectives")


def read_ranges(path: Path) -> RewardRanges:
    """Ranges from their file. Raises InputError when it is missing or malformed."""
    try:
        return msgspec.convert(read_json(path), RewardRanges)
    except (InputError, msgspec.ValidationError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: {why}; rerun prepare_ric") from None


def as_condition(values: Iterable[float]) -> list[int]:
    """Rewards as the whole numbers that a system prompt holds, clipped to 0..100."""
    return [int(min(100, max(0, round(value)))) for value in values]


def frontier_targets(
    rewards: np.ndarray, distribution: dict, seed: int, top_fraction: float
) -> np.ndarray:
    """(TARGETS, k) mean rewards of the top share of responses by v.r.

    The directions v are drawn from the distribution.

    `rewards` is (responses, k).
    """
    best = max(1, round(top_fraction * len(rewards)))
    directions = np.array(
        [sample_direction(distribution, seed, 0, "steerlm-target", i) for i in range(TARGETS)]
    )
    scores = directions @ rewards.T
    chosen = np.argpartition(-scores, best - 1, axis=1)[:, :best]
    return rewards[chosen].mean(axis=1)


def feasible_curve(rewards: np.ndarray, points: int) -> list[list[int]]:
    """Conditions: whole verbosity values, each with the highest helpfulness found with it.

    Verbosity runs from the 5th to the 95th percentile of the data; "found with it" means within
    half a step of the `points` that lie evenly between them (paper, section 3.2, which evaluates
    five). `rewards` is (responses, k) with helpfulness first and verbosity second; further
    objectives take their value in the response found.
    """
    low, high = np.percentile(rewards[:, 1], [5, 95])
    step = (high - low) / max(points - 1, 1)
    (first,), (last,) = as_condition([low]), as_condition([high])
    curve = []
    for verbosity in range(first, last + 1):
        distance = np.abs(rewards[:, 1] - verbosity)
        # In a gap of the data wider than a step, the nearest responses stand in.
        near = rewards[distance <= max(step / 2, 0.5, distance.min())]
        found = near[near[:, 0].argmax()].copy()
        found[1] = verbosity
        curve.append(as_condition(found))
    return curve


def curve_places(number: int, points: int) -> list[float]:
    """Places on the curve, 0 to 1, of `number` conditions: the paper's `points` and others between.

    The paper's lie evenly, and the others evenly in the gaps between two of them. Too few to take
    all of the paper's lie evenly themselves.

    >>> curve_places(4, 3)
    [0.0, 0.25, 0.5, 1.0]
    """
    gaps = points - 1
    if number < points:
        return np.linspace(0, 1, number).tolist()
    more, left = divmod(number - points, gaps)
    parts = [1 + more + (gap < left) for gap in range(gaps)]
    between = [(gap + i / part) / gaps for gap, part in enumerate(parts) for i in range(part)]
    return [*between, 1.0]


def papers_places(number: int, points: int) -> list[bool]:
    """Which of the `number` conditions that are evaluated are among the paper's `points`."""
    steps = np.array(curve_places(number, points)) * (points - 1)
    return np.isclose(steps, steps.round()).tolist()


def evaluated_conditions(conditions: Conditions, number: int, points: int) -> list[list[int]]:
    """The `number` conditions of the curve that SteerLM is evaluated under (see curve_places)."""
    last = len(conditions.curve) - 1
    return [conditions.curve[round(place * last)] for place in curve_places(number, points)]


def condition_for(conditions: Conditions, direction: Direction) -> list[int]:
    """What to ask SteerLM for on behalf of a direction v: of all targets the best by v.target."""
    scores = [scalar_reward(direction, target) for target in conditions.targets]
    return as_condition(conditions.targets[scores.index(max(scores))])


def desired_rewards(ranges: RewardRanges, direction: Direction) -> list[int]:
    """What Rewards-in-Context asks for in a direction v (arXiv 2402.10207, section 3.3,
    for the maximum norm).

    Of k objectives with shares w = |v| / sum |v| each is asked for the part min(k w, 1) of the way
    from its worst reward to its best; the largest share's is always the best. Where v has not the
    distribution's sign, worst and best change places.
    """
    total, found = sum(map(abs, direction)), []
    for v, worst, best in zip(direction, ranges.worst, ranges.best, strict=True):
        low, high = (best, worst) if v * (best - worst) < 0 else (worst, best)
        part = min(len(direction) * abs(v) / total, 1.0)
        found.append(low + part * (high - low))
    return as_condition(found)


def draw_desired_rewards(
    ranges: RewardRanges, seed: int, iteration: int, prompt_id: str, sample: int
) -> list[int]:
    """What Rewards-in-Context asks a training sample for: near the Pareto front.

    As in the authors' code (sample_goals) a reward is drawn for each objective, uniformly from its
    worst to its best; the least of them stays, and all others become the best.
    """
    generator = np.random.default_rng(derive_seed(seed, "desired", iteration, prompt_id, sample))
    parts = generator.uniform(size=len(ranges.best))
    parts[np.arange(len(parts)) != parts.argmin()] = 1.0
    worst, best = np.array(ranges.worst), np.array(ranges.best)
    return as_condition(worst + parts * (best - worst))


def draw_condition(
    conditions: Conditions,
    seed: int,
    prompt_id: str,
    sample: int,
    noise: float,
    uniform_share: float,
) -> list[int]:
    """The condition of a sample of iteration 1: a target plus noise, or uniform over 0..100."""
    generator = np.random.default_rng(derive_seed(seed, "condition", prompt_id, sample))
    objectives = len(conditions.targets[0])
    if generator.random() < uniform_share:
        return as_condition(generator.uniform(0, 100, objectives))
    target = np.array(conditions.targets[generator.integers(len(conditions.targets))])
    return as_condition(target + generator.normal(0, noise, objectives))
