"""Validation rewards of a small experiment, for figures and the report."""

import pandas as pd

from dpa.config.figures import FigureStyleConfig
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import read_section

OBJECTIVES = ["helpfulness", "verbosity"]
PUBLISHED = pd.read_csv(CLONE / "results/published/figure4_validation_rewards.csv")
REFERENCE = [0.0, 100.0]
STYLE = read_section(FigureStyleConfig, '{"dpi": 60}', "style", "figures.style")
DIRECTIONS = [(1.0, 0.0), (0.8, -0.6)]


def make_rewards(seed=0, gold=True, shift=0.0):
    """Two iterations of DPA and an SFT on four prompts: 4 points below, below, above, above."""
    policies = {
        ("dpa", 0): [(40, 60), (30, 40)],
        ("dpa", 1): [(80, 40), (70, 20)],
        ("sft", None): [(50, 50)],
    }
    rows = []
    for (method, iteration), points in policies.items():
        for index, point in enumerate(points):
            for prompt, offset in zip("abcd", (-4, -4, 4, 4), strict=True):
                row = {
                    "method": method, "iteration": iteration, "seed": seed, "prompt_id": prompt,
                    "cluster": prompt, "unseen": False,
                    "direction_index": index if method == "dpa" else -1, "tokens": 9.0, "n": 2,
                }  # fmt: skip
                for i, name in enumerate(OBJECTIVES):
                    steered = (method, iteration) == ("dpa", 1)
                    row[f"v_{name}"] = DIRECTIONS[index][i] if steered else None
                    row[f"c_{name}"] = None
                    row[f"r_{name}"] = point[i] + offset + (shift if i == 0 else 0)
                    if gold:
                        row[f"gold_{name}"] = float(point[i])
                rows.append(row)
    kinds = {"iteration": "Int64"} | {f"{p}_{n}": float for p in "vcr" for n in OBJECTIVES}
    return pd.DataFrame(rows).astype(kinds)
