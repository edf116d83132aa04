"""Figure 5: AlpacaEval 2 win rate against response length, plain and length-controlled.

A mark is a row: in the panel `win_rate` or `length_controlled` a policy under one direction, x its
mean length (characters) and y its win rate (percent). With one seed `se` is the standard error over
instructions; with several, that of the mean over seeds.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpa.artefacts.frames import read_csv_table
from dpa.registry import METHODS
from dpa.report.figures.style import (
    PAPER_COLOUR,
    ends_text,
    keep_inside,
    label_end,
    page_width,
    text_of_direction,
)

WIN_RATE_PANELS = {
    "win_rate": ("win rate", "win_rate"),
    "length_controlled": ("length-controlled win rate", "length_controlled_win_rate"),
}
#: Standard errors to the end of a 95 % interval.
RADIUS = 1.96
_NAN = float("nan")
WIN_RATE_KEY = ["method", "iteration", "direction_index"]
NEEDED = {
    *WIN_RATE_KEY, "seed", "win_rate", "standard_error", "avg_length", "length_controlled_win_rate",
    "length_controlled_reason", "n_total", "judge",
}  # fmt: skip


def read_results(path: Path) -> pd.DataFrame:
    """alpacaeval/results.csv. Raises InputError when it is missing or lacks a column."""
    return read_csv_table(path, "rerun collect_alpacaeval", NEEDED, dtype={"iteration": "Int64"})


def figure5_marks(
    results: pd.DataFrame, published: pd.DataFrame, objectives: Sequence[str]
) -> pd.DataFrame:
    """Our marks and the paper's; a policy without a length-controlled win rate has none there."""
    rows = []
    directions = [f"v_{name}" for name in objectives]
    for key, seeds in results.groupby(WIN_RATE_KEY, dropna=False, sort=False):
        for panel, (_, column) in WIN_RATE_PANELS.items():
            if seeds[column].isna().any():
                continue
            several = len(seeds) > 1
            rows.append(
                {
                    "panel": panel, "source": "ours", **dict(zip(WIN_RATE_KEY, key, strict=True)),
                    **{name: seeds[name].iloc[0] for name in directions if name in seeds},
                    "x": seeds["avg_length"].mean(), "y": seeds[column].mean(),
                    "se": seeds[column].std(ddof=1) / np.sqrt(len(seeds)) if several
                    else seeds["standard_error"].iloc[0] if panel == "win_rate" else _NAN,
                    "seeds": len(seeds), "n": int(seeds["n_total"].iloc[0]),
                }
            )  # fmt: skip
    for row in published.itertuples():
        method, _, iteration = str(row.method).partition("_t")
        rows.append(
            {"panel": "win_rate", "source": "paper", "method": method,
             "iteration": int(iteration) if iteration else None, "direction_index": None,
             "x": row.average_length_chars, "y": row.win_rate_percent}
        )  # fmt: skip
    marks = pd.DataFrame(rows)
    return marks.astype(dict.fromkeys(["iteration", "direction_index", "seeds", "n"], "Int64"))


def draw_figure5(
    marks: pd.DataFrame, objectives: Sequence[str], title: str, published: bool = False
) -> Figure:
    """Left the win rate, right the length-controlled one, where there is one."""
    panels = [p for p in WIN_RATE_PANELS if _ours(marks, p).any()] or list(WIN_RATE_PANELS)[:1]
    width = page_width() if len(panels) > 1 else 0.7 * page_width()
    figure, axes = plt.subplots(
        1, len(panels), figsize=(width, 4.0), sharex=True, squeeze=False, layout="constrained"
    )
    for panel_axes, panel in zip(axes[0], panels, strict=True):
        drawn = marks[marks["panel"] == panel]
        if published:
            _draw_paper(panel_axes, drawn[drawn["source"] == "paper"])
        ours = drawn[drawn["source"] == "ours"]
        _draw_methods(panel_axes, ours, objectives)
        panel_axes.set_xlabel("mean response length (characters)")
        panel_axes.set_ylabel(f"{WIN_RATE_PANELS[panel][0]} (%)")
        panel_axes.set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title, fontsize=10)
    keep_inside(figure)
    return figure


