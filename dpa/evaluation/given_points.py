"""Points of methods that are not ours: a user's own file for figure 4."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpa.artefacts.frames import read_csv_table, read_parquet_table
from dpa.errors import InputError
from dpa.evaluation.validation import SCORER_NAMES

#: What a user is to look at.
POINTS_REMEDY = "docs/outputs.md says what such a file holds"


def read_given_points(path: Path, objectives: Sequence[str]) -> pd.DataFrame:
    """The points of a method, a row each, in the order in which a curve joins them.

    Of the columns of validation_rewards.csv it needs r_<objective>, mean rewards on 0-100, for each
    objective; it may have judge_*, gold_*, and the directions v_*. Others are left out. Raises
    InputError when the file is no such table, or holds several policies.
    """
    needed = _columns("r", objectives)
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: is neither .csv nor .parquet; {POINTS_REMEDY}")
    read = read_parquet_table if path.suffix == ".parquet" else read_csv_table
    table = read(path, POINTS_REMEDY, needed)
    if not len(table):
        raise InputError(f"{path}: has no row; {POINTS_REMEDY}")
    for column in {"method", "iteration", "seed"} & set(table):
        if len(several := table[column].unique()) > 1:
            raise InputError(
                f"{path}: {column} is {several[0]} and {several[1]}, and a file is one policy's: "
                "make a file for each"
            )
    shown = list(needed)
    for prefix in [*SCORER_NAMES, "v"]:
        columns = _columns(prefix, objectives)
        if prefix != "r" and set(columns) <= set(table) and table[columns].notna().any(axis=None):
            shown += columns
    for column in shown:
        numbers = pd.to_numeric(table[column], errors="coerce")
        if len(bad := np.flatnonzero(~np.isfinite(numbers.astype(float)))):
            value = table[column].iloc[bad[0]]
            what = "empty" if pd.isna(value) else f"{value!s:.50}, no number"
            raise InputError(f"{path}: row {bad[0] + 1}: {column} is {what}; {POINTS_REMEDY}")
        table[column] = numbers.astype(float)
    return table[shown]


def _columns(prefix: str, objectives: Sequence[str]) -> list[str]:
    return [f"{prefix}_{name}" for name in objectives]
