"""Collect every policy's scored validation responses into one table.

Rule: collect_validation_rewards. Example:

    python -m scripts.collect_validation_rewards --responses evaluation/scored/sft.jsonl \
        --responses evaluation/scored/dpa-1.jsonl --prompts data/prompts/validation.jsonl \
        --objectives helpfulness,verbosity --gold quickstart --seed 0 \
        --output evaluation/validation_rewards.csv
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, run

app = make_app()


@app.command()
def main(
    responses: Annotated[list[Path], typer.Option(help="<method>[-<iteration>].jsonl files.")],
    prompts: Annotated[Path, typer.Option(help="Validation prompts.")],
    objectives: Annotated[str, typer.Option(help="Names, comma-separated.")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed of the run.")],
    output: Annotated[Path, typer.Option()],
    gold: Annotated[str | None, typer.Option(help="A gold scorer: quickstart.")] = None,
) -> None:
    """Collect scored validation responses into one table."""
    from dpa.evaluation import collect, gold_scorer
    from dpa.provenance import atomic, write_sidecar

    table = collect(responses, prompts, objectives.split(","), seed, gold_scorer(gold))
    with atomic(output) as partial:
        table.to_csv(partial, index=False)
    write_sidecar(output, [*responses, prompts])
    log.info("%d rows for %d policies", len(table), len(responses))


if __name__ == "__main__":
    run(app)