def _ours(marks: pd.DataFrame, panel: str) -> pd.Series:
    return (marks["panel"] == panel) & (marks["source"] == "ours")


def _draw_methods(axes: Axes, rows: pd.DataFrame, objectives: Sequence[str]) -> None:
    for method, entry in METHODS.items():
        label, marker, colour = entry.label, entry.marker, entry.colour
        found = rows[rows["method"] == method]
        if not len(found):
            continue
        last = found["iteration"].max()
        points = found[found["iteration"].isna() | (found["iteration"] == last)]
        points = points.sort_values("direction_index")
        name = label if pd.isna(last) else f"{label} t={last}"
        many = len(points) > 1
        axes.errorbar(
            points["x"], points["y"], yerr=_radius(points) * points["se"].fillna(0),
            fmt=marker + ("-" if many else ""), color=colour, label=name, capsize=2, elinewidth=0.8,
            markersize=5 if many else 8, zorder=4 if method == "dpa" else 3,
        )  # fmt: skip
        if method == "dpa" and many and f"v_{objectives[0]}" in points:
            for place in (0, -1):
                v = points[[f"v_{name}" for name in objectives]].iloc[place]
                if not v.isna().any():
                    label_end(axes, points, place, text_of_direction(v))
    axes.margins(x=0.2, y=0.12)


def _radius(points: pd.DataFrame) -> float:
    return RADIUS if (points["seeds"] == 1).all() else 1.0


def _draw_paper(axes: Axes, rows: pd.DataFrame) -> None:
    label = "published (paper, read off)"
    for method, points in rows.groupby("method", sort=False):
        marker = METHODS[str(method)].marker
        axes.plot(
            points["x"], points["y"], marker + ("-" if len(points) > 1 else ""), color=PAPER_COLOUR,
            alpha=0.45, linewidth=1, markersize=3 if len(points) > 1 else 6, label=label, zorder=1,
        )  # fmt: skip
        label = "_nolegend_"


def missing_reason(results: pd.DataFrame) -> str:
    """Why there is no length-controlled win rate; empty where there is one."""
    without = results[results["length_controlled_win_rate"].isna()]
    reasons = without["length_controlled_reason"].dropna().unique()
    return "; ".join(map(str, reasons)) if len(without) == len(results) else ""


def figure5_caption(
    results: pd.DataFrame, experiment: str, objectives: Sequence[str], world: bool
) -> str:
    """`world`: whether the benchmark is the quickstart's own."""
    judges = ", ".join(sorted(results["judge"].astype(str).unique()))
    n = int(results["n_total"].iloc[0])
    seeds = results["seed"].nunique()
    bars = (
        f"95 % intervals over instructions ({RADIUS} standard errors)"
        if seeds == 1
        else f"one standard error over {seeds} seeds"
    )
    reason = missing_reason(results)
    absent = f" The length-controlled win rate is not available: {reason}." if reason else ""
    dpa = results[results["method"] == "dpa"]
    curve = dpa[dpa["iteration"] == dpa["iteration"].max()].drop_duplicates("direction_index")
    steered = curve.get(f"v_{objectives[0]}", pd.Series()).notna().sum() > 1
    ends = ends_text(objectives) if steered else ""
    of = "the quickstart's own benchmark, shaped like AlpacaEval's" if world else "AlpacaEval 2"
    return f"""\
**Figure 5 (experiment {experiment}).** Win rate against the reference outputs over mean response
length on {n} instructions of {of}, judged by {judges}: DPA's last iteration under its directions,
SteerLM under its conditions, and methods that cannot be steered as points.{ends} Bars are
{bars}.{absent}"""
