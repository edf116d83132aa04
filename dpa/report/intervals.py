"""Numbers with their intervals, in the columns of a table and in its cells."""

from collections.abc import Sequence

import numpy as np

from dpa.evaluation.bootstrap import LEVEL, NAN, ONE_SEED, Interval
from dpa.report.seed_measures import SeedMeasures


def interval_columns(name: str, found: Interval) -> dict[str, float]:
    """Columns of a number and the ends of its interval."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def interval_cell(row: dict, name: str, form: str, unit: float) -> str:
    """`value`, `value [low, high]` or `value ± se`; a dash where there is none."""
    value, low, high, error = (
        row.get(name + end, NAN) / unit for end in ("", "_low", "_high", "_se")
    )
    if np.isnan(value):
        return "–"
    if not np.isnan(low):
        return f"{value:{form}} [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}" if np.isnan(error) else f"{value:{form}} ± {error:{form}}"


def drawn_text(seeds: Sequence[SeedMeasures]) -> str:
    """Seeds, prompts, and what intervals are over."""
    numbers = ", ".join(str(seed.seed) for seed in seeds)
    prompts = f"{seeds[0].prompts} prompts in {len(seeds[0].clusters)} clusters"
    paired = f"in brackets, {LEVEL:g} % intervals of a bootstrap, paired across methods, over"
    if len(seeds) > 1:
        return f"{numbers}; {prompts}; {paired} seeds and clusters."
    return f"{numbers}; {prompts}; {paired} clusters. {ONE_SEED}"
