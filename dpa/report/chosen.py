"""DPA's iteration that the judge chose, beside the last: the table."""

import pandas as pd

from dpa.evaluation.bootstrap import LEVEL
from dpa.evaluation.choice import CHOICE_MEASURES
from dpa.evaluation.validation import SCORER_NAMES
from dpa.report.tables import Table

CHOSEN_HEADING = "DPA's iteration, chosen by the judge"


def chosen_lead(table: pd.DataFrame) -> str:
    """How the numbers are to be read."""
    return (
        f"On the {int(table['prompts'].iloc[0])} validation prompts that did not choose; in "
        f"brackets, {LEVEL:g} % intervals of a bootstrap over clusters of prompts, seed by seed."
    )


def chosen_table(table: pd.DataFrame) -> Table:
    """A row per seed and iteration, a column per measure and scorer."""
    columns = list(table[["measure", "by"]].drop_duplicates().itertuples(index=False, name=None))
    rows = []
    for (seed, which, iteration), group in table.groupby(
        ["seed", "which", "iteration"], sort=False
    ):
        found = group.set_index(["measure", "by"])[["value", "low", "high"]]
        cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*found.loc[column]) for column in columns]
        rows.append([str(seed), which, str(iteration), *cells])
    headings = [f"{CHOICE_MEASURES[m]} ({SCORER_NAMES[by]})" for m, by in columns]
    return Table("", "", ["seed", "iteration", "t", *headings], rows)
