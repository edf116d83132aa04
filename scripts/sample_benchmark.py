"""Sample a policy on a benchmark's prompts: one response per prompt and direction.

Rule: sample_benchmark (AlpacaEval and RewardBench). Example:

    python -m scripts.sample_benchmark --policy dpa/iter4/policy \
        --directions '{"law": "arc", "from_degrees": -45, "to_degrees": 0}' --grid 7 \
        --prompts alpacaeval/prompts.jsonl --objectives helpfulness,verbosity \
        --sampling '{...}' --seed 0 --output alpacaeval/sampled/dpa-4.jsonl

With --directions the grid is that many of the law, with --conditions SteerLM's curve, with neither
the policy is asked in its own template. Writes Sample records; a killed run resumes.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    policy: Annotated[str, typer.Option(help="Folder or hub id.")],
    prompts: Annotated[Path, typer.Option(help="The benchmark's prompts.")],
    objectives: Annotated[str, typer.Option(help="Names in order, separated by commas.")],
    sampling: Annotated[str, typer.Option(help="config.yaml's sampling (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option(help="Samples to write.")],
    directions: Annotated[str | None, typer.Option(help="Direction law (JSON).")] = None,
    grid: Annotated[str, typer.Option(help="The benchmark's directions (JSON).")] = "7",
    conditions: Annotated[Path | None, typer.Option(help="SteerLM's conditions.")] = None,
    policy_revision: Annotated[str | None, typer.Option(help="Commit of a hub policy.")] = None,
) -> None:
    """Sample a policy on a benchmark's prompts."""
    import json

    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import Distribution
    from dpa.generation.sample import EVALUATION, always, grid_of, sample_file

    law = parse(Distribution, directions, "directions").model_dump() if directions else None
    sample_file(
        output,
        policy=policy,
        revision=policy_revision,
        prompts=prompts,
        steer=always(grid_of(law, json.loads(grid), conditions, samples=1)),
        names=objectives.split(","),
        sampling=parse(SamplingConfig, sampling, "sampling"),
        seed=seed,
        iteration=EVALUATION,
        inputs=[conditions] if conditions else [],
    )


if __name__ == "__main__":
    run(app)
