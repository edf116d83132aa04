"""Score a policy's responses to RewardBench's prompts by a scalar judge.

Rule: judge_rewardbench. Example:

    python -m scripts.judge_rewardbench --preference-judge weqweasdas/RM-Mistral-7B@<commit> \
        --samples rewardbench/sampled/dpa-3.jsonl --prompts rewardbench/prompts.jsonl \
        --output rewardbench/judged/dpa-3.jsonl

--preference-judge is any sequence-classification model with one output; --gold quickstart is
the quickstart's scorer in its place. Writes JudgedSample records; a killed run resumes.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    GoldOption,
    ModelsOption,
    OutputOption,
    PromptsOption,
    SamplesOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    samples: SamplesOption,
    prompts: PromptsOption,
    output: OutputOption,
    preference_judge: Annotated[
        str | None,
        typer.Option(help="A classifier with one output: folder, or organisation/name@commit."),
    ] = None,
    gold: GoldOption = None,
    models: ModelsOption = None,
) -> None:
    """Score a policy's responses to RewardBench's prompts by a scalar judge."""
    from dpa.config.chat import ModelsConfig
    from dpa.errors import InputError
    from dpa.evaluation.rewardbench_judging import judge_file

    if (preference_judge is None) == (gold is None) or gold not in (None, "quickstart"):
        raise InputError("give either --preference-judge or --gold quickstart")
    judge_file(
        samples,
        prompts,
        output,
        gold=gold,
        model=preference_judge,
        models=read_section(ModelsConfig, models, "models", "models"),
    )


if __name__ == "__main__":
    run_app(app)
