"""What is gained against how far a policy has moved for it (Gao et al., 2022, arXiv 2210.10760).

A mark is a row: DPA's iteration t (or the SFT policy, at 0) of a variant, by one scorer: the
divergence `kl` from the SFT policy in nats per response, and the mean of v.r over prompts and
evaluated directions. Values are means over seeds; `_low` and `_high` are the ends of their
intervals, of the bootstrap over seeds and clusters of prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpa.artefacts.frames import read_parquet_table
from dpa.errors import InputError
from dpa.evaluation.bootstrap import (
    LEVEL,
    ONE_SEED,
    DrawnPrompts,
    draw_prompts,
    interval,
    over_seeds,
    policy_points,
    read_prompt_rewards,
)
from dpa.evaluation.validation import SELECTOR
from dpa.registry import policy_name
from dpa.report.figures.style import SCORERS, page_width

#: The colour of each scorer's curve; of variants matplotlib's own.
SCORER_COLOURS = {"selector": "#CC79A7", "r": "#D55E00", "judge": "#0072B2", "gold": "#009E73"}
#: What a curve shows: a scorer, or what each iteration's selection maximised.
NAMED = {"selector": "as selection maximised it", **SCORERS}


class MeasuredRun(NamedTuple):
    """One seed: its prompt rewards, the divergence of each iteration, and where they are from."""

    rewards: pd.DataFrame
    divergences: dict[int, pd.DataFrame]
    files: list[Path]


def read_measured_run(folder: Path, objectives: Sequence[str]) -> MeasuredRun:
    """A finished run, by its folder. Raises InputError when something of it is missing."""
    files = [folder / "evaluation/prompt_rewards.parquet"]
    rewards = read_prompt_rewards(files[0], objectives)
    iterations = rewards.loc[rewards["method"] == "dpa", "iteration"].unique()
    divergences = {}
    for t in sorted(int(t) for t in iterations if t > 0):
        path = folder / f"evaluation/divergence/{policy_name('dpa', t)}.parquet"
        needed = {"prompt_id", "direction_index", "policy_logprob", "reference_logprob"}
        measured = read_parquet_table(path, "rerun measure_divergence", needed)
        # Not of directions outside of the trained ones.
        shown = rewards.loc[rewards["iteration"] == t, "direction_index"].unique()
        divergences[t] = measured[measured["direction_index"].isin(shown)]
        files.append(path)
    if not divergences:
        raise InputError(f"{files[0]}: has no iteration of DPA; give a run that has")
    return MeasuredRun(rewards, divergences, files)


# --- The table of marks ----------------------------------------------------------------------


class _Point(NamedTuple):
    """Replicates of a policy in one seed by one scorer."""

    kl: np.ndarray
    reward: np.ndarray


def overoptimisation_marks(
    variants: Mapping[str, Sequence[MeasuredRun]], objectives: Sequence[str]
) -> pd.DataFrame:
    """All marks of variants, each the runs of its seeds."""
    rows: list[dict] = []
    for variant, runs in variants.items():
        drawn = draw_prompts([_measured_rewards(run) for run in runs])
        seeds = [dict(_points(*pair, objectives)) for pair in zip(runs, drawn, strict=True)]
        for by, t in dict.fromkeys(key for seed in seeds for key in seed):
            found = [seed[by, t] for seed in seeds if (by, t) in seed]
            kl = interval(over_seeds(np.array([point.kl for point in found])))
            reward = interval(over_seeds(np.array([point.reward for point in found])))
            rows.append(
                {
                    "variant": variant, "by": by, "method": "dpa" if t else "sft", "iteration": t,
                    "kl": kl.value, "kl_low": kl.low, "kl_high": kl.high,
                    "reward": reward.value, "reward_low": reward.low, "reward_high": reward.high,
                    "seeds": len(found),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _measured_rewards(run: MeasuredRun) -> pd.DataFrame:
    """The rewards of prompts whose responses' divergence was measured in each iteration."""
    measured = set.intersection(*(set(found["prompt_id"]) for found in run.divergences.values()))
    return run.rewards[run.rewards["prompt_id"].isin(measured)]


