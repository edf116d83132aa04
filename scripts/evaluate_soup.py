"""Evaluate Reward Soup: for each direction average the experts' weights, sample, and score.

Rule: evaluate_soup. Example:

    python -m scripts.evaluate_soup --expert rsf/100_0/iter4/policy \
        --expert rsf/0_-100/iter4/policy --grid 10 --reward-model reward_model/model \
        --prompts data/prompts/validation.jsonl --seed 0 \
        --output-samples sampled/reward_soup.jsonl --output-scored scored/reward_soup.jsonl

Experts are in the order of the objectives. One averaged checkpoint exists at a time, beside the
samples, and is deleted once it has been sampled. A killed run keeps the directions that are done.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    DirectionsOption,
    EngineOption,
    GridOption,
    ModelsOption,
    ObjectivesOption,
    OutputSamplesOption,
    OutputScoredOption,
    PromptsOption,
    ResponsesPerPromptOption,
    RewardModelOption,
    SamplingOption,
    SeedOption,
    TokensPerBatchOption,
)
from dpa.runtime.sections import names_of, read_section

app = make_app()


@app.command()
def main(
    expert: Annotated[list[Path], typer.Option(help="Folder of an objective's expert.")],
    reward_model: RewardModelOption,
    prompts: PromptsOption,
    seed: SeedOption,
    output_samples: OutputSamplesOption,
    output_scored: OutputScoredOption,
    grid: GridOption = "10",
    responses_per_prompt: ResponsesPerPromptOption = 2,
    directions: DirectionsOption = None,
    objectives: ObjectivesOption = None,
    models: ModelsOption = None,
    sampling: SamplingOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
    engine: EngineOption = "transformers",
) -> None:
    """Evaluate the interpolated policies on the validation prompts."""

    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import DistributionConfig, GridConfig, ObjectivesConfig
    from dpa.directions import evaluation_directions
    from dpa.methods.reward_soup import sample_soups
    from dpa.reward.score_samples import score_sample_file

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    points = read_section(GridConfig, grid, "grid")
    sample_soups(
        output_samples,
        experts=expert,
        directions=evaluation_directions(distribution, points),
        prompts=prompts,
        samples=responses_per_prompt,
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
        models=read_section(ModelsConfig, models, "models", "models"),
        seed=seed,
    )
    score_sample_file(
        reward_model,
        output_samples,
        prompts,
        steered,
        output_scored,
        tokens_per_batch=tokens_per_batch,
        engine=engine,
        attributes=names_of(attributes),
    )


if __name__ == "__main__":
    run_app(app)
