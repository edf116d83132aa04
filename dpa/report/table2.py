"""Table 2: RewardBench generations against a reference policy, ours beside the paper's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpa.artefacts.frames import read_csv_table
from dpa.registry import METHODS
from dpa.report.figures.style import text_of_direction
from dpa.report.tables import Table

TABLE2_HEADING = "Table 2"
ACCURACY_HEADING = "RewardBench accuracy of the reward model"
#: Averages: level in win_rates.csv -> heading.
AVERAGES = {"average_macro": "mean over subsets", "average_weighted": "mean over prompts"}
RATE_KEY = ["method", "iteration", "direction_index", "reference", "level", "name"]
#: The name of an average over everything; the others are of a section.
OVERALL = "all"
TABLE2_OBJECTIVES = ["helpfulness", "verbosity", "harmlessness"]
NOTE = "Win rate in percent against the reference policy, ties counted half, ± standard error."
PAPER_NOTE = "The paper's rows are Gemma-2B, DPA at t = 3 against DPO; it gives no averages."
#: What the paper's rows are.
PAPER_POLICY = {"method": "dpa", "iteration": 3, "reference": "dpo"}


def read_win_rates(path: Path) -> pd.DataFrame:
    """rewardbench/win_rates.csv. Raises InputError when it is missing or lacks a column."""
    needed = {*RATE_KEY, "seed", "n", "win_rate", "standard_error"}
    return read_csv_table(path, "rerun collect_rewardbench", needed, dtype={"iteration": "Int64"})


def table2(rates: pd.DataFrame, published: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """One row per policy, direction, and subset, section or average; `source` is ours or paper.

    With several seeds the win rate is their mean and `standard_error` that of the mean.
    """
    weights = [f"v_{name}" for name in objectives]
    rows = []
    for key, seeds in rates.groupby(RATE_KEY, dropna=False, sort=False):
        mean, error = _over_seeds(seeds, "win_rate")
        rows.append(
            {
                "source": "ours", **dict(zip(RATE_KEY, key, strict=True)),
                **{name: seeds[name].iloc[0] for name in weights if name in seeds},
                "n": seeds["n"].iloc[0], "win_rate": mean, "standard_error": error,
                "seeds": len(seeds),
            }
        )  # fmt: skip
    names = {section_key(name): name for name in rates.loc[rates["level"] == "section", "name"]}
    sections = [column for column in published if not column.startswith("v_")]
    for index, row in enumerate(published.iloc[::-1].to_dict("records")):
        rows += [
            {
                "source": "paper", **PAPER_POLICY, "direction_index": index, "level": "section",
                "name": names.get(section, section.replace("_", " ").title()),
                **{name: row[name] for name in row if name.startswith("v_")},
                "win_rate": row[section],
            }
            for section in sections
        ]  # fmt: skip
    return pd.DataFrame(rows).astype({"iteration": "Int64", "n": "Int64", "seeds": "Int64"})


def _over_seeds(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Mean over seeds, a row each, and its standard error: that of the row where there is one."""
    if len(rows) == 1:
        return rows[column].iloc[0], rows["standard_error"].iloc[0]
    return rows[column].mean(), rows[column].std(ddof=1) / np.sqrt(len(rows))


def section_key(name: str) -> str:
    """`Chat Hard` and `chat_hard` are the same section."""
    return name.lower().replace(" ", "_")


def table2_tables(table: pd.DataFrame, objectives: Sequence[str]) -> list[Table]:
    """Win rates by section and both averages, a row per policy and direction.

    Where the objectives are the paper's three, its row of a direction is below ours; elsewhere its
    rows are a table of their own.
    """
    shown = table[table["level"] != "subset"]
    if sorted(objectives) == sorted(TABLE2_OBJECTIVES):
        return [_table("", f"{NOTE} {PAPER_NOTE}", shown, objectives)]
    ours, paper = (shown[shown["source"] == source] for source in ("ours", "paper"))
    return [
        _table("Ours", NOTE, ours, objectives),
        _table("The paper's", PAPER_NOTE, paper, TABLE2_OBJECTIVES),
    ]


