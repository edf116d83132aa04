"""Table 1 in numbers: the properties that the paper ticks off, measured, method by method.

Each seed is a run of its own. A number is the mean over seeds, with an interval of the hierarchical
bootstrap over seeds and clusters of prompts (dpa.evaluation.bootstrap).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from dpa.evaluation.bootstrap import NAN, interval, mean_and_error, over_seeds
from dpa.evaluation.validation import SCORER_NAMES
from dpa.registry import METHODS, Method
from dpa.report.intervals import drawn_text, interval_cell, interval_columns
from dpa.report.seed_measures import MEASURE_SUFFIXES, REGRET, SeedMeasures
from dpa.report.table1_columns import BEST, BUDGET, SECTIONS, STEERABILITY
from dpa.report.tables import Table

#: Heading of the table.
TABLE1_HEADING = "Table 1"
#: Prefix of the columns that hold what the paper says.
PUBLISHED = "published_"
#: Prefix of what an output moves by when the dial turns, before its name.
TURN = "turn_"


def table1(seeds: Sequence[SeedMeasures], objectives: int, published: pd.DataFrame) -> pd.DataFrame:
    """One row per method. A measure has columns `x`, `x_low`, `x_high`, `x_se`; a cost `x`, `x_se`.

    `x_se` is the standard error of the mean over seeds alone, for those who want it plain.

    `published` is results/published/table1_method_properties.csv; its columns come with the prefix
    `published_`. A method that some seeds lack is summed up over the others (column `seeds`).
    """
    rows = []
    properties = published.set_index("method")
    for method, entry in in_order_of(properties.index):
        having = [seed for seed in seeds if method in seed.measures]
        if not having:
            continue
        row = {
            "method": entry.label,
            "seeds": len(having),
            "objectives_conditioned": {"all": objectives, "one": 1, "none": 0}[entry.objectives],
        }
        for name in having[0].measures[method]:
            row |= _summary(name, np.array([seed.measures[method][name] for seed in having]))
        for name in having[0].costs[method]:
            value, error = mean_and_error([seed.costs[method][name] for seed in having])
            row |= {name: value, f"{name}_se": error}
        if entry.paper_name in properties.index:
            row |= properties.loc[entry.paper_name].add_prefix(PUBLISHED).to_dict()
        rows.append(row)
    return pd.DataFrame(rows)


def in_order_of(published: Iterable[str]) -> list[tuple[str, Method]]:
    """All methods: those of the paper's table in its order, then the others."""
    place = {name: number for number, name in enumerate(published)}
    return sorted(METHODS.items(), key=lambda item: place.get(str(item[1].paper_name), len(place)))


def _summary(name: str, replicates: np.ndarray) -> dict[str, float]:
    """Columns of a measure, from (seeds, replicates)."""
    _, error = mean_and_error(replicates[:, 0].tolist())
    return interval_columns(name, interval(over_seeds(replicates))) | {f"{name}_se": error}


# --- For readers -----------------------------------------------------------------------------


def table1_lead(seeds: Sequence[SeedMeasures]) -> str:
    """How the numbers of table 1 are to be read."""
    return (
        f"{'Means over seeds' if len(seeds) > 1 else 'Seed'} {drawn_text(seeds)} Where a column "
        "names no scorer, rewards are the reward model's: the first one's where iterations of DPA "
        "have their own (feedback), means where there are several members."
    )


