"""Evaluate Reward Soup: for each direction average the experts' weights, sample, and score.

Rule: evaluate_soup. Example:

    python -m scripts.evaluate_soup --expert rsf/100_0/iter4/policy \
        --expert rsf/0_-100/iter4/policy --directions '{"law": "arc", ...}' --grid 10 \
        --reward-model reward_model/model --prompts data/prompts/validation.jsonl \
        --objectives '[{...}]' --responses-per-prompt 2 --sampling '{...}' \
        --tokens-per-batch 16384 --seed 0 --sampled sampled/reward_soup.jsonl \
        --scored scored/reward_soup.jsonl

Experts are in the order of the objectives. One averaged checkpoint exists at a time, beside the
samples, and is deleted once it has been sampled. A killed run keeps the directions that are done.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    expert: Annotated[list[Path], typer.Option(help="Folder of an objective's expert.")],
    directions: Annotated[str, typer.Option(help="Direction law (JSON).")],
    grid: Annotated[str, typer.Option(help="config.yaml's evaluation.directions (JSON).")],
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    prompts: Annotated[Path, typer.Option(help="Validation prompts.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    responses_per_prompt: Annotated[int, typer.Option(min=1, help="For each direction.")],
    sampling: Annotated[str, typer.Option(help="config.yaml's sampling (JSON).")],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens scored at a time.")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    sampled: Annotated[Path, typer.Option(help="Samples to write.")],
    scored: Annotated[Path, typer.Option(help="Scored samples to write.")],
    reward_model_revision: Annotated[
        str | None, typer.Option(help="Commit of a hub model.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Names that the reward model's outputs must have, in order.")
    ] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What runs the reward model.")
    ] = "transformers",
) -> None:
    """Evaluate the interpolated policies on the validation prompts."""
    from pydantic import TypeAdapter

    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import Distribution, ObjectiveConfig
    from dpa.directions import evaluation_directions
    from dpa.methods.reward_soup import sample_soups
    from dpa.reward.score_samples import score_sample_file

    steered = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    law = parse(Distribution, directions, "directions").model_dump()
    points = parse(TypeAdapter(int | list[list[float]]), grid, "grid")
    sample_soups(
        sampled,
        experts=expert,
        directions=evaluation_directions(law, points),
        prompts=prompts,
        samples=responses_per_prompt,
        sampling=parse(SamplingConfig, sampling, "sampling"),
        seed=seed,
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