def _table(title: str, note: str, shown: pd.DataFrame, objectives: Sequence[str]) -> Table:
    sections = shown.loc[shown["level"] == "section", "name"].unique()
    columns: list[tuple] = [("section", name, name) for name in sections]
    columns += [
        (level, OVERALL, heading)
        for level, heading in AVERAGES.items()
        if (shown["level"] == level).any()
    ]
    weights = [f"v_{name}" for name in objectives]
    rows = []
    for policy, own in shown.groupby(
        ["source", "method", "iteration", "direction_index"], dropna=False, sort=False
    ):
        v = own.reindex(columns=weights).iloc[0].fillna(0.0)
        rows.append((_place(policy, v), _cells(policy, own, v, columns)))
    rows.sort(key=lambda row: row[0])
    header = ["policy", f"direction ({', '.join(objectives)})", *(h for *_, h in columns)]
    best = dict.fromkeys(range(2, len(header)), max)
    return Table(title, note, header, [cells for _, cells in rows], best=best)


def _place(policy: tuple, v: pd.Series) -> tuple:
    """Sorts steered policies by direction, helpfulness alone first, and ours before the paper's."""
    source, _, _, index = policy
    return (index < 0, [-round(float(x), 2) for x in v], source == "paper")


def _cells(policy: tuple, own: pd.DataFrame, v: pd.Series, columns: Sequence[tuple]) -> list[str]:
    source, method, iteration, index = policy
    label = METHODS[method].label + ("" if pd.isna(iteration) else f" t={iteration}")
    cells = [
        f"paper: {label}" if source == "paper" else label,
        text_of_direction(v) if index >= 0 else "–",
    ]
    for level, name, _ in columns:
        rows = own[(own["level"] == level) & (own["name"] == name)]
        cells.append(_rate(rows.iloc[0]) if len(rows) else "–")
    return cells


def _rate(row: pd.Series) -> str:
    error = row["standard_error"]
    return f"{row['win_rate']:.1f}" + ("" if pd.isna(error) else f" ± {error:.1f}")


def accuracy_tables(accuracy: pd.DataFrame, whose: str = "") -> list[Table]:
    """The reward model's accuracy under each objective, by section and both averages; `whose` is a
    sentence on which model of several it is."""
    averaged = accuracy["level"].isin(list(AVERAGES)) & (accuracy["name"] == OVERALL)
    shown = accuracy[averaged | (accuracy["level"] == "section")]
    columns = list(shown[["level", "name"]].drop_duplicates().itertuples(index=False, name=None))
    rows = []
    for objective, own in shown.groupby("objective", sort=False):
        seeds = own.set_index(["level", "name"]).sort_index()
        cells = (_over_seeds(seeds.loc[[column]], "accuracy") for column in columns)
        rows.append([str(objective), *(f"{mean:.1f} ± {error:.1f}" for mean, error in cells)])
    header = ["objective", *(AVERAGES.get(level, name) for level, name in columns)]
    note = (
        "Share of pairs whose chosen response is scored above the rejected one, in percent, "
        "± standard error."
    )
    return [Table("", f"{note}{whose}", header, rows)]


def table2_lead(rates: pd.DataFrame, experiment: str, world: bool) -> str:
    reference = ", ".join(METHODS[name].label for name in rates["reference"].unique())
    n = int(rates.loc[rates["level"] == "average_weighted", "n"].max())
    seeds = rates["seed"].nunique()
    of = "the quickstart's own benchmark, shaped like RewardBench" if world else "RewardBench"
    means = f", means over {seeds} seeds" if seeds > 1 else ""
    return f"Experiment {experiment}: {n} prompts of {of}{means}; the reference is {reference}."
