"""Sample a policy on held-out prompts, or a benchmark's, under a fixed grid.

Rules: sample_evaluation (validation, AlpacaEval, RewardBench) and sample_candidates (best of n).
Example:

    python -m scripts.sample_evaluation --policy dpa/iter4/policy --directions '{}' --grid 10 \
        --prompts data/prompts/validation.jsonl --objective-names helpfulness,verbosity --seed 0 \
        --output evaluation/sampled/dpa-4.jsonl

With --directions the grid is that many of the distribution, with --conditions that many of
SteerLM's curve, with both what SteerLM is best asked for in each direction (with --ranges what
Rewards-in-Context is), with none the policy is asked in its own template. Writes Sample records; a
killed run resumes.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    ConditionsOption,
    CurvePointsOption,
    DirectionsOption,
    GridOption,
    ModelsOption,
    ObjectiveNamesOption,
    OutputOption,
    PolicyOption,
    PromptsOption,
    RangesOption,
    ResponsesPerPromptOption,
    SamplingOption,
    SeedOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    prompts: PromptsOption,
    objective_names: ObjectiveNamesOption,
    seed: SeedOption,
    output: OutputOption,
    responses_per_prompt: ResponsesPerPromptOption = 1,
    models: ModelsOption = None,
    sampling: SamplingOption = None,
    directions: DirectionsOption = None,
    grid: GridOption = "10",
    conditions: ConditionsOption = None,
    curve_points: CurvePointsOption = 5,
    ranges: RangesOption = None,
) -> None:
    """Sample a policy on prompts that it was not trained on."""
    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import DistributionConfig, GridConfig
    from dpa.generation.sample import EVALUATION, always, grid_of, sample_file

    distribution = None
    if directions is not None:
        distribution = read_section(DistributionConfig, directions, "directions").model_dump()
    points = read_section(GridConfig, grid, "grid")
    sample_file(
        output,
        policy=policy,
        prompts=prompts,
        steer=always(
            grid_of(distribution, points, conditions, responses_per_prompt, curve_points, ranges)
        ),
        names=objective_names.split(","),
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
        models=read_section(ModelsConfig, models, "models", "models"),
        seed=seed,
        iteration=EVALUATION,
        inputs=[path for path in (conditions, ranges) if path],
    )


if __name__ == "__main__":
    run_app(app)
