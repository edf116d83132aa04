"""The training curves of what samples as it trains: the PPO row and online DPO."""

import re

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dpa.registry import METHODS
from dpa.report.figures.style import direction_colours, page_width, text_of_direction

#: Column of history.csv -> label with unit.
HISTORY_PANELS = {
    "reward": "reward v·r (points)",
    "kl": "KL from SFT (nats per response)",
    "response_tokens": "response length (tokens)",
    "truncated": "truncated responses (share)",
}


def policy_gradient_marks(histories: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per training and optimiser step; `histories` maps a direction, or a method that is
    trained for all directions, to history.csv."""
    columns = ["step", *HISTORY_PANELS]
    tables = [table[columns].assign(direction=name) for name, table in histories.items()]
    return pd.concat(tables, ignore_index=True)[["direction", *columns]]


def draw_policy_gradient(marks: pd.DataFrame, title: str) -> Figure:
    """Reward, divergence from the SFT policy, and length by step; a line per training."""
    figure, axes = plt.subplots(
        2, 2, figsize=(page_width(), 5.2), sharex=True, layout="constrained"
    )
    online = _are_online(marks)
    directions = marks.loc[~online, "direction"].unique()
    colours = dict(zip(directions, direction_colours(len(directions)), strict=False))
    for panel, (column, label) in zip(axes.flat, HISTORY_PANELS.items(), strict=True):
        for name, history in marks.groupby("direction", sort=False):
            colour = colours.get(name, METHODS["online_dpo"].colour)
            panel.plot(history["step"], history[column], color=colour, label=_label(str(name)))
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for panel in axes[1]:
        panel.set_xlabel("optimiser step")
    axes[0, 0].legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _are_online(marks: pd.DataFrame) -> pd.Series:
    """Whether a mark is of online DPO, and not of a fixed direction."""
    return marks["direction"].str.endswith("online_dpo")


def _label(name: str) -> str:
    """`ppo/100_0` as `PPO (RLOO), (1.00, 0.00)`; seeds as they are."""
    parts = []
    for part in name.split("/"):
        if part in METHODS:
            part = METHODS[part].label
        elif re.fullmatch(r"-?\d+(_-?\d+)+", part):
            part = text_of_direction(int(weight) / 100 for weight in part.split("_"))
        parts.append(part)
    return ", ".join(parts)


def policy_gradient_caption(marks: pd.DataFrame, experiment: str) -> str:
    """What was trained, and by whom the reward is."""
    online = _are_online(marks)
    trained = []
    if not online.all():
        trained.append(
            "the PPO row (TRL's RLOO) and what experts of Reward Soup use it are trained, a line"
            " per fixed direction (its weights in brackets)"
        )
    if online.any():
        trained.append(
            "online DPO is trained under drawn directions; its divergence is of the responses in"
            " pairs"
        )
    return f"""\
**Policy gradient (experiment {experiment}).** Reward v·r, divergence from the SFT policy, response
length and the share of truncated responses while {", and while ".join(trained)}.
The reward is by the reward model that is optimised; table 1 has what gold or a judge, where there
is one, says of the policies."""
