"""Sample Reward Soup: for each direction average the experts' weights, and sample.

Rule: sample_soup. Example:

    python -m scripts.sample_soup --expert rsf/100_0/iter4/policy \
        --expert rsf/0_-100/iter4/policy --grid 10 --prompts data/prompts/validation.jsonl \
        --seed 0 --output evaluation/sampled/reward_soup.jsonl

Experts are in the order of the objectives, or of --expert-directions. One averaged checkpoint
exists at a time, beside the samples, and is deleted once it has been sampled. A killed run keeps
the directions that are done.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    DirectionsOption,
    GridOption,
    ModelsOption,
    OutputOption,
    PromptsOption,
    ResponsesPerPromptOption,
    SamplingOption,
    SeedOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    expert: Annotated[list[Path], typer.Option(help="Folder of an objective's expert.")],
    prompts: PromptsOption,
    seed: SeedOption,
    output: OutputOption,
    grid: GridOption = "10",
    responses_per_prompt: ResponsesPerPromptOption = 2,
    directions: DirectionsOption = None,
    expert_directions: Annotated[
        str | None,
        typer.Option(
            help="What the experts optimise, a JSON list; the objectives alone, if not given."
        ),
    ] = None,
    models: ModelsOption = None,
    sampling: SamplingOption = None,
) -> None:
    """Sample the interpolated policies on the validation prompts."""
    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import DistributionConfig, GridConfig
    from dpa.directions import evaluation_directions, single_objectives
    from dpa.methods.reward_soup import sample_soups

    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    points = read_section(GridConfig, grid, "grid")
    sample_soups(
        output,
        experts=expert,
        expert_directions=(
            single_objectives(distribution)
            if expert_directions is None
            else read_section(GridConfig, expert_directions, "expert-directions")
        ),
        directions=evaluation_directions(distribution, points),
        prompts=prompts,
        samples=responses_per_prompt,
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
        models=read_section(ModelsConfig, models, "models", "models"),
        seed=seed,
    )


if __name__ == "__main__":
    run_app(app)
