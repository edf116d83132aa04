"""Score responses with the reward model: a shard of samples, or any table of pairs.

Rule: score_responses. Example (a shard of an iteration):

    python -m scripts.score_responses --reward-model reward_model/model --samples sampled/0.jsonl \
        --prompts data/prompts/d1.jsonl --output scored/0.jsonl

writes a ScoredSample per Sample, in the same order; a killed run resumes. Example (your own file):

    python -m scripts.score_responses --reward-model reward_model/model --table pairs.csv \
        --output scored.csv

reads columns `prompt` and `response` of a JSONL, CSV or parquet file, and writes the same rows in
the same order with one column more per output of the model, on 0-100.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    EngineOption,
    ObjectivesOption,
    OptionalPromptsOption,
    OutputOption,
    RewardModelOption,
    TokensPerBatchOption,
)
from dpa.runtime.sections import names_of, read_section

app = make_app()


@app.command()
def main(
    reward_model: RewardModelOption,
    output: OutputOption,
    samples: Annotated[
        Path | None, typer.Option(help="Responses of a policy (JSONL of samples).")
    ] = None,
    prompts: OptionalPromptsOption = None,
    table: Annotated[
        Path | None, typer.Option(help="In their place a table of pairs: .jsonl, .csv, .parquet.")
    ] = None,
    objectives: ObjectivesOption = None,
    prompt_column: Annotated[
        str, typer.Option(help="Of the table: text or chat turns.")
    ] = "prompt",
    response_column: Annotated[str, typer.Option(help="Of the table.")] = "response",
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
    engine: EngineOption = "transformers",
) -> None:
    """Score responses with the reward model."""
    from dpa.config.steering import ObjectivesConfig
    from dpa.errors import InputError
    from dpa.reward.score_samples import score_sample_file
    from dpa.reward.score_table import score_table

    if (samples is None) == (table is None) or (samples is None) != (prompts is None):
        raise InputError("give either --samples with their --prompts, or --table")
    if samples is not None and prompts is not None:
        steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
        score_sample_file(
            reward_model,
            samples,
            prompts,
            steered,
            output,
            tokens_per_batch=tokens_per_batch,
            attributes=names_of(attributes),
            engine=engine,
        )
        return
    assert table is not None
    score_table(
        reward_model,
        table,
        output,
        prompt_column=prompt_column,
        response_column=response_column,
        tokens_per_batch=tokens_per_batch,
        attributes=names_of(attributes),
        engine=engine,
    )


if __name__ == "__main__":
    run_app(app)
