"""Score the original responses to the prompts with the reward model.

Rule: annotate_responses. Example:

    python -m scripts.annotate_responses --reward-model reward_model/model \
        --ratings data/ratings.jsonl --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --dataset ultrafeedback --objectives '[{"name": ...}]' \
        --shard 0 --shards 2 --tokens-per-batch 16384 --output annotations/0.jsonl

Writes an Annotation per response, in the order of the prompts; a killed run resumes.
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
    ratings: Annotated[Path, typer.Option(help="ratings.jsonl, which has the responses.")],
    prompts: Annotated[list[Path], typer.Option(help="Prompt files.")],
    dataset: Annotated[str, typer.Option(help="Data set whose responses are meant.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    shard: Annotated[int, typer.Option(min=0)],
    shards: Annotated[int, typer.Option(min=1)],
    output: Annotated[Path, typer.Option()],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens at a time.")] = 16384,
    attributes: Annotated[
        str | None, typer.Option(help="Names that the outputs must have, in order.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What runs the reward model.")
    ] = "transformers",
) -> None:
    """Score the original responses to the prompts."""
    from pydantic import TypeAdapter

    from dpa.artefacts.files import content_hash
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import fingerprint, write_sidecar
    from dpa.config.steering import ObjectiveConfig
    from dpa.errors import InputError
    from dpa.reward.annotate import annotate, groups_of_originals, original_responses
    from dpa.reward.load import open_scorer

    if shard >= shards:
        raise InputError(f"--shard {shard}: must be below --shards {shards}")
    steered = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    originals = original_responses(ratings, prompts, dataset, shard, shards)
    inputs: list[Path | str] = [reward_model, ratings, *prompts]
    settings = [
        reward_model,
        revision,
        dataset,
        objectives,
        shard,
        shards,
        tokens_per_batch,
        engine,
    ]
    losses = RowCounts()
    with open_scorer(
        engine,
        reward_model,
        revision,
        output,
        attributes=attributes.split(",") if attributes else None,
        objectives=steered,
        tokens_per_batch=tokens_per_batch,
    ) as model:
        known = fingerprint(model.names, settings, [content_hash(Path(item)) for item in inputs])
        survey = model.survey(groups_of_originals(originals))
        survey.check(output)

        def sidecar() -> None:
            write_sidecar(
                output,
                inputs,
                losses,
                scored=survey.inputs,
                cut=survey.cut,
                neutralised=model.controls.log_neutralised(),
            )

        rows = annotate(model, ratings, originals, steered, losses, output, known, sidecar)
    log.info("scored %d responses to %d of %d prompts", rows, losses.kept, losses.read)


if __name__ == "__main__":
    run(app)
