"""The training curves of what samples as it trains: the PPO row and online DPO."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dpa.report.figures.style import page_width

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
    for panel, (column, label) in zip(axes.flat, HISTORY_PANELS.items(), strict=True):
        for name, history in marks.groupby("direction", sort=False):
            panel.plot(history["step"], history[column], label=name)
        panel.set_ylabel(label)
    for panel in axes[1]:
        panel.set_xlabel("optimiser step")
    axes[0, 0].legend(title="direction (hundredths), or method")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def policy_gradient_caption(experiment: str) -> str:
    return f"""\
**Policy gradient (experiment {experiment}).** Reward v·r, divergence from the SFT policy and
response length while the PPO row (TRL's RLOO) and the experts of Reward Soup that use it are
trained, a line per fixed direction, and while online DPO is, under drawn directions; its divergence
is of the responses in pairs. The reward is by the reward model that is optimised; table 1 has what
gold or a judge, where there is one, says of the policies."""