def table1_tables(table: pd.DataFrame) -> list[Table]:
    """Table 1 in parts with what their columns mean."""
    found = []
    for title, meaning, columns in SECTIONS:
        present = [column for column in columns if column[0] in table]
        if not present:
            continue
        published = [c for c in table if c.startswith(PUBLISHED)] if title == "Properties" else []
        header = ["method", *(heading for _, heading, _, _ in present)]
        against = _against_dpa(table) if title == BUDGET else None
        header += ["against DPA"] if against else []
        header += ["paper: " + c.removeprefix(PUBLISHED).replace("_", " ") for c in published]
        rows = [
            [
                row["method"],
                *(interval_cell(row, name, form, unit) for name, _, form, unit in present),
                *([against[row["method"]]] if against else []),
                *("–" if pd.isna(row[name]) else row[name] for name in published),
            ]
            for row in table.to_dict("records")
        ]
        best = {
            place: BEST[measure]
            for place, (name, *_) in enumerate(present, start=1)
            if (measure := name.removesuffix("_judge").removesuffix("_gold")) in BEST
        }
        found.append(Table(title, meaning, header, rows, best=best))
        if title == "Rewards":
            found += _regret_tables(table)
        if title == STEERABILITY:
            found[-1] = found[-1]._replace(note=f"{meaning}{_standards(table)}")
            found += _turn_table(table)
    return found


def _standards(table: pd.DataFrame) -> str:
    """By what rewards are standardised, as a sentence."""
    prefix = "standard_mean_"
    first = table.iloc[0]
    parts = [
        f"{name.removeprefix(prefix).replace('_', ' ')} {first[name]:.2f} and "
        f"{first[name.replace('_mean_', '_sd_', 1)]:.2f}"
        for name in table
        if name.startswith(prefix) and not name.endswith(("_low", "_high", "_se"))
    ]
    return f" Means and deviations are {', '.join(parts)}." if parts else ""


def _turn_table(table: pd.DataFrame) -> Iterator[Table]:
    """How every output of the reward model moves when the dial turns."""
    names = [c for c in table if c.startswith(TURN) and not c.endswith(("_low", "_high", "_se"))]
    steered = table[table[names].notna().any(axis=1)].to_dict("records") if names else []
    if steered:
        yield Table(
            "Outputs when the dial turns",
            "What each output of the reward model gains from the first evaluated direction to the "
            "last, in points.",
            ["output", *(row["method"] for row in steered)],
            [
                [name.removeprefix(TURN), *(interval_cell(row, name, "+.2f", 1) for row in steered)]
                for name in names
            ],
        )


def _against_dpa(table: pd.DataFrame) -> dict[str, str]:
    """For each method by how much its budget differs from DPA's."""
    budgets = table.set_index("method")[["iterations", "responses_sampled", "labels"]]
    dpa = budgets.loc[METHODS["dpa"].label]
    found = {}
    for method, own in budgets.iterrows():
        parts = []
        if (more := own["iterations"] - dpa["iterations"]) and not np.isnan(more):
            parts.append(f"{more:+g} iterations")
        for column, noun in (("responses_sampled", "responses"), ("labels", "labels")):
            share = own[column] / dpa[column] - 1 if dpa[column] else NAN
            if not np.isnan(share) and round(100 * share):
                parts.append(f"{100 * share:+.0f} % {noun}")
        known = "equal" if own[["responses_sampled", "labels"]].notna().all() else "–"
        found[str(method)] = ", ".join(parts).replace("-", "−") or known
    return found


def _regret_tables(table: pd.DataFrame) -> Iterator[Table]:
    """The regret of every method, direction by direction and by each scorer."""
    names = SCORER_NAMES | {"gold": "gold"}
    for by, suffix in MEASURE_SUFFIXES.items():
        ends = (
            "_low",
            "_high",
            "_se",
            *(s for s in MEASURE_SUFFIXES.values() if s != suffix and s),
        )
        regrets = [
            name
            for name in table
            if name.startswith(REGRET) and name.endswith(suffix) and not name.endswith(ends)
        ]
        rows = []
        for name in regrets:
            weights = name.removeprefix(REGRET).removesuffix(suffix).split("_")
            cells = (f"{regret:.2f}" for regret in table[name])
            rows.append([f"({', '.join(f'{float(v):.2f}' for v in weights)})", *cells])
        if rows:
            yield Table(
                f"Regret by direction, {names[by]}",
                "What a method's v·r falls short of the highest in this direction of all methods "
                "in the table, each at its most favourable point. How sure it is says table1.csv.",
                ["direction", *table["method"]],
                rows,
            )
