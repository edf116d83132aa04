"""Our numbers against the paper's: side by side, and what both say of the paper's claims.

Everything is computed from the marks of figures 4 and 5, by the same code for ours and the paper's.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from dpa.artefacts.frames import read_csv_table
from dpa.directions import evaluation_directions
from dpa.evaluation.metrics import spearman
from dpa.evaluation.validation import are_outside
from dpa.registry import METHODS, PolicyKey
from dpa.report.tables import Table

#: Directions of the paper's validation curve (section 3.2).
PAPER_DISTRIBUTION = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
#: Methods that are evaluated in a direction at a time; DPA's iteration 0 takes conditions.
STEERED = tuple(name for name, method in METHODS.items() if method.is_steered)
#: Spearman's correlation below which a reward counts as falling along the directions.
MONOTONE = -0.9

#: What DPA is claimed to dominate.
POINTS = {"sft": "SFT", "dpo": "DPO", "steerlm": "every point of SteerLM"}


def compare_published(folder: Path, figures: Sequence[str]) -> Iterator[Table]:
    """Tables of ours against the paper's, for those of the `figures` that it has too."""
    if "figure4" in figures:
        marks = read_csv_table(folder / "figure4.csv")
        marks = marks[marks["by"] == "r"]
        if (marks["source"] == "paper").any():
            yield from compare_figure4(marks)
    if "figure5" in figures:
        marks = read_csv_table(folder / "figure5.csv")
        yield compare_figure5(marks[marks["panel"] == "win_rate"])


def compare_figure4(marks: pd.DataFrame) -> Iterator[Table]:
    """Numbers of the validation fronts side by side, and the claims, yes or no."""
    paper, ours = (Fronts(marks[marks["source"] == source]) for source in ("paper", "ours"))
    rows = [
        [
            _name(*policy),
            *(_number(fronts.volume(policy)) for fronts in (paper, ours)),
            *(_number(fronts.mean_vr(policy)) for fronts in (paper, ours)),
        ]
        for policy in sorted({*ours.policies, *paper.policies}, key=_place)
    ]
    yield Table(
        "Figure 4: fronts",
        "By the reward model. Hypervolume in percent of the box between the reference corner and "
        "the ideal; mean v·r over the evaluation directions, of policies that take them. SteerLM "
        "has five points in the paper, here as many as DPA.",
        ["policy", "hypervolume: paper", "ours", "mean v·r: paper", "ours"],
        rows,
    )
    said = paper.claims(), ours.claims()
    yield Table(
        "Figure 4: claims",
        "Each computed from the points of the figure, without regard to their uncertainty.",
        ["claim", "paper", "ours"],
        [[claim, *(_yes(claims[claim]) for claims in said)] for claim in said[0]],
    )


def _place(policy: PolicyKey) -> tuple[int, int]:
    return list(METHODS).index(policy[0]), policy[1] or 0


def _name(method: str, iteration: int | None) -> str:
    return METHODS[method].label + ("" if iteration is None else f" t={iteration}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _yes(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"


class Fronts:
    """The marks of one source, ours or the paper's."""

    def __init__(self, marks: pd.DataFrame):
        marks = marks[~are_outside(marks)]
        self._front = marks[marks["panel"] == "front"]
        self._volumes = marks[marks["panel"] == "hypervolume"]
        found = self._front[["method", "iteration"]].drop_duplicates().itertuples(index=False)
        self.policies: list[PolicyKey] = [(m, None if pd.isna(t) else int(t)) for m, t in found]
        self.last = max((t for m, t in self.policies if m == "dpa" and t), default=None)

    def points(self, policy: PolicyKey) -> np.ndarray:
        """(points, 2) helpfulness and verbosity in the order of directions."""
        return self._rows(policy)[["y", "x"]].to_numpy(dtype=float)

    def volume(self, policy: PolicyKey) -> float | None:
        """Hypervolume."""
        rows = _of(self._volumes, policy)
        return float(rows["y"].iloc[0]) if len(rows) else None

    def mean_vr(self, policy: PolicyKey) -> float | None:
        """Mean of v.r over the directions of a policy that takes them; the paper's are known."""
        rows = self._rows(policy)
        if not len(rows) or policy[0] not in STEERED or policy == ("dpa", 0):
            return None
        directions = (
            np.array(evaluation_directions(PAPER_DISTRIBUTION, len(rows)))
            if (rows["source"] == "paper").all()
            else rows[[c for c in rows if c.startswith("v_")][:2]].to_numpy(dtype=float)
        )
        return float((directions * self.points(policy)).sum(axis=1).mean())

    def claims(self) -> dict[str, bool | None]:
        """What the paper's figure 4 is to show; None where there is nothing to judge it by."""
        front = self.points(("dpa", self.last)) if self.last else np.empty((0, 2))
        gains = [self.mean_vr(("dpa", t)) or 0.0 for t in range(1, (self.last or 0) + 1)]
        grows = all(a < b for a, b in pairwise(gains)) if len(gains) > 1 else None
        order = np.arange(len(front))
        falls = [spearman(order, front[:, i]) < MONOTONE for i in (0, 1)] if len(front) > 1 else []
        return {
            "mean v·r grows with every iteration from t = 1 on": grows,
            "both rewards fall as the direction asks for less verbosity "
            f"(Spearman below {MONOTONE})".replace("-", "−"): all(falls) if falls else None,
            **{
                f"DPA's last iteration dominates {points}": _dominated(
                    front, self.points((method, None))
                )
                for method, points in POINTS.items()
            },
        }

    def _rows(self, policy: PolicyKey) -> pd.DataFrame:
        return _of(self._front, policy).sort_values("direction_index")


def _of(table: pd.DataFrame, policy: PolicyKey) -> pd.DataFrame:
    method, iteration = policy
    rows = table[table["method"] == method]
    return rows[rows["iteration"].isna() if iteration is None else rows["iteration"] == iteration]


def _dominated(front: np.ndarray, points: np.ndarray) -> bool | None:
    """Whether each point has one of the front's at least as helpful and at most as verbose."""
    if not len(front) or not len(points):
        return None
    helpful = front[:, None, 0] >= points[None, :, 0]
    terse = front[:, None, 1] <= points[None, :, 1]
    return bool((helpful & terse).any(axis=0).all())


def compare_figure5(marks: pd.DataFrame) -> Table:
    """Win rates at the ends of each method's curve."""
    rows = []
    for method, both in marks.groupby("method", sort=False):
        cells = [METHODS[str(method)].label]
        for source in ("paper", "ours"):
            found = both[both["source"] == source].sort_values("x")
            ends = found.iloc[sorted({0, len(found) - 1})] if len(found) else found
            texts = [f"{end.y:.1f} % at {end.x:,.0f}" for end in ends.itertuples()]
            cells.append(" to ".join(texts) or "–")
        rows.append(cells)
    return Table(
        "Figure 5: win rates",
        "In percent, at the mean response length in characters; of a curve its shortest and its "
        "longest point.",
        ["method", "paper", "ours"],
        rows,
    )
