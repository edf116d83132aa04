"""Sample responses of a policy to a shard of prompts, under drawn directions or conditions.

Rule: sample_responses. Example (iteration 2 and later: every prompt under drawn directions):

    python -m scripts.sample_responses --policy dpa/iter1/policy --prompts data/prompts/d2.jsonl \
        --iteration 2 --seed 0 --directions '{"law": "arc", "from_degrees": -45, "to_degrees": 0}' \
        --objectives helpfulness,verbosity --directions-per-prompt 5 --responses-per-direction 16 \
        --sampling '{"engine": "transformers", "kv_cache_dtype": "auto", "temperature": 1.0, \
            "max_new_tokens": 100, "max_prompt_tokens": 128, "prompts_per_chunk": 8, \
            "rows_per_batch": 640, "max_truncated_fraction": 0.5}' \
        --shard 0 --shards 2 --output sampled/0.jsonl

DPA's iteration 1 samples the SteerLM policy: add --conditions steerlm/conditions.json, --noise and
--uniform-share; each of the prompt's responses then has a condition of its own. With the law
`fixed` (a scalar method) the policy is told no direction.

Writes one Sample record per response. The shards put behind each other are the same bytes for any
number of shards; a killed run resumes.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    policy: Annotated[str, typer.Option(help="Folder or hub id of the policy.")],
    prompts: Annotated[Path, typer.Option(help="Prompt file.")],
    output: Annotated[Path, typer.Option()],
    iteration: Annotated[int, typer.Option(min=1)],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    directions: Annotated[str, typer.Option(help="Direction law (JSON).")],
    objectives: Annotated[str, typer.Option(help="Names in order, separated by commas.")],
    directions_per_prompt: Annotated[int, typer.Option(min=1)],
    responses_per_direction: Annotated[int, typer.Option(min=1)],
    sampling: Annotated[str, typer.Option(help="config.yaml's sampling section (JSON).")],
    conditions: Annotated[
        Path | None, typer.Option(help="SteerLM's conditions, for a policy that takes them.")
    ] = None,
    noise: Annotated[float, typer.Option(min=0, help="Of conditions, in points of 0-100.")] = 8.0,
    uniform_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of conditions drawn uniformly.")
    ] = 0.3,
    shard: Annotated[int, typer.Option(min=0)] = 0,
    shards: Annotated[int, typer.Option(min=1)] = 1,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub policy.")] = None,
) -> None:
    """Sample responses of a policy to a shard of prompts."""
    from dpa.conditions import read_conditions
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import Distribution
    from dpa.generation.sample import drawn_conditions, drawn_directions, sample_file

    law = parse(Distribution, directions, "directions").model_dump()
    names = objectives.split(",")
    if conditions is None:
        steer = drawn_directions(
            law, seed, iteration, directions_per_prompt, responses_per_direction
        )
    else:
        steer = drawn_conditions(
            read_conditions(conditions),
            seed,
            directions_per_prompt * responses_per_direction,
            noise,
            uniform_share,
        )
    sample_file(
        output,
        policy=policy,
        revision=revision,
        prompts=prompts,
        steer=steer,
        names=names,
        sampling=parse(SamplingConfig, sampling, "sampling"),
        seed=seed,
        iteration=iteration,
        shard=shard,
        shards=shards,
        inputs=[] if conditions is None else [conditions],
    )


if __name__ == "__main__":
    run(app)
