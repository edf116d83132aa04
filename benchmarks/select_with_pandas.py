"""Best of n with pandas: the other side of measure_selection.

python -m benchmarks.select_with_pandas SHARD... OUTPUT
"""

import json
import sys

import pandas as pd


def main(*paths: str) -> None:
    """Read all shards, take each direction's best by v.r, and write what was chosen as JSON."""
    *shards, output = paths
    table = pd.concat(
        [pd.read_json(path, lines=True, dtype=False, precise_float=True) for path in shards]
    )
    weights, rewards = table["direction"].to_list(), table["rewards"].to_list()
    table["scalar"] = [sum(a * b for a, b in zip(v, r)) for v, r in zip(weights, rewards)]  # noqa: B905
    table = table.sort_values("sample_index", kind="stable")
    table = table.reset_index(drop=True)
    groups = table.groupby(["prompt_id", "direction_index"])
    best = table.loc[groups["scalar"].idxmax()]
    columns = best[["prompt_id", "direction", "response", "rewards"]]
    with open(output, "w") as file:
        json.dump(columns.to_numpy().tolist(), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
