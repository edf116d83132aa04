"""What the quickstart must show, with bounds that held over seeds that were not tuned on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpa.artefacts.jsonl import decode_lines
from dpa.evaluation.metrics import spearman
from dpa.evaluation.validation import (
    are_outside,
    front,
    front_hypervolume,
    mean_scalar_reward,
    read_validation_rewards,
)
from dpa.quickstart.world import gold_rewards
from dpa.records import Annotation

OBJECTIVES = ("helpfulness", "verbosity")

#: From t = 3 on gold may fall, where the policy exploits the reward model; no lower than this. Of
#: mean v.r, the worst of the ten seeds 2 and 11 to 19, which tuned nothing (docs/methods.md),
#: minus 3.5; of the hypervolume, SteerLM's.
LATER_GOLD = {
    "mean v.r by gold": {3: 49.2, 4: 43.0},
    "hypervolume by gold, minus steerlm": {3: 0.0, 4: 0.0},
}


class Claim(NamedTuple):
    """A statement about the run, its bound (`above` or below) and the value found."""

    name: str
    value: float
    bound: float
    above: bool = True

    @property
    def holds(self) -> bool:
        return self.value > self.bound if self.above else self.value <= self.bound


def run_claims(folder: Path, reference: Sequence[float]) -> Iterator[Claim]:
    """All facts about a quickstart run in results/<experiment>/."""
    held_out = [
        record
        for path in sorted((folder / "annotations").glob("*.jsonl"))
        for record in decode_lines(path, Annotation)
        if record.split == "validation"
    ]
    gold = np.array([gold_rewards(str(r.prompt), r.response) for r in held_out])
    yield from reward_model_claims(np.array([r.rewards for r in held_out]), gold)
    yield from front_claims(
        read_validation_rewards(folder / "evaluation" / "validation_rewards.csv"), reference
    )


def reward_model_claims(rewards: np.ndarray, gold: np.ndarray) -> Iterator[Claim]:
    """How well the reward model's objectives follow the gold scorer; both (responses, 2)."""
    for i, (name, bound) in enumerate(zip(OBJECTIVES, (0.85, 0.95), strict=True)):
        r = float(np.corrcoef(rewards[:, i], gold[:, i])[0, 1])
        yield Claim(f"held-out correlation of reward model and gold, {name}", r, bound)


class _Fronts:
    """The fronts in validation_rewards.csv, and what facts are stated of."""

    def __init__(self, table: pd.DataFrame, reference: Sequence[float]) -> None:
        table = table[~are_outside(table)]
        self.table, self.reference = table, reference
        iterations = table.loc[table["method"] == "dpa", "iteration"].dropna()
        self.last = int(iterations.max())
        steered = table[(table["method"] == "dpa") & (table["iteration"] == self.last)]
        self.directions = steered.sort_values("direction_index")[
            [f"v_{name}" for name in OBJECTIVES]
        ].to_numpy(dtype=float)

    def points(self, method: str, iteration: int | None = None, by: str = "r") -> np.ndarray:
        return front(self.table, method, iteration, OBJECTIVES, by)

    def scalar(self, method: str, iteration: int | None = None, by: str = "r") -> float:
        found = self.points(method, iteration, by)
        return mean_scalar_reward(found, self.directions, bool(iteration))

    def volume(self, method: str, iteration: int | None = None, by: str = "r") -> float:
        return front_hypervolume(self.points(method, iteration, by), self.reference)


def front_claims(table: pd.DataFrame, reference: Sequence[float]) -> Iterator[Claim]:
    """Facts about the fronts in validation_rewards.csv."""
    fronts = _Fronts(table, reference)
    last, directions = fronts.last, fronts.directions
    points, scalar, volume = fronts.points, fronts.scalar, fronts.volume
    for t in range(2, last + 1):
        index = np.arange(len(directions))
        help_, verb = points("dpa", t).T
        yield Claim(f"Spearman(direction, verbosity), t={t}", spearman(index, verb), -0.85, False)
        yield Claim(
            f"Spearman(direction, helpfulness), t={t}", spearman(index, help_), -0.85, False
        )
    if last >= 1:
        baselines = (("sft", None, 20.0), ("dpa", 0, 10.0), ("dpo", None, 8.0))
        for method, iteration, bound in baselines:
            if len(points(method, iteration)):
                name = method if iteration is None else "t=0 (SteerLM on D2)"
                gain = scalar("dpa", 1) - scalar(method, iteration)
                yield Claim(f"mean v.r, t=1 minus {name}", gain, bound)
    if last >= 2:
        verbosity = points("dpa", 2)[:, 1]
        yield Claim("verbosity span of the curve, t=2", float(np.ptp(verbosity)), 8)
        for by, label in (("r", "reward model"), ("gold", "gold")):
            gain = scalar("dpa", 2, by) - scalar("dpa", 1, by)
            yield Claim(f"mean v.r by {label}, t=2 minus t=1", gain, 1)
            grown = volume("dpa", 2, by) - volume("dpa", 1, by)
            yield Claim(f"hypervolume by {label}, t=2 minus t=1", grown, 1)
        if len(points("steerlm")):
            gain = scalar("dpa", 2) - scalar("steerlm")
            yield Claim("mean v.r, t=2 minus steerlm", gain, 0)
            grown = volume("dpa", 2, "gold") - volume("steerlm", by="gold")
            yield Claim("hypervolume by gold, t=2 minus steerlm", grown, 5)
    if last >= 3:
        yield Claim("mean v.r, t=3 minus t=2", scalar("dpa", 3) - scalar("dpa", 2), 0)
    for t in range(3, last + 1):
        later = {"mean v.r by gold": scalar("dpa", t, "gold")}
        if len(points("steerlm")):
            volumes = volume("dpa", t, "gold"), volume("steerlm", by="gold")
            later["hypervolume by gold, minus steerlm"] = volumes[0] - volumes[1]
        for name, value in later.items():
            if t in LATER_GOLD[name]:
                yield Claim(f"{name}, t={t}", value, LATER_GOLD[name][t])


def describe_gold(table: pd.DataFrame) -> str:
    """Mean v.r by gold of DPA's iterations from 1 on, and after which it falls, if it does.

    The quickstart is the paper's method with one reward model: it may fall, and is said to.
    """
    fronts = _Fronts(table, ())
    found = [fronts.scalar("dpa", t, "gold") for t in range(1, fronts.last + 1)]
    best = 1 + int(np.argmax(found)) if found else 0
    course = f"falls after t={best}" if best < fronts.last else "does not fall"
    return f"gold v.r: {', '.join(f'{value:.1f}' for value in found)}: {course}"
