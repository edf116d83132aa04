"""Collect the judgements of all seeds into AlpacaEval's results, a row per policy and direction.

Rule: collect_alpacaeval. Example:

    python -m scripts.collect_alpacaeval --seed 0 --judged alpacaeval/judged.json \
        --samples-dir alpacaeval/sampled --policies sft,dpa-4 \
        --objective-names helpfulness,verbosity --output alpacaeval/results.csv

Give --seed, --judged and --samples-dir once per seed, in the same order.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import ObjectiveNamesOption, OutputOption, SeedsOption

app = make_app()


@app.command()
def main(
    seed: SeedsOption,
    judged: Annotated[list[Path], typer.Option(help="Judgements of a run, a seed each.")],
    samples_dir: Annotated[
        list[Path], typer.Option(help="Folder of a run's samples, a seed each.")
    ],
    policies: Annotated[str, typer.Option(help="Policies in order, by commas.")],
    objective_names: ObjectiveNamesOption,
    output: OutputOption,
) -> None:
    """Collect the judgements of all seeds into AlpacaEval's results."""
    import pandas as pd

    from dpa.artefacts.outputs import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.evaluation.alpacaeval import result_rows
    from dpa.runtime.reading import read_json_object

    rows = []
    for number, results, folder in zip(seed, judged, samples_dir, strict=True):
        files = [folder / f"{policy}.jsonl" for policy in policies.split(",")]
        rows += result_rows(read_json_object(results), files, objective_names.split(","), number)
    table = pd.DataFrame(rows).astype({"iteration": "Int64"})
    with atomic(output) as partial:
        table.to_csv(partial, index=False)
    write_sidecar(output, judged, RowCounts.all_kept(len(table)))
    log.info("%d rows", len(table))


if __name__ == "__main__":
    run_app(app)
