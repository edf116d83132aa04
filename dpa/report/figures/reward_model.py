"""Quality of the reward model: what it predicts against how responses were labelled."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpa.report.figures.style import QUANTILES, page_width
from dpa.report.tables import Table
from dpa.reward.scorer import FEWEST_INPUTS

#: Labels up to this many distinct values are a scale, with a box for each; more are in deciles.
SCALE = 12
#: Measures: column, heading, format.
MEASURES = [
    ("n", "labelled", ",.0f"),
    ("pearson", "Pearson", ".3f"),
    ("spearman", "Spearman", ".3f"),
    ("rmse", "RMSE (points)", ".1f"),
    ("prompts", "prompts", ",.0f"),
    ("spearman_within_prompt", "Spearman within a prompt", ".3f"),
    ("pairwise_accuracy", "pairwise accuracy", ".3f"),
]


def quality(metrics: pd.DataFrame, ranking: pd.DataFrame) -> pd.DataFrame:
    """metrics.csv and ranking.csv side by side, a row per attribute that has labels."""
    both = metrics.merge(ranking, on="attribute", how="left")
    return both[both["n"] > 0].reset_index(drop=True)


def quality_table(table: pd.DataFrame, whose: str = "") -> Table:
    """The table of `quality`; `whose` is a sentence on which model of several it is."""
    cells = [
        [
            row["attribute"],
            *("–" if pd.isna(row[c]) else f"{row[c]:{form}}" for c, _, form in MEASURES),
        ]
        for row in table.to_dict("records")
    ]
    note = (
        "Agreement with held-out labels, all on 0–100; pairwise accuracy is the share of "
        "differently labelled responses to the same prompt that are put in the labels' order, "
        "ties half."
    )
    return Table(
        "", f"{note}{whose}", ["attribute", *(heading for _, heading, _ in MEASURES)], cells
    )


def reward_model_marks(predictions: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the prediction for each label (or decile of labels) of each attribute."""
    rows = []
    for attribute, group in predictions.groupby("attribute", sort=False):
        distinct = group["label"].nunique()
        binned = (
            group["label"]
            if distinct <= SCALE
            else pd.qcut(group["label"], 10, labels=False, duplicates="drop")
        )
        for _, part in group.groupby(binned):
            quantiles = np.percentile(part["predicted"], [*QUANTILES.values()])
            rows.append(
                {
                    "attribute": attribute, "label": part["label"].mean(), "n": len(part),
                    "mean": part["predicted"].mean(),
                    **dict(zip(QUANTILES, quantiles, strict=True)),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def constant_attributes(marks: pd.DataFrame) -> list[str]:
    """The attributes that are predicted alike for all responses."""
    ranges = marks.groupby("attribute", sort=False).agg({"n": "sum", "p5": "min", "p95": "max"})
    dead = ranges[(ranges["n"] >= FEWEST_INPUTS) & (ranges["p5"] == ranges["p95"])]
    return [str(name) for name in dead.index]


def constant_warning(names: Sequence[str]) -> str:
    """What to know about such attributes; empty without any."""
    if not names:
        return ""
    return (
        f"The reward model predicts the same {' and the same '.join(names)} for every held-out "
        "response: what was selected, ranked or measured by it says nothing."
    )


def draw_reward_model(marks: pd.DataFrame, table: pd.DataFrame, title: str) -> Figure:
    """A panel per attribute: boxes of the prediction over the label, and the measures."""
    names = list(table["attribute"])
    across = min(len(names), 5)
    down = -(-len(names) // across)
    width = page_width() if across > 1 else 3.6
    figure, axes = plt.subplots(
        down, across, figsize=(width, 0.6 + (1.95 if across > 1 else 3) * down), sharex=True,
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for panel, row in zip(axes.flat, table.to_dict("records"), strict=False):
        _draw_attribute(panel, marks[marks["attribute"] == row["attribute"]], row)
    for panel in list(axes.flat)[len(names) :]:
        panel.axis("off")
    figure.supxlabel("label (0–100)", fontsize=9)
    figure.supylabel("prediction (0–100)", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_attribute(axes: Axes, rows: pd.DataFrame, measures: dict) -> None:
    boxes = [
        {"med": r.median, "q1": r.q25, "q3": r.q75, "whislo": r.p5, "whishi": r.p95}
        for r in rows.itertuples()
    ]
    gaps = np.diff(np.sort(rows["label"]))
    width = 0.6 * gaps.min() if len(gaps) else 10.0
    axes.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    axes.bxp(
        boxes, positions=rows["label"], widths=width, manage_ticks=False, showfliers=False,
        patch_artist=True, boxprops={"facecolor": "#0072B2", "alpha": 0.5, "linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 1.2}, whiskerprops={"linewidth": 0.7},
        capprops={"linewidth": 0.7},
    )  # fmt: skip
    source, _, name = measures["attribute"].partition("-")
    axes.set_title(f"{source}\n{name}" if name else source, fontsize=7.5)
    shown = {
        label: f"{label} {measures[column]:{form}}"
        for label, column, form in (
            ("r", "pearson", ".2f"),
            ("ρ", "spearman", ".2f"),
            ("RMSE", "rmse", ".1f"),
            ("pairs", "pairwise_accuracy", ".2f"),
        )
        if not pd.isna(measures[column])
    }
    lines = (("r", "ρ"), ("RMSE", "pairs"))
    text = "\n".join(", ".join(shown[label] for label in line if label in shown) for line in lines)
    if constant_attributes(rows):
        text += "\nCONSTANT"
    # Above the boxes: the axis extends to where no prediction can be.
    axes.text(0.03, 0.99, text, transform=axes.transAxes, va="top", fontsize=6, linespacing=1.2)
    axes.set(xlim=(-5, 105), ylim=(-5, 132))
    axes.set_xticks([0, 50, 100])
    axes.set_yticks([0, 50, 100])
    axes.tick_params(labelsize=7)


def reward_model_caption(
    table: pd.DataFrame, marks: pd.DataFrame, experiment: str, whose: str = ""
) -> str:
    caption = f"""\
**Reward model (experiment {experiment}).** Predictions for held-out responses against their
labels, an attribute in each panel ({int(table["n"].sum()):,} labels): boxes are quartiles with
the median, whiskers the 5th and 95th percentile, the dotted line is where a perfect model would
be. r is Pearson's correlation, ρ Spearman's, RMSE in points of 0–100, pairs the share of
differently labelled responses to the same prompt that are put in the labels' order. Labels are
noisy: no model can agree with them fully.{whose}"""
    return f"{caption} {constant_warning(constant_attributes(marks))}".strip()
