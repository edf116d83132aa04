"""What every training of an experiment minimised, step by step.

A mark is a row: at an optimiser step the mean loss of the steps since the mark before (`loss_curve`
of the model's sidecar). Of a training that samples as it goes it is the reward of the step's
samples (history.csv): a policy gradient's loss says nothing, and online DPO's little. Panels are
kinds of models; a line is a model of a seed.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dpa.artefacts.frames import read_csv_table
from dpa.artefacts.sidecars import read_sidecar
from dpa.registry import METHODS
from dpa.report.figures.style import iteration_colours, page_width

#: Panels of models that are no method's: what their paths begin with -> title.
MODEL_TITLES = {
    "base_model": "base model",
    "reward_model": "reward model",
    "judge": "judge",
    "feedback": "reward model with feedback",
}
#: Inches of a panel's height, and panels in a row.
PANEL_HEIGHT, COLUMNS = 1.7, 3


def training_marks(
    runs: Sequence[Path], models: Sequence[str], histories: Sequence[str]
) -> pd.DataFrame:
    """The marks of the `models` and `histories` (paths below each of the `runs`).

    Raises InputError when a sidecar or a history cannot be read.
    """
    rows: list[dict] = []
    for run in runs:
        for model in models:
            curve = read_sidecar(run / model).get("loss_curve", [])
            rows += (_mark(run, model, "loss", step, value) for step, value in curve)
        for history in histories:
            table = read_csv_table(run / history, needed=("step", "reward"))
            model = str(Path(history).parent)
            pairs = zip(table["step"], table["reward"], strict=True)
            rows += (_mark(run, model, "reward", step, value) for step, value in pairs)
    return pd.DataFrame(rows).astype({"iteration": "Int64"})


def _mark(run: Path, model: str, measure: str, step: int, value: float) -> dict:
    first = model.split("/")[0]
    iteration = re.search(r"/iter(\d+)", model)
    return {
        "panel": MODEL_TITLES[first] if first in MODEL_TITLES else METHODS[first].label,
        "run": run.name, "model": model, "iteration": iteration and int(iteration[1]),
        "step": int(step), "measure": measure, "value": value,
    }  # fmt: skip


def draw_training_curves(marks: pd.DataFrame, title: str) -> Figure:
    """A panel per kind of model, in the order of the marks."""
    panels = list(marks.groupby("panel", sort=False))
    columns = min(COLUMNS, len(panels))
    count = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(
        count, columns, figsize=(page_width(), PANEL_HEIGHT * count + 0.4), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for place, panel in enumerate(axes.flat):
        if place >= len(panels):
            panel.remove()
            continue
        name, curves = panels[place]
        _draw_panel(panel, curves)
        reward = curves["measure"].iloc[0] == "reward"
        panel.set_title(f"{name}: reward v·r" if reward else name)
        if place + columns >= len(panels):
            panel.set_xlabel("optimiser step")
        if place % columns == 0:
            panel.set_ylabel("reward v·r (points)" if reward else "loss")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_panel(axes: Axes, curves: pd.DataFrame) -> None:
    """A line per model and seed; several iterations by colour, with a legend."""
    iterations = sorted(curves["iteration"].dropna().unique())
    colours = dict(zip(iterations, iteration_colours(len(iterations)), strict=False))
    named = set()
    for _, curve in curves.groupby(["run", "model"], sort=False):
        t, colour, label = curve["iteration"].iloc[0], "C0", None
        if len(iterations) > 1:
            colour, label = colours[t], None if t in named else f"t={t}"
            named.add(t)
        axes.plot(
            curve["step"], curve["value"], ".-", color=colour, linewidth=1, markersize=3,
            label=label,
        )  # fmt: skip
    if named:
        axes.legend(fontsize=6.5, handlelength=1.2)
    axes.set_xlim(0, 1.05 * curves["step"].max())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def training_curves_caption(marks: pd.DataFrame, experiment: str) -> str:
    """What lines are, and what can be compared."""
    rewards = marks.loc[marks["measure"] == "reward", "panel"].unique()
    gradients = (
        f" Of {', '.join(rewards)} it is the mean v·r of a step's samples by the reward model that"
        " is optimised; table 1 has what gold or a judge, where there is one, says of the policies."
        if len(rewards)
        else ""
    )
    losses = "; ".join(_losses(marks.loc[marks["measure"] == "loss", "panel"].unique()))
    lines = " and ".join(_lines(marks))
    several = f" A line is one {lines}." if lines else ""
    return f"""\
**Training curves (experiment {experiment}).** Training loss of every model that the experiment
trains, by optimiser step: a mark is the mean over the steps since the mark before.{gradients}
Losses are of different kinds and compare within a kind only: {losses}.{several}"""


def _losses(shown: Sequence[str]) -> Iterator[str]:
    """Which panels have which loss."""
    scorers = [title for title in MODEL_TITLES.values() if title != "base model"]
    pairs = [METHODS[name].label for name in ("dpo", "directional_dpo")]
    kinds = {
        "equation (1) of the paper, with labels on 0–1": scorers,
        "preference pairs'": pairs,
        "cross-entropy in nats per token": [
            name for name in shown if name not in scorers and name not in pairs
        ],
    }
    for kind, names in kinds.items():
        if found := [name for name in names if name in shown]:
            yield f"{kind} ({', '.join(found)})"


def _lines(marks: pd.DataFrame) -> Iterator[str]:
    """What tells lines of a panel apart, beside the iteration, which the legend has."""
    within = marks.groupby(["panel", "iteration"], dropna=False)
    if (within["model"].nunique() > 1).any():
        yield "model"
    if marks["run"].nunique() > 1:
        yield "seed"
