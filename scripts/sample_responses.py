"""Sample responses of a policy to a shard of prompts, under drawn directions or conditions.

Rule: sample_responses. Example (iteration 2 and later: every prompt under drawn directions):

    python -m scripts.sample_responses --policy dpa/iter1/policy --prompts data/prompts/d2.jsonl \
        --iteration 2 --seed 0 --objective-names helpfulness,verbosity \
        --sampling '{"engine": "vllm"}' --shard 0 --shards 2 --output sampled/0.jsonl

DPA's iteration 1 samples the SteerLM policy: add --conditions steerlm/conditions.json, --noise and
--uniform-share; each of the prompt's responses then has a condition of its own. With the
distribution `fixed` (a scalar method) the policy is given no direction.

Writes one Sample record per response. The concatenated shards are the same bytes for any
number of shards; a killed run resumes.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    ConditionsOption,
    DirectionsOption,
    DirectionsPerPromptOption,
    IterationOption,
    ModelsOption,
    ObjectiveNamesOption,
    OutputOption,
    PolicyOption,
    PromptsOption,
    RangesOption,
    ResponsesPerDirectionOption,
    SamplingOption,
    SeedOption,
    ShardOption,
    ShardsOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    prompts: PromptsOption,
    iteration: IterationOption,
    seed: SeedOption,
    objective_names: ObjectiveNamesOption,
    output: OutputOption,
    directions: DirectionsOption = None,
    models: ModelsOption = None,
    sampling: SamplingOption = None,
    directions_per_prompt: DirectionsPerPromptOption = 5,
    responses_per_direction: ResponsesPerDirectionOption = 16,
    conditions: ConditionsOption = None,
    noise: Annotated[float, typer.Option(min=0, help="Of conditions, in points of 0-100.")] = 8.0,
    uniform_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of conditions drawn uniformly.")
    ] = 0.3,
    ranges: RangesOption = None,
    shard: ShardOption = 0,
    shards: ShardsOption = 1,
) -> None:
    """Sample responses of a policy to a shard of prompts."""
    from dpa.conditions import read_conditions, read_ranges
    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import DistributionConfig
    from dpa.generation.sample import (
        drawn_conditions,
        drawn_desired_rewards,
        drawn_directions,
        sample_file,
    )

    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    names = objective_names.split(",")
    samples = directions_per_prompt * responses_per_direction
    if conditions is not None:
        steer = drawn_conditions(read_conditions(conditions), seed, samples, noise, uniform_share)
    elif ranges is not None:
        steer = drawn_desired_rewards(read_ranges(ranges), seed, iteration, samples)
    else:
        steer = drawn_directions(
            distribution, seed, iteration, directions_per_prompt, responses_per_direction
        )
    sample_file(
        output,
        policy=policy,
        prompts=prompts,
        steer=steer,
        names=names,
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
        models=read_section(ModelsConfig, models, "models", "models"),
        seed=seed,
        iteration=iteration,
        shard=shard,
        shards=shards,
        inputs=[path for path in (conditions, ranges) if path],
    )


if __name__ == "__main__":
    run_app(app)
