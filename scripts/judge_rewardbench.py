"""Score a policy's responses to RewardBench's prompts by a scalar judge.

Rule: judge_rewardbench. Example:

    python -m scripts.judge_rewardbench --judge weqweasdas/RM-Mistral-7B --revision <commit> \
        --samples rewardbench/sampled/dpa-3.jsonl --prompts rewardbench/prompts.jsonl \
        --output rewardbench/judged/dpa-3.jsonl

--judge is any sequence-classification model with one output; --gold quickstart is the quickstart's
scorer in its place. Writes JudgedSample records; a killed run resumes.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run

app = make_app()


@app.command()
def main(
    samples: Annotated[Path, typer.Option(help="Samples of a policy.")],
    prompts: Annotated[Path, typer.Option(help="The benchmark's prompts.")],
    output: Annotated[Path, typer.Option(help="Judged samples to write.")],
    judge: Annotated[str | None, typer.Option(help="Folder or hub id.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    gold: Annotated[str | None, typer.Option(help="A gold scorer: quickstart.")] = None,
) -> None:
    """Score a policy's responses to RewardBench's prompts by a scalar judge."""
    from dpa.errors import InputError
    from dpa.evaluation.preference_judge import judge_file

    if (judge is None) == (gold is None) or gold not in (None, "quickstart"):
        raise InputError("give either --judge or --gold quickstart")
    judge_file(samples, prompts, output, gold=gold, model=(judge or "", revision))


if __name__ == "__main__":
    run(app)
