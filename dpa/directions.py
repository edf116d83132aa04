"""Preference directions: unit vectors with one weight per objective (paper, section 2).

A distribution is where directions come from; `DISTRIBUTIONS` has them all, as functions from the
unit cube to the distribution's support. Training draws from the cube at random, the evaluation grid
takes evenly spread points. Nothing here knows how many objectives there are but the distributions.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dpa.errors import InputError
from dpa.seeds import derive_seed

Direction = list[float]

#: How far a direction's length may be from 1: directions are written with six digits.
LENGTH_TOLERANCE = 1e-4
#: The same of a direction that somebody asks for, who may write hundredths: 0.71,-0.71.
ASKED_TOLERANCE = 0.01


def from_degrees(angle: float) -> Direction:
    """The two-objective direction (cos a, sin a)."""
    return [round(math.cos(math.radians(angle)), 6), round(math.sin(math.radians(angle)), 6)]


def check_direction(
    direction: Sequence[float], objectives: int, tolerance: float = LENGTH_TOLERANCE
) -> Direction:
    """The direction, if it is a unit vector with one weight per objective.

    Raises InputError otherwise, with the nearest unit vector as advice.
    """
    values = [float(v) for v in direction]
    if len(values) != objectives:
        raise InputError(
            f"direction {values} has {len(values)} weights, expected {objectives} (one each)"
        )
    length = math.hypot(*values)
    if not math.isfinite(length):
        raise InputError(f"direction {values} is not finite; give a unit vector")
    if abs(length - 1) > tolerance:
        nearest = [v / length for v in values] if length else [1.0] + [0.0] * (objectives - 1)
        advice = ",".join(str(round(v, 4) + 0.0) for v in nearest)
        raise InputError(
            f"direction {values} has length {round(length, 4)}, not 1; "
            f"nearest unit vector: {advice}"
        )
    return values


def unit_direction(direction: Sequence[float], objectives: int) -> Direction:
    """The direction that somebody asks for: of length 1 within 1 %, which is then normalised.

    The one rule of the chat and of saved policies' chat templates (dpa.serving.template). Raises
    InputError as check_direction does.
    """
    values = check_direction(direction, objectives, ASKED_TOLERANCE)
    length = math.hypot(*values)
    return values if abs(length - 1) <= LENGTH_TOLERANCE else [v / length for v in values]


def sample_direction(
    distribution: dict, seed: int, iteration: int, prompt_id: str, index: int
) -> Direction:
    """Draw direction `index` of a prompt; equal arguments give equal directions."""
    generator = np.random.default_rng(derive_seed(seed, "direction", iteration, prompt_id, index))
    kind = DISTRIBUTIONS[distribution["distribution"]]
    return kind.place(distribution, [generator.uniform() for _ in range(kind.cube(distribution))])


def evaluation_directions(
    distribution: dict, grid: int | Sequence[Sequence[float]]
) -> list[Direction]:
    """The evaluation grid: directions given one by one, or that many spread evenly.

    On an arc they are evenly spaced, the most helpful first: for the paper's, ten from (1, 0) to
    (sqrt(2)/2, -sqrt(2)/2) (section 3.2; the text's plus sign is a slip). In more dimensions they
    are the first points of a Halton sequence, ordered by the first weight.
    """
    if not isinstance(grid, int):
        return [check_direction(v, objectives_of(distribution)) for v in grid]
    kind = DISTRIBUTIONS[distribution["distribution"]]
    if kind.cube(distribution) == 0:
        return [kind.place(distribution, [])]
    if kind.cube(distribution) == 1:
        return [kind.place(distribution, [u]) for u in np.linspace(1, 0, grid)]
    from scipy.stats.qmc import Halton

    # The sequence's first point is a corner of the cube.
    points = Halton(kind.cube(distribution), scramble=False).random(grid + 1)[1:]
    return sorted((kind.place(distribution, list(u)) for u in points), reverse=True)


def grid_size(grid: int | Sequence[Sequence[float]]) -> int:
    """Number of directions of an evaluation grid."""
    return grid if isinstance(grid, int) else len(grid)


def objectives_of(distribution: dict) -> int:
    """Number of objectives that a distribution's directions weigh."""
    return DISTRIBUTIONS[distribution["distribution"]].objectives(distribution)


def conditioned(distribution: dict) -> bool:
    """Whether policies are conditioned on the direction: one that never changes says nothing."""
    return distribution["distribution"] != "fixed"


def fixed_distribution(direction: Sequence[float]) -> dict:
    """The distribution that always gives `direction`: what a scalar method optimises."""
    return {"distribution": "fixed", "direction": list(direction)}


def single_objectives(distribution: dict) -> list[Direction]:
    """For each objective the direction that asks for it alone, with its sign in the distribution.

    Where verbosity's weight is negative, its direction asks to be terse.
    """
    mean = np.sum(evaluation_directions(distribution, 50), axis=0)
    signs = np.where(mean < 0, -1.0, 1.0)
    return [[float(v) + 0.0 for v in row] for row in np.diag(signs)]


def expert_directions(distribution: dict, at: str) -> list[Direction]:
    """What Reward Soup's experts optimise: the `objectives` alone, or the `ends` of an arc.

    Of the ends the most helpful is the first.
    """
    return (
        single_objectives(distribution)
        if at == "objectives"
        else evaluation_directions(distribution, 2)
    )


def direction_name(direction: Sequence[float]) -> str:
    """A direction as part of a path: its weights in hundredths, `80_-60`."""
    return "_".join(str(round(100 * v)) for v in direction)


def scalar_reward(direction: Sequence[float], rewards: Sequence[float]) -> float:
    """v . r, the reward that a direction asks to maximise (paper, equation 1)."""
    return sum(v * r for v, r in zip(direction, rewards, strict=True))


def degrees_between(one: Sequence[float], other: Sequence[float]) -> float:
    """The angle between two directions, which are unit vectors up to rounding."""
    return math.degrees(math.acos(max(-1.0, min(1.0, scalar_reward(one, other)))))


# --- Laws ------------------------------------------------------------------------------------


class Distribution(NamedTuple):
    """A kind: `place` maps a point of a unit cube of `cube` dimensions to a direction."""

    objectives: Callable[[dict], int]
    cube: Callable[[dict], int]
    place: Callable[[dict, Sequence[float]], Direction]


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _arc(distribution: dict, u: Sequence[float]) -> Direction:
    """The angle is uniform; the paper's is Uniform(-45, 0) degrees (section 3.1)."""
    return from_degrees(_between(distribution["from_degrees"], distribution["to_degrees"], u[0]))


def _wedge(distribution: dict, u: Sequence[float]) -> Direction:
    """Unit, v1 > v3 >= 0 and v2 <= 0 (appendix A); that both angles are uniform is our choice."""
    down = math.radians(_between(distribution["from_degrees"], 0, u[0]))
    aside = math.radians(_between(0, distribution["to_degrees"], u[1]))
    return _rounded(
        [math.cos(down) * math.cos(aside), math.sin(down), math.cos(down) * math.sin(aside)]
    )


def _dirichlet(distribution: dict, u: Sequence[float]) -> Direction:
    """Squared weights are Dirichlet, so the length is 1; signs are given."""
    from scipy.special import gammaincinv

    shares = gammaincinv(distribution["concentration"], np.clip(u, 1e-9, 1 - 1e-9))
    return _rounded(np.array(distribution["signs"]) * np.sqrt(shares / shares.sum()))


def _rounded(values: Iterable[float]) -> Direction:
    return [round(float(v), 6) + 0.0 for v in values]


DISTRIBUTIONS = {
    "arc": Distribution(lambda distribution: 2, lambda distribution: 1, _arc),
    "wedge": Distribution(lambda distribution: 3, lambda distribution: 2, _wedge),
    "dirichlet": Distribution(
        lambda distribution: len(distribution["signs"]),
        lambda distribution: len(distribution["signs"]),
        _dirichlet,
    ),
    "fixed": Distribution(
        lambda distribution: len(distribution["direction"]),
        lambda distribution: 0,
        lambda distribution, u: [float(v) for v in distribution["direction"]],
    ),
}


def read_direction(direction: str | None, angle: float | None, objectives: int) -> Direction:
    """The direction given as text or as an angle in degrees, as `unit_direction` takes it."""
    if (direction is None) == (angle is None):
        raise InputError("give either --direction 0.8,-0.6 or --angle -37")
    if angle is not None:
        if not math.isfinite(angle):
            raise InputError(f"--angle {angle}: expected degrees, as in -37")
        return unit_direction(from_degrees(angle), objectives)
    try:
        values = [float(value) for value in str(direction).split(",")]
    except ValueError:
        raise InputError(f"--direction {direction}: expected numbers, as in 0.8,-0.6") from None
    return unit_direction(values, objectives)