def _points(
    run: MeasuredRun, drawn: DrawnPrompts, objectives: Sequence[str]
) -> Iterator[tuple[tuple[str, int], _Point]]:
    """The points of a seed by scorer and iteration, the SFT policy (if it was evaluated) as 0."""
    table, prompts, _, weights = drawn

    def of_prompts(values: np.ndarray) -> np.ndarray:
        return weights @ values / weights.sum(axis=1)

    kl = {
        t: of_prompts(
            (measured["policy_logprob"] - measured["reference_logprob"])
            .groupby(measured["prompt_id"])
            .mean()
            .loc[prompts]
            .to_numpy()
        )
        for t, measured in run.divergences.items()
    }
    if SELECTOR in table:
        for t in kl:
            found = table[(table["method"] == "dpa") & (table["iteration"] == t)]
            maximised = found.groupby("prompt_id")[SELECTOR].mean().loc[prompts]
            yield ("selector", t), _Point(kl[t], of_prompts(maximised.to_numpy()))
    for by in SCORERS:
        if not table.get(f"{by}_{objectives[0]}", pd.Series(dtype=float)).notna().any():
            continue
        steered = {t: policy_points(table, "dpa", t, objectives, by, prompts) for t in kl}
        directions = next(iter(steered.values())).directions
        assert directions is not None  # iterations from 1 on take directions
        if (table["method"] == "sft").any():
            own = policy_points(table, "sft", None, objectives, by, prompts).rewards
            reward = of_prompts((own @ directions.T).mean((1, 2)))
            yield (by, 0), _Point(np.zeros(len(reward)), reward)
        for t, points in steered.items():
            gained = (points.rewards * points.directions).sum(2).mean(1)
            yield (by, t), _Point(kl[t], of_prompts(gained))


# --- The drawing -----------------------------------------------------------------------------


def draw_overoptimisation(marks: pd.DataFrame, title: str) -> Figure:
    """Of one variant a curve for each scorer; of several a panel for each, a curve per variant.

    The SFT policy is in the table only: it is so far below that iterations would lie together.
    """
    marks = marks[marks["iteration"] > 0]
    variants, scorers = list(dict.fromkeys(marks["variant"])), list(dict.fromkeys(marks["by"]))
    panels = len(scorers) if len(variants) > 1 else 1
    figure, axes = plt.subplots(
        1,
        panels,
        figsize=(page_width(), 3.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for (by, variant), curve in marks.groupby(["by", "variant"], sort=False):
        if panels == 1:
            _draw_curve(axes[0, 0], curve, NAMED[str(by)], SCORER_COLOURS[str(by)])
            continue
        panel = axes[0, scorers.index(by)]
        panel.set_title(NAMED[str(by)])
        _draw_curve(panel, curve, str(variant), f"C{variants.index(variant)}")
    for panel in axes[0]:
        panel.set_xlabel("KL from the SFT policy (nats per response)")
    axes[0, 0].set_ylabel("mean v·r (points)")
    # A variant need not have every scorer, so no panel has all of them.
    drawn = [panel.get_legend_handles_labels() for panel in axes[0]]
    named = {name: line for lines, names in drawn for line, name in zip(lines, names, strict=True)}
    figure.legend([*named.values()], [*named], loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_curve(axes: Axes, curve: pd.DataFrame, label: str, colour: Any) -> None:
    curve = curve.sort_values("iteration")
    axes.plot(curve["kl"], curve["reward"], "o-", color=colour, label=label, alpha=0.8, zorder=3)
    ends: dict[str, Any] = {
        side: [curve[mark] - curve[f"{mark}_low"], curve[f"{mark}_high"] - curve[mark]]
        for side, mark in (("xerr", "kl"), ("yerr", "reward"))
    }
    axes.errorbar(
        curve["kl"], curve["reward"], **ends, fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.5,
        zorder=2,
    )  # fmt: skip
    for row in curve.itertuples():
        axes.annotate(
            f"t={row.iteration}", (row.kl, row.reward), xytext=(3, 4), textcoords="offset points",
            fontsize=6.5, color=colour,
        )  # fmt: skip


def overoptimisation_caption(marks: pd.DataFrame, experiment: str) -> str:
    """What was measured, and how to read it."""
    seeds = int(marks["seeds"].max())
    over = "clusters of prompts" if seeds == 1 else f"{seeds} seeds and clusters of prompts"
    missing = f" {ONE_SEED}" if seeds == 1 else ""
    reading = (
        "What selection\nmaximised is v·r by an iteration's own reward model, or the pessimistic "
        "value of several: another\nmeasure in each iteration, of which counts by how much it lies "
        "above a scorer that never selects.\n“By the reward model” is by the first one, or by the "
        "mean of several."
        if (marks["by"] == "selector").any()
        else "Where a curve by the reward model rises\nand one by a scorer that never selects "
        "falls, the policy exploits the reward model."
    )
    curves = "scorer" if marks["variant"].nunique() == 1 else "variant, by each scorer"
    return f"""\
**Over-optimisation (experiment {experiment}).** Mean v·r on validation prompts under the evaluated
directions, against how far the policy has moved: KL(π_t(· | x, v) ‖ π_SFT(· | x)), the mean over
the same responses of the difference of their log-probabilities under DPA's iteration t, asked with
the direction, and under the SFT policy, asked without, both at the temperature that they were
sampled at. A curve for each {curves}; a point for each iteration t (the SFT
policy, at 0, is in the CSV). {reading} Bars are
{LEVEL:g} % intervals of a bootstrap over {over}.{missing}"""
