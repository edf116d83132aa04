"""How well a dial steers: standardised rewards, dispersion, collapse, miscalibration, side effects.

Definitions and sources: docs/metrics.md. All are replicates of the bootstrap, from the columns that
validation.prompt_rewards adds for them; what they compare with is the SFT policy, which is not
steered. No torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dpa.evaluation.bootstrap import NAN, DrawnPrompts, policy_columns, replicate
from dpa.evaluation.validation import OUTPUT, STEP
from dpa.registry import PolicyKey

#: What a movement of the outputs starts from, and what rewards are standardised by.
UNSTEERED: PolicyKey = ("sft", None)


class Standard(NamedTuple):
    """Mean and standard deviation of the SFT policy's validation rewards, (k,) each."""

    mean: np.ndarray
    sd: np.ndarray


def standard_of(drawn: DrawnPrompts, objectives: Sequence[str], by: str) -> Standard | None:
    """None without an SFT policy, or if one of its rewards never varies."""
    if not (drawn.table["method"] == UNSTEERED[0]).any():
        return None
    means, seconds = _moments(drawn, UNSTEERED, objectives, by)
    variance = np.diagonal(seconds - np.outer(means, means)) if len(means) else np.zeros(1)
    return Standard(means, np.sqrt(variance)) if (variance > 1e-9).all() else None


def _moments(
    drawn: DrawnPrompts, policy: PolicyKey, objectives: Sequence[str], by: str
) -> tuple[np.ndarray, np.ndarray]:
    """(k,) means and (k, k) means of products over the responses of a policy with one point."""
    means, seconds = _replicated_moments(
        drawn._replace(weights=np.ones((1, len(drawn.prompts)))), policy, objectives, by
    )
    return means[0, 0], seconds[0, 0]


def _replicated_moments(
    drawn: DrawnPrompts, policy: PolicyKey, objectives: Sequence[str], by: str
) -> tuple[np.ndarray, np.ndarray]:
    """(replicates, points, k) and (replicates, points, k, k)."""
    first = [f"{by}_{name}" for name in objectives]
    second = [f"{by}2_{a}_{b}" for a in objectives for b in objectives]
    found = _replicated(drawn, policy, [*first, *second])
    k = len(objectives)
    return found[..., :k], found[..., k:].reshape(*found.shape[:2], k, k)


def _replicated(drawn: DrawnPrompts, policy: PolicyKey, columns: Sequence[str]) -> np.ndarray:
    values = policy_columns(drawn.table, *policy, columns, drawn.prompts)
    return replicate(drawn.weights, values)


def dispersions(
    drawn: DrawnPrompts, policy: PolicyKey, objectives: Sequence[str], by: str, standard: Standard
) -> np.ndarray:
    """(replicates,) conditional dispersion: mean over points of det Cov(standardised rewards)."""
    means, seconds = _replicated_moments(drawn, policy, objectives, by)
    covariances = seconds - means[..., :, None] * means[..., None, :]
    scaled = covariances / np.outer(standard.sd, standard.sd)
    return np.linalg.det(scaled).mean(axis=1)


def collapses(drawn: DrawnPrompts, policy: PolicyKey) -> dict[str, np.ndarray]:
    """Shares of degenerate responses, and of equal ones across directions, (replicates,) each."""
    found = _replicated(drawn, policy, ["degenerate", "equal"]).mean(axis=1)
    return {"degenerate_share": found[:, 0], "equal_share": found[:, 1]}


def movements(drawn: DrawnPrompts, policy: PolicyKey) -> dict[str, np.ndarray]:
    """Miscalibration, side effects, and what each output moves by from the dial's end to end.

    NaN for a policy that is not steered by directions, and empty without an SFT policy.
    """
    names = [c.removeprefix(OUTPUT) for c in drawn.table if c.startswith(OUTPUT)]
    if not names or not (drawn.table["method"] == UNSTEERED[0]).any():
        return {}
    own = _replicated(drawn, policy, [OUTPUT + name for name in names])
    steps = policy_columns(drawn.table, *policy, [STEP + n for n in names], drawn.prompts)[0]
    undefined = np.full(len(own), NAN)
    if np.isnan(steps).any():
        keys = ["miscalibration", "side_effects", *(f"turn_{name}" for name in names)]
        return dict.fromkeys(keys, undefined)
    moved = own - _replicated(drawn, UNSTEERED, [OUTPUT + name for name in names])
    along = (moved * steps).sum(axis=2)
    across = np.linalg.norm(moved - along[..., None] * steps, axis=2)
    distance = np.linalg.norm(moved, axis=2)
    typical = along.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "miscalibration": np.abs(along / typical - 1).mean(axis=1),
            "side_effects": (across / distance).mean(axis=1),
        }
    turned = own[:, -1] - own[:, 0]
    return found | {f"turn_{name}": turned[:, i] for i, name in enumerate(names)}
