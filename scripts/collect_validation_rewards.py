"""Collect every policy's scored validation responses into one table.

Rule: collect_validation_rewards. Example:

    python -m scripts.collect_validation_rewards --responses evaluation/scored/sft.jsonl \
        --responses evaluation/scored/dpa-1.jsonl --prompts data/prompts/validation.jsonl \
        --objectives '[{...}]' --gold quickstart --seed 0 \
        --by-prompt evaluation/prompt_rewards.parquet --output evaluation/validation_rewards.csv

Writes a row per policy, direction and prompt (--by-prompt), and their means (--output).
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    responses: Annotated[list[Path], typer.Option(help="<method>[-<iteration>].jsonl files.")],
    prompts: Annotated[Path, typer.Option(help="Validation prompts.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed of the run.")],
    by_prompt: Annotated[Path, typer.Option(help="prompt_rewards.parquet")],
    output: Annotated[Path, typer.Option(help="validation_rewards.csv")],
    gold: Annotated[str | None, typer.Option(help="A gold scorer: quickstart.")] = None,
) -> None:
    """Collect scored validation responses into one table."""
    from pydantic import TypeAdapter

    from dpa.artefacts.files import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import ObjectiveConfig
    from dpa.evaluation.validation import gold_scorer, prompt_rewards, validation_rewards

    scored = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    rewards = prompt_rewards(responses, prompts, scored, seed, gold_scorer(gold, scored))
    table = validation_rewards(rewards, [objective.name for objective in scored])
    with atomic(by_prompt) as partial:
        rewards.to_parquet(partial, index=False)
    with atomic(output) as partial:
        table.to_csv(partial, index=False)
    read = RowCounts.none(int(rewards["n"].sum()))  # responses
    write_sidecar(by_prompt, [*responses, prompts], read)
    write_sidecar(output, [*responses, prompts], read, counted_in=by_prompt.name)
    log.info("%d rows for %d policies", len(table), len(responses))


if __name__ == "__main__":
    run(app)
