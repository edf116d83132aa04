"""Figures. One style, colour-blind safe, byte-stable for unchanged data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpa.evaluation import front

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.hashsalt": "dpa",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}

#: Baselines: label, marker, colour (Okabe-Ito). DPA's iterations take their colours from viridis.
BASELINES = {
    "steerlm": ("SteerLM", "s", "#D55E00"),
    "reward_soup": ("Reward Soup", "v", "#0072B2"),
    "directional_dpo": ("Directional DPO", "^", "#E69F00"),
    "rsf": ("RSF", "P", "#56B4E9"),
    "ppo": ("PPO (RLOO)", "X", "#009E73"),
    "dpo": ("DPO", "D", "#CC79A7"),
    "sft": ("SFT", "*", "#000000"),
}
PANELS = {"r": "by the reward model", "gold": "by the gold scorer"}


def draw_fronts(axes: Axes, table: pd.DataFrame, objectives: Sequence[str], by: str) -> None:
    """Helpfulness against verbosity: curves for DPA and SteerLM, points for the others."""
    iterations = sorted(table.loc[table["method"] == "dpa", "iteration"].dropna().unique())
    colours = plt.colormaps["viridis"](np.linspace(0.85, 0.0, max(len(iterations), 2)))
    for t, colour in zip(iterations, colours, strict=False):
        points = front(table, "dpa", int(t), objectives, by)
        label = f"DPA t={t}" + (" (SteerLM on D2)" if t == 0 else "")
        axes.plot(points[:, 1], points[:, 0], "o-", color=colour, label=label, zorder=3 + t)
    for method, (label, marker, colour) in BASELINES.items():
        # Of a baseline with iterations the last.
        last = table.loc[table["method"] == method, "iteration"].max()
        iteration = None if pd.isna(last) else int(last)
        points = front(table, method, iteration, objectives, by)
        if len(points):
            many = len(points) > 1
            axes.plot(
                points[:, 1],
                points[:, 0],
                marker + ("--" if many else ""),
                color=colour,
                label=label,
                markersize=5 if many else 8,
            )
    axes.set_xlabel("verbosity (mean reward, 0–100)")
    axes.set_ylabel("helpfulness (mean reward, 0–100)")


def plot_figure4(table: pd.DataFrame, objectives: Sequence[str], title: str) -> Figure:
    """The paper's figure 4; with a second panel by the gold scorer where there is one.

    The first two objectives are drawn, the second on the horizontal axis.
    """
    panels = [
        by
        for by in PANELS
        if table.get(f"{by}_{objectives[0]}", pd.Series(dtype=float)).notna().any()
    ]
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            1,
            len(panels),
            figsize=(4.4 * len(panels) + 0.4, 4.2),
            squeeze=False,
            layout="constrained",
        )
        for axes, by in zip(all_axes[0], panels, strict=True):
            draw_fronts(axes, table, objectives, by)
            axes.set_title(f"validation rewards {PANELS[by]}", fontsize=9)
        handles, labels = all_axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.suptitle(title, fontsize=10)
    return figure


def plot_policy_gradient(histories: dict[str, pd.DataFrame], title: str) -> Figure:
    """Reward, divergence from the SFT policy, and length by step; a line per direction.

    `histories` maps a direction's name to its training's history.csv.
    """
    panels = {
        "reward": "reward v·r (points)",
        "kl": "KL from the SFT policy (nats per response)",
        "response_tokens": "response length (tokens)",
        "truncated": "responses cut off (share)",
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.2), sharex=True, layout="constrained")
        for panel, (column, label) in zip(axes.flat, panels.items(), strict=True):
            for name, history in histories.items():
                panel.plot(history["step"], history[column], label=name)
            panel.set_ylabel(label)
        for panel in axes[1]:
            panel.set_xlabel("optimiser step")
        axes[0, 0].legend(title="direction (hundredths)")
        figure.suptitle(title, fontsize=10)
    return figure


def save_figure(figure: Figure, paths: Sequence[Path]) -> None:
    """Save in the formats of the paths' suffixes, without dates, each atomically."""
    from dpa.provenance import atomic

    for path in paths:
        metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
        with plt.rc_context(STYLE), atomic(path) as partial:
            figure.savefig(partial, metadata=metadata)
    plt.close(figure)
