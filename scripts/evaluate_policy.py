"""Sample a policy on the validation prompts under a fixed grid, and score what it says.

Rule: evaluate_policy. Example:

    python -m scripts.evaluate_policy --policy dpa/iter1/policy --directions '{}' --grid 10 \
        --reward-model reward_model/model --prompts data/prompts/validation.jsonl --seed 0 \
        --output-samples sampled/dpa-1.jsonl --output-scored scored/dpa-1.jsonl

With --directions the grid is that many of the distribution, with --conditions SteerLM's curve, with
neither the policy is asked in its own template. Writes Sample and ScoredSample records.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    ConditionsOption,
    DirectionsOption,
    EngineOption,
    GridOption,
    ModelsOption,
    ObjectivesOption,
    OutputSamplesOption,
    OutputScoredOption,
    PolicyOption,
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
    policy: PolicyOption,
    reward_model: RewardModelOption,
    prompts: PromptsOption,
    seed: SeedOption,
    output_samples: OutputSamplesOption,
    output_scored: OutputScoredOption,
    responses_per_prompt: ResponsesPerPromptOption = 2,
    objectives: ObjectivesOption = None,
    models: ModelsOption = None,
    sampling: SamplingOption = None,
    directions: DirectionsOption = None,
    grid: GridOption = "10",
    conditions: ConditionsOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
    engine: EngineOption = "transformers",
) -> None:
    """Sample a policy on the validation prompts and score what it says."""

    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import DistributionConfig, GridConfig, ObjectivesConfig
    from dpa.generation.sample import EVALUATION, always, grid_of, sample_file
    from dpa.reward.score_samples import score_sample_file

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    distribution = None
    if directions is not None:
        distribution = read_section(DistributionConfig, directions, "directions").model_dump()
    points = read_section(GridConfig, grid, "grid")
    steerings = grid_of(distribution, points, conditions, responses_per_prompt)
    sample_file(
        output_samples,
        policy=policy,
        prompts=prompts,
        steer=always(steerings),
        names=[objective.name for objective in steered],
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
        models=read_section(ModelsConfig, models, "models", "models"),
        seed=seed,
        iteration=EVALUATION,
        inputs=[conditions] if conditions else [],
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
