"""Collect the judgements of all seeds into AlpacaEval's results, a row per policy and direction.

Rule: collect_alpacaeval. Example:

    python -m scripts.collect_alpacaeval --seed 0 --judged alpacaeval/judged.json \
        --sampled alpacaeval/sampled --policies sft,dpa-4 --objectives helpfulness,verbosity \
        --output alpacaeval/results.csv

Give --seed, --judged and --sampled once per seed, in the same order.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    seed: Annotated[list[int], typer.Option(help="Base seed of a run.")],
    judged: Annotated[list[Path], typer.Option(help="Its judgements.")],
    sampled: Annotated[list[Path], typer.Option(help="The folder of its samples.")],
    policies: Annotated[str, typer.Option(help="Policies in order, separated by commas.")],
    objectives: Annotated[str, typer.Option(help="Names in order, separated by commas.")],
    output: Annotated[Path, typer.Option(help="results.csv")],
) -> None:
    """Collect the judgements of all seeds into AlpacaEval's results."""
    import json

    import pandas as pd

    from dpa.artefacts.files import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.evaluation.alpacaeval import result_rows

    rows = []
    for number, results, folder in zip(seed, judged, sampled, strict=True):
        files = [folder / f"{policy}.jsonl" for policy in policies.split(",")]
        rows += result_rows(json.loads(results.read_text()), files, objectives.split(","), number)
    table = pd.DataFrame(rows).astype({"iteration": "Int64"})
    with atomic(output) as partial:
        table.to_csv(partial, index=False)
    write_sidecar(output, judged, RowCounts.none(len(table)))
    log.info("%d rows", len(table))


if __name__ == "__main__":
    run(app)
