"""The tables of docs/methods.md on all methods over seeds, from the tables of a finished run.

    python -m benchmarks.comparison_tables results/quickstart-comparison/tables

prints two Markdown tables: on how many seeds DPA's last iteration is better than a method, with the
probability of improvement, and the methods' means over seeds ± standard errors. docs/comparison.md
is comparison.md and table1.md of the same folder, behind its first paragraph.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from dpa.artefacts.frames import read_csv_table
from dpa.report.comparison import COMPARED
from dpa.report.tables import markdown_text
from dpa.runtime.cli import make_app, run_app

#: Measures by whom: column of comparison.csv -> what a heading adds.
BY = {"r": "", "gold": " (gold)"}
#: What is compared in docs/methods.md; the rest stands in docs/comparison.md.
MEASURES = ("hypervolume", "mean_vr", "worst_regret")
#: Columns of the means: column of table1.csv -> heading, decimals.
MEANS = {
    "hypervolume": ("hypervolume", 1),
    "mean_vr": ("mean v·r", 1),
    "worst_regret": ("worst regret", 1),
    "dominated_by_dpa": ("dominated by DPA", 2),
}

app = make_app()


@app.command()
def main(tables: Annotated[Path, typer.Argument(help="Folder of comparison.csv.")]) -> None:
    """Print the tables of docs/methods.md on all methods over seeds."""
    needed = {"method", "measure", "by", "wins", "seeds", "probability"}
    comparison = read_csv_table(tables / "comparison.csv", "rerun make_table1", needed)
    table1 = read_csv_table(tables / "table1.csv", "rerun make_table1", {"method", "mean_vr"})
    print(seeds_won(comparison), means(table1), sep="\n\n")


def seeds_won(comparison: pd.DataFrame) -> str:
    """A row per method: on how many seeds DPA is better, and the probability of improvement."""
    columns = [(measure, by) for measure in MEASURES for by in BY]
    lines = [["against", *(f"{COMPARED[measure]}{BY[by]}" for measure, by in columns)]]
    for method, rows in comparison.groupby("method", sort=False):
        first = rows.groupby(["measure", "by"]).first()
        cells = [
            f"{first.loc[key, 'wins']} of {first.loc[key, 'seeds']}, "
            f"{first.loc[key, 'probability']:.2f}"
            if key in first.index
            else "–"
            for key in columns
        ]
        lines.append([str(method), *cells])
    return markdown_rows(lines)


def means(table1: pd.DataFrame) -> str:
    """A row per method: means over seeds ± standard errors."""
    columns = [
        (f"{name}{suffix}", f"{heading}{BY[by]}", decimals)
        for name, (heading, decimals) in MEANS.items()
        for by, suffix in (("r", ""), ("gold", "_gold"))
    ]
    lines = [["method", *(heading for _, heading, _ in columns)]]
    for row in table1.to_dict("records"):
        cells = [mean_with_error(row, name, decimals) for name, _, decimals in columns]
        lines.append([row["method"], *cells])
    return markdown_rows(lines)


def mean_with_error(row: dict, name: str, decimals: int) -> str:
    """`value ± error`; the value alone of one seed, a dash where there is none."""
    value, error = row.get(name), row.get(f"{name}_se")
    if value is None or pd.isna(value):
        return "–"
    return f"{value:.{decimals}f}" + ("" if pd.isna(error) else f" ± {error:.{decimals}f}")


def markdown_rows(lines: list[list[str]]) -> str:
    """The first line is the header."""
    header, *rows = [f"| {' | '.join(map(markdown_text, line))} |" for line in lines]
    return "\n".join([header, "|---" * len(lines[0]) + "|", *rows])


if __name__ == "__main__":
    run_app(app)
