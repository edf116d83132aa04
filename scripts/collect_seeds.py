"""Put the validation rewards of an experiment's seeds into one table.

Rule: collect_seeds (only with several seeds). Example:

    python -m scripts.collect_seeds --rewards seed0/evaluation/validation_rewards.csv \
        --rewards seed1/evaluation/validation_rewards.csv --output evaluation/validation_rewards.csv
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import OutputOption

app = make_app()


@app.command()
def main(
    rewards: Annotated[list[Path], typer.Option(help="validation_rewards.csv of each seed.")],
    output: OutputOption,
) -> None:
    """Put the validation rewards of all seeds into one table."""
    import pandas as pd

    from dpa.artefacts.outputs import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.evaluation.validation import read_validation_rewards

    table = pd.concat([read_validation_rewards(path) for path in rewards])
    with atomic(output) as partial:
        table.to_csv(partial, index=False)
    write_sidecar(output, rewards, RowCounts.all_kept(len(table)))
    log.info("%d rows of %d seeds", len(table), table["seed"].nunique())


if __name__ == "__main__":
    run_app(app)
