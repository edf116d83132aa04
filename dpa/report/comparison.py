"""DPA's last iteration against each other method: by how much, how surely, on how many seeds."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from dpa.evaluation.bootstrap import draw_clusters, improvements, interval, over_seeds
from dpa.evaluation.validation import SCORER_NAMES
from dpa.registry import METHODS
from dpa.report.intervals import drawn_text, interval_cell, interval_columns
from dpa.report.seed_measures import MEASURE_SUFFIXES, SeedMeasures
from dpa.report.tables import Table

#: Heading of the table.
COMPARISON_HEADING = "DPA's last iteration against the other methods"
#: What DPA and the baselines are compared by.
COMPARED = {
    "hypervolume": "hypervolume",
    "mean_vr": "mean v·r",
    "mean_inner_product": "standardised mean v·r",
    "worst_regret": "worst direction's regret",
}
#: Of these less is better.
LESS_IS_BETTER = ("worst_regret",)
#: Columns of comparison.csv.
COMPARISON_COLUMNS = [
    "method", "measure", "by", "seed", "dpa", "baseline", "difference", "low", "high", "wins",
    "seeds", "mean_difference", "mean_difference_low", "mean_difference_high", "probability",
    "probability_low", "probability_high",
]  # fmt: skip


def comparison(seeds: Sequence[SeedMeasures]) -> pd.DataFrame:
    """DPA's last iteration against each other method: a row per method, measure, scorer and seed.

    `difference` is DPA minus the method, with its interval over clusters; `wins` counts the seeds,
    of `seeds`, on which DPA is better. `mean_difference` and `probability` (of improvement) are
    over all seeds, with intervals of the bootstrap over seeds and clusters, in each of their rows.
    Hypervolume is compared where both can be steered.
    """
    rows = [
        {"method": entry.label, "measure": measure, "by": by, **gain}
        for method, entry in METHODS.items()
        if method != "dpa"
        for measure in COMPARED
        for by, suffix in MEASURE_SUFFIXES.items()
        for gain in _gains(seeds, method, f"{measure}{suffix}", measure in LESS_IS_BETTER)
    ]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _gains(
    seeds: Sequence[SeedMeasures], method: str, name: str, less_is_better: bool
) -> Iterator[dict[str, float]]:
    """What DPA has over a method, seed by seed; nothing where there is nothing to compare."""
    having = [seed for seed in seeds if _is_known(seed.measures.get(method, {}).get(name))]
    if not having:
        return
    sign = -1 if less_is_better else 1
    dpa, theirs = (np.array([seed.measures[m][name] for seed in having]) for m in ("dpa", method))
    gains = dpa - theirs
    draws = draw_clusters([seed.clusters for seed in having])
    ours_alone, theirs_alone = (_by_cluster(having, m, name, draws.names) for m in ("dpa", method))
    probability = interval(improvements(sign * ours_alone, sign * theirs_alone, draws))
    pooled = interval_columns("mean_difference", interval(over_seeds(gains)))
    pooled |= interval_columns("probability", probability)
    for seed, ours, baseline, gain in zip(having, dpa, theirs, gains, strict=True):
        yield {
            "seed": seed.seed,
            "dpa": float(ours[0]),
            "baseline": float(baseline[0]),
            **dict(zip(("difference", "low", "high"), interval(gain), strict=True)),
            "wins": int((sign * gains[:, 0] > 0).sum()),
            "seeds": len(having),
            **pooled,
        }


def _is_known(replicates: np.ndarray | None) -> bool:
    return replicates is not None and not np.isnan(replicates[0])


def _by_cluster(
    seeds: Sequence[SeedMeasures], method: str, name: str, clusters: Sequence[str]
) -> np.ndarray:
    """(seeds, clusters) a measure on each cluster, NaN where a seed lacks it."""
    found = [pd.Series(seed.by_cluster[method][name], seed.clusters) for seed in seeds]
    return np.array([values.reindex(clusters) for values in found])


def comparison_lead(seeds: Sequence[SeedMeasures]) -> str:
    """How the numbers of the comparison are to be read."""
    return (
        f"{'Seeds in order:' if len(seeds) > 1 else 'Seed'} {drawn_text(seeds)} The probability "
        "of improvement is that of a run of DPA to be better than one of the method on a cluster, "
        "all drawn at random (Agarwal et al., arXiv 2108.13264); 0.5 is no difference."
    )


def comparison_tables(table: pd.DataFrame) -> list[Table]:
    """The comparison as one table: by how much DPA wins, how probably, and on how many seeds."""
    names = SCORER_NAMES | {"gold": "gold"}
    rows = []
    for (method, measure, by), group in table.groupby(["method", "measure", "by"], sort=False):
        first = group.iloc[0].to_dict()
        rows.append(
            [
                method,
                COMPARED[measure],
                names[by],
                interval_cell(first, "mean_difference", "+.2f", 1),
                interval_cell(first, "probability", ".2f", 1),
                f"{first['wins']} of {first['seeds']}",
                ", ".join(f"{difference:+.2f}" for difference in group["difference"]),
            ]
        )
    header = ["against", "measure", "by", "DPA minus method", "probability of improvement"]
    return [Table("", "", [*header, "seeds won", "seed by seed"], rows)]
