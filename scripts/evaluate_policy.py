"""Sample a policy on the validation prompts under a fixed grid, and score what it says.

Rule: evaluate_policy. Example:

    python -m scripts.evaluate_policy --policy dpa/iter1/policy \
        --directions '{"law": "arc", "from_degrees": -45, "to_degrees": 0}' --grid 10 \
        --reward-model reward_model/model --prompts data/prompts/validation.jsonl \
        --objectives '[{...}]' --responses-per-prompt 2 --sampling '{...}' \
        --tokens-per-batch 16384 --seed 0 --sampled sampled/dpa-1.jsonl --scored scored/dpa-1.jsonl

With --directions the grid is that many of the law, with --conditions SteerLM's curve, with neither
the policy is asked in its own template. Writes Sample and ScoredSample records.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    policy: Annotated[str, typer.Option(help="Folder or hub id.")],
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    prompts: Annotated[Path, typer.Option(help="Validation prompts.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    responses_per_prompt: Annotated[int, typer.Option(min=1, help="For each point of the grid.")],
    sampling: Annotated[str, typer.Option(help="config.yaml's sampling (JSON).")],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens scored at a time.")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    sampled: Annotated[Path, typer.Option(help="Samples to write.")],
    scored: Annotated[Path, typer.Option(help="Scored samples to write.")],
    directions: Annotated[str | None, typer.Option(help="Direction law (JSON).")] = None,
    grid: Annotated[str, typer.Option(help="config.yaml's evaluation.directions (JSON).")] = "10",
    conditions: Annotated[Path | None, typer.Option(help="SteerLM's conditions.")] = None,
    policy_revision: Annotated[str | None, typer.Option(help="Commit of a hub policy.")] = None,
    reward_model_revision: Annotated[str | None, typer.Option(help="Commit, likewise.")] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Names that the reward model's outputs must have, in order.")
    ] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What runs the reward model.")
    ] = "transformers",
) -> None:
    """Sample a policy on the validation prompts and score what it says."""
    from pydantic import TypeAdapter

    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import Distribution, ObjectiveConfig
    from dpa.generation.sample import EVALUATION, always, grid_of, sample_file
    from dpa.reward.score_samples import score_sample_file

    steered = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    law = parse(Distribution, directions, "directions").model_dump() if directions else None
    points = parse(TypeAdapter(int | list[list[float]]), grid, "grid")
    steerings = grid_of(law, points, conditions, responses_per_prompt)
    sample_file(
        sampled,
        policy=policy,
        revision=policy_revision,
        prompts=prompts,
        steer=always(steerings),
        names=[objective.name for objective in steered],
        sampling=parse(SamplingConfig, sampling, "sampling"),
        seed=seed,
        iteration=EVALUATION,
        inputs=[conditions] if conditions else [],
    )
    score_sample_file(
        (reward_model, reward_model_revision),
        sampled,
        prompts,
        steered,
        scored,
        tokens_per_batch=tokens_per_batch,
        engine=engine,
        attributes=attributes.split(",") if attributes else None,
    )


if __name__ == "__main__":
    run(app)
