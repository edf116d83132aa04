"""Three sentences on top of the report: what was run, what came out, and what to doubt.

Each is computed from the results, whatever these are: that DPA is ahead is not assumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dpa.artefacts.frames import read_csv_table
from dpa.evaluation.bootstrap import LEVEL
from dpa.evaluation.validation import SCORER_NAMES, are_outside
from dpa.registry import METHODS
from dpa.report.scorers import agreed, has_feedback, name_scorer

#: Columns of DPA's gain over all seeds, and of its interval.
POOLED = ["mean_difference", "mean_difference_low", "mean_difference_high"]


def summarise(folder: Path, config: dict, warnings: Sequence[str]) -> list[tuple[str, str]]:
    """(what, sentence) for results/<experiment>/ (`folder`).

    `warnings` say what else must be known before a number is read, each a sentence.
    """
    compared = folder / "tables/comparison.csv"
    if not compared.exists():
        found = read_csv_table(folder / "tables/reward_model.csv")
        return [
            ("Run", f"{_run(config, None)}."),
            ("Result", agreement(found)),
            ("Doubt", " ".join(warnings) or "Agreement with ratings is no policy's quality."),
        ]
    rewards = read_csv_table(folder / "evaluation/validation_rewards.csv")
    rewards = rewards[~are_outside(rewards)]
    comparison = read_csv_table(compared)
    names = [objective["name"] for objective in config["objectives"]]
    gains = {by: gains_by_iteration(rewards, names, by) for by in SCORER_NAMES}
    scorers = SCORER_NAMES | {"r": name_scorer(config)}
    doubts = list(doubted(comparison, gains, config))
    return [
        ("Run", f"{_run(config, rewards)}."),
        ("Result", "; ".join(came_out(comparison, scorers)) + "."),
        ("Doubt", " ".join([_sentence(doubts), *warnings] if doubts else warnings)),
    ]


def _run(config: dict, rewards: pd.DataFrame | None) -> str:
    seeds = config["seed"] if isinstance(config["seed"], list) else [config["seed"]]
    of = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    names = _listed([objective["name"] for objective in config["objectives"]])
    if rewards is None:
        return f"Experiment {config['experiment']}, {of}: a reward model for {names}"
    others = _listed([METHODS[name].label for name in config["methods"] if name != "dpa"])
    dpa = rewards[rewards["method"] == "dpa"]
    last = dpa["iteration"].max()
    shown = dpa[dpa["iteration"] == last]
    return (
        f"Experiment {config['experiment']}, {of}: {last:.0f} iterations of DPA for {names}"
        f"{f', beside {others}' if others else ''}, evaluated under "
        f"{shown['direction_index'].nunique()} directions"
    )


def agreement(table: pd.DataFrame) -> str:
    """How well a reward model agrees with held-out ratings."""
    found = agreed(table)
    if not len(found):
        return "No output can be compared with held-out ratings."
    least = found.loc[found["pearson"].idxmin()]
    return (
        f"Its outputs correlate with held-out ratings by {found['pearson'].median():.2f} in the "
        f"median (Pearson), least of all {least['attribute']}, {least['pearson']:.2f}."
    )


def came_out(comparison: pd.DataFrame, scorers: Mapping[str, str]) -> Iterator[str]:
    """A clause by each of the `scorers`: DPA's mean v·r against that of the best other method."""
    for by, name in scorers.items():
        rows = comparison[(comparison["measure"] == "mean_vr") & (comparison["by"] == by)]
        if not len(rows):
            continue
        best = rows[rows["method"] == rows.groupby("method")["baseline"].mean().idxmax()]
        dpa, other = best["dpa"].mean(), best["baseline"].mean()
        by_how_much, low, high = best[POOLED].iloc[0]
        sure = f"{LEVEL:g} % interval {_signed(low)} to {_signed(high)}"
        if len(best) > 1:
            sure += f", ahead on {int((best['difference'] > 0).sum())} of {len(best)} seeds"
        start = "by" if by != "r" else "By"
        yield (
            f"{start} the {name} DPA's mean v·r is {_number(dpa)}, and that of "
            f"{best['method'].iloc[0]}, the best of the others, {_number(other)} (difference "
            f"{_signed(by_how_much)}, {sure})"
        )


def gains_by_iteration(rewards: pd.DataFrame, objectives: Sequence[str], by: str) -> pd.Series:
    """Mean v·r of DPA's iterations that take directions, by a scorer; empty without it."""
    columns = [f"{by}_{name}" for name in objectives]
    if not set(columns) <= set(rewards):
        return pd.Series(dtype=float)
    rows = rewards[rewards["method"] == "dpa"].dropna(
        subset=[*columns, *(f"v_{name}" for name in objectives)]
    )
    values = sum(rows[f"v_{name}"] * rows[f"{by}_{name}"] for name in objectives)
    return rows.assign(vr=values).groupby("iteration")["vr"].mean()


def doubted(comparison: pd.DataFrame, gains: dict[str, pd.Series], config: dict) -> Iterator[str]:
    """What the results themselves give reason to doubt, clause by clause."""
    if not isinstance(config["seed"], list) or len(config["seed"]) == 1:
        yield (
            "it is one seed, and intervals over its prompts say nothing about how far another "
            "seed's results would lie from these"
        )
    for by, found in gains.items():
        if by == "r" or len(found) < 2 or found.idxmax() == found.index[-1]:
            continue
        own = gains["r"]
        # With feedback it did not select in the iterations that fell.
        exploits = (
            f", while the {name_scorer(config)} that selected saw it rise: it is being exploited"
            if own.iloc[-1] > own[found.idxmax()] and not has_feedback(config)
            else ""
        )
        yield (
            f"by the {SCORER_NAMES[by]} mean v·r is highest at t = {found.idxmax():.0f} "
            f"({_number(found.max())}) and ends at {_number(found.iloc[-1])}{exploits}"
        )
    rows = comparison[comparison["measure"] == "mean_vr"]
    _, low, high = (rows[column] for column in POOLED)
    unclear = rows[(low <= 0) & (high >= 0)]
    if unclear["method"].nunique():
        yield (
            f"the difference from {_listed(list(dict.fromkeys(unclear['method'])))} may be nothing "
            "(an interval of it contains 0)"
        )
    behind = list(dict.fromkeys(rows.loc[high < 0, "method"]))
    if behind:
        yield f"by one scorer at least DPA is behind {_listed(behind)}, beyond the interval"


def _sentence(clauses: Sequence[str]) -> str:
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
