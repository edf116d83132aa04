"""Score RewardBench's chosen and rejected responses with the multi-objective reward model.

Rule: score_rewardbench. Example:

    python -m scripts.score_rewardbench --reward-model reward_model/model \
        --items rewardbench/items.jsonl --objectives '[{...}]' --tokens-per-batch 16384 \
        --output rewardbench/rewards.jsonl

The reward model reads both in its own template. Writes a ScoredChoice record per row.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    items: Annotated[Path, typer.Option(help="The benchmark's rows.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens scored at a time.")],
    output: Annotated[Path, typer.Option(help="Scored choices to write.")],
    attributes: Annotated[
        str | None, typer.Option(help="Names that the reward model's outputs must have, in order.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
) -> None:
    """Score RewardBench's chosen and rejected responses with the reward model."""
    from pydantic import TypeAdapter

    from dpa.artefacts.jsonl import read_jsonl, write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import ObjectiveConfig
    from dpa.records import Choice
    from dpa.reward.score_samples import score_choices
    from dpa.runtime.startup import import_models

    import_models()
    from dpa.reward.transformers_scorer import TransformersScorer

    scored = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    model = TransformersScorer.load(
        reward_model,
        revision,
        attributes=attributes.split(",") if attributes else None,
        objectives=scored,
        tokens_per_batch=tokens_per_batch,
    )
    choices = read_jsonl(items, Choice)
    survey = model.survey((c.prompt, [c.chosen, c.rejected]) for c in choices)
    survey.check(output)
    rows = write_jsonl(output, score_choices(model, items, choices, scored))
    write_sidecar(
        output,
        [reward_model, items],
        RowCounts.none(rows),
        scored=survey.inputs,
        cut=survey.cut,
        neutralised=model.controls.log_neutralised(),
    )


if __name__ == "__main__":
    run(app)
