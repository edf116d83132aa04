"""Score responses with the reward model: a shard of samples, or any table of pairs.

Rule: score_responses. Example (a shard of an iteration):

    python -m scripts.score_responses --reward-model reward_model/model --input sampled/0.jsonl \
        --prompts data/prompts/d1.jsonl --objectives '[{"name": ...}]' --tokens-per-batch 16384 \
        --output scored/0.jsonl

writes a ScoredSample per Sample, in the same order; a killed run resumes. Example (your own file):

    python -m scripts.score_responses --reward-model reward_model/model --input pairs.csv \
        --output scored.csv

reads columns `prompt` and `response` of a JSONL, CSV or parquet file, and writes the same rows in
the same order with one column more per output of the model, on 0-100.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    input: Annotated[Path, typer.Option(help="Samples, or with no --prompts a table of pairs.")],
    output: Annotated[Path, typer.Option(help="Scored samples, or .jsonl, .csv, .parquet.")],
    prompts: Annotated[Path | None, typer.Option(help="Prompt file of the samples.")] = None,
    objectives: Annotated[str | None, typer.Option(help="config.yaml's objectives (JSON).")] = None,
    prompt_column: Annotated[str, typer.Option(help="Of a table: text or chat turns.")] = "prompt",
    response_column: Annotated[str, typer.Option(help="Of a table.")] = "response",
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens at a time.")] = 16384,
    attributes: Annotated[
        str | None, typer.Option(help="Names that the outputs must have, in order.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What runs the reward model.")
    ] = "transformers",
) -> None:
    """Score responses with the reward model."""
    from pydantic import TypeAdapter

    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import ObjectiveConfig
    from dpa.errors import InputError
    from dpa.reward.load import open_scorer
    from dpa.reward.score_samples import score_sample_file
    from dpa.reward.score_table import score_table

    if (prompts is None) != (objectives is None):
        raise InputError("samples need both --prompts and --objectives, a table neither")
    names = attributes.split(",") if attributes else None
    if prompts is not None and objectives is not None:
        score_sample_file(
            (reward_model, revision),
            input,
            prompts,
            parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives"),
            output,
            tokens_per_batch=tokens_per_batch,
            attributes=names,
            engine=engine,
        )
        return

    options = {"attributes": names, "tokens_per_batch": tokens_per_batch}
    with open_scorer(engine, reward_model, revision, output, **options) as model:
        rows = score_table(model, input, output, prompt_column, response_column)
    write_sidecar(
        output,
        [reward_model, input],
        RowCounts.none(rows),
        scored=model.scored,
        cut=model.cut,
        neutralised=model.controls.log_neutralised(),
    )
    log.info("scored %d responses (%d inputs cut to %d tokens)", rows, model.cut, model.max_length)


if __name__ == "__main__":
    run(app)
