"""Measure how far a policy has moved from another, on its own samples: for their KL divergence.

Rule: measure_divergence. Example:

    python -m scripts.measure_divergence --policy dpa/iter4/policy --reference-policy sft/policy \
        --samples evaluation/sampled/dpa-4.jsonl --prompts data/prompts/validation.jsonl \
        --objective-names helpfulness,verbosity --sampling '{"temperature": 0.7}' \
        --output evaluation/divergence/dpa-4.parquet

Writes a row per sample: its log-probability under the policy, asked as it was, and under the other,
asked without a direction, both at the temperature of sampling.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    ModelsOption,
    ObjectiveNamesOption,
    OutputOption,
    PolicyOption,
    PromptsOption,
    SamplesOption,
    SamplingOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    reference_policy: Annotated[
        str, typer.Option(help="Where its training started: folder, or organisation/name@commit.")
    ],
    samples: SamplesOption,
    prompts: PromptsOption,
    objective_names: ObjectiveNamesOption,
    output: OutputOption,
    models: ModelsOption = None,
    sampling: SamplingOption = None,
) -> None:
    """Measure how far a policy has moved from another."""
    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.evaluation.divergence import measure_divergence

    measure_divergence(
        output,
        policy=policy,
        reference=reference_policy,
        samples=samples,
        prompts=prompts,
        names=objective_names.split(","),
        temperature=read_section(SamplingConfig, sampling, "sampling", "sampling").temperature,
        models=read_section(ModelsConfig, models, "models", "models"),
    )


if __name__ == "__main__":
    run_app(app)
