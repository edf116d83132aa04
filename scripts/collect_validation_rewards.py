"""Collect every policy's scored validation responses into one table.

Rule: collect_validation_rewards. Example:

    python -m scripts.collect_validation_rewards --prompts data/prompts/validation.jsonl \
        --scored evaluation/scored_by/reward_model/sft.jsonl \
        --scored evaluation/scored_by/reward_model/dpa-1.jsonl \
        --gold quickstart --seed 0 --output-by-prompt evaluation/prompt_rewards.parquet \
        --output evaluation/validation_rewards.csv

Writes a row per policy, direction and prompt (--output-by-prompt), and their means (--output).
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    GoldOption,
    JudgedOption,
    ObjectivesOption,
    OutputOption,
    PessimismOption,
    PromptsOption,
    ScoredOption,
    SeedOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    scored: ScoredOption,
    prompts: PromptsOption,
    seed: SeedOption,
    output_by_prompt: Annotated[
        Path, typer.Option(help="prompt_rewards.parquet, which is written.")
    ],
    output: OutputOption,
    objectives: ObjectivesOption = None,
    judged: JudgedOption = [],  # noqa: B006
    selector: Annotated[
        list[Path],
        typer.Option(help="A policy's samples scored by a reward model that selected for it."),
    ] = [],  # noqa: B006
    pessimism: PessimismOption = None,
    gold: GoldOption = None,
    trained_directions: Annotated[
        int | None,
        typer.Option(min=1, help="Directions that come before those outside of the trained ones."),
    ] = None,
) -> None:
    """Collect scored validation responses into one table."""

    from dpa.artefacts.outputs import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import ObjectivesConfig, PessimismConfig
    from dpa.evaluation.validation import gold_scorer, prompt_rewards, validation_rewards

    asked = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    rewards = prompt_rewards(
        scored,
        prompts,
        asked,
        seed,
        gold_scorer(gold, asked),
        judged=judged,
        trained_directions=trained_directions,
        selectors=selector,
        pessimism=read_section(PessimismConfig, pessimism, "pessimism", "dpa.pessimism"),
    )
    table = validation_rewards(rewards, [objective.name for objective in asked])
    with atomic(output_by_prompt) as partial:
        rewards.to_parquet(partial, index=False)
    with atomic(output) as partial:
        table.to_csv(partial, index=False)
    inputs = [*scored, *judged, *selector, prompts]
    read = RowCounts.all_kept(int(rewards["n"].sum()))  # responses
    write_sidecar(output_by_prompt, inputs, read)
    write_sidecar(output, inputs, read, counted_in=output_by_prompt.name)
    log.info("%d rows for %d policies", len(table), len(scored))


if __name__ == "__main__":
    run_app(app)
