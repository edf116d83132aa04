"""Preference directions: unit vectors with one weight per objective (paper, section 2).

A direction law draws training directions; a grid lists evaluation directions.
"""

import math
from collections.abc import Sequence

import numpy as np

from dpa.errors import InputError
from dpa.seeds import derive_seed

Direction = list[float]

#: How far a direction's length may be from 1: directions are written with six digits.
TOLERANCE = 1e-4


def from_degrees(angle: float) -> Direction:
    """The two-objective direction (cos a, sin a)."""
    return [round(math.cos(math.radians(angle)), 6), round(math.sin(math.radians(angle)), 6)]


def check_direction(direction: Sequence[float], objectives: int) -> Direction:
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
    if abs(length - 1) > TOLERANCE:
        nearest = [v / length for v in values] if length else [1.0] + [0.0] * (objectives - 1)
        advice = ",".join(f"{v:.4f}" for v in nearest)
        raise InputError(
            f"direction {values} has length {length:.4f}, not 1; nearest unit vector: {advice}"
        )
    return values


def sample_direction(law: dict, seed: int, iteration: int, prompt_id: str, index: int) -> Direction:
    """Draw direction `index` of a prompt from the law; equal arguments give equal directions.

    Laws: `arc` (two objectives): angle uniform between `from_degrees` and `to_degrees`; the paper's
    is Uniform(-45, 0) (section 3.1).
    """
    generator = np.random.default_rng(derive_seed(seed, "direction", iteration, prompt_id, index))
    return from_degrees(generator.uniform(law["from_degrees"], law["to_degrees"]))


def evaluation_directions(law: dict, count: int) -> list[Direction]:
    """`count` directions spread evenly over the law's support, the most helpful first.

    For the paper's arc: ten from (1, 0) to (sqrt(2)/2, -sqrt(2)/2) (section 3.2; the text's plus
    sign is a slip).
    """
    return [from_degrees(a) for a in np.linspace(law["to_degrees"], law["from_degrees"], count)]


def scalar_reward(direction: Sequence[float], rewards: Sequence[float]) -> float:
    """v . r, the reward that a direction asks to maximise (paper, equation 1)."""
    return sum(v * r for v, r in zip(direction, rewards, strict=True))
