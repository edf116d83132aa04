"""Choose the samples of an iteration that go to the annotator: some of the best, some at random.

Rule: choose_samples_to_rate (only with a feedback.annotator). Example:

    python -m scripts.choose_samples_to_rate --scored scored/0.jsonl --scored scored/1.jsonl \
        --prompts data/prompts/d1.jsonl --held-out data/prompts/validation.jsonl \
        --iteration 1 --seed 0 --output to_rate.jsonl --output-sheet to_rate.csv

Writes a ToRate record per line, each response to a prompt once, and the same as CSV for people.
Byte-identical for any number and order of shards.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    DirectionsOption,
    IterationOption,
    ObjectivesOption,
    OutputOption,
    PromptsOption,
    ScoredOption,
    SeedOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    scored: ScoredOption,
    prompts: PromptsOption,
    held_out: Annotated[Path, typer.Option(help="Prompts whose responses may not be rated.")],
    iteration: IterationOption,
    seed: SeedOption,
    output: OutputOption,
    output_sheet: Annotated[
        Path, typer.Option(help="The samples as CSV that is written, with columns to fill in.")
    ],
    before: Annotated[
        list[Path] | None, typer.Option(help="What was chosen in an iteration before.")
    ] = None,
    directions: DirectionsOption = None,
    objectives: ObjectivesOption = None,
    best_per_prompt: Annotated[
        int, typer.Option(min=0, help="Of each prompt the best by so many random directions.")
    ] = 4,
    random_per_prompt: Annotated[
        int, typer.Option(min=0, help="Of each prompt so many others at random.")
    ] = 4,
    most_prompts: Annotated[
        int | None, typer.Option(min=1, help="Of so many prompts, chosen at random; all of them.")
    ] = None,
) -> None:
    """Choose the samples that go to the annotator."""
    from dpa.artefacts.jsonl import decode_lines, write_jsonl
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import DistributionConfig, ObjectivesConfig
    from dpa.feedback.choose import ChoiceCounts, ChoicePlan, choose_to_rate
    from dpa.feedback.rated_files import write_rating_sheet
    from dpa.records import Prompt, ToRate
    from dpa.text.prompts import read_prompts

    plan = ChoicePlan(
        distribution=read_section(
            DistributionConfig, directions, "directions", "directions"
        ).model_dump(),
        seed=seed,
        iteration=iteration,
        best=best_per_prompt,
        at_random=random_per_prompt,
        prompts=most_prompts,
    )
    earlier = [item for path in before or [] for item in decode_lines(path, ToRate)]
    counts = ChoiceCounts()
    chosen = choose_to_rate(
        scored, read_prompts(prompts), decode_lines(held_out, Prompt), earlier, plan, counts
    )
    write_jsonl(output, chosen)
    inputs = [*scored, prompts, held_out, *(before or [])]
    write_sidecar(output, inputs, choice=counts.as_dict())
    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    rated = dict.fromkeys(name for objective in steered for name in objective.outputs)
    write_rating_sheet(output_sheet, chosen, list(rated))
    write_sidecar(output_sheet, [output], rows=len(chosen))
    log.info("%d of %d samples go to the annotator", len(chosen), counts.samples)


if __name__ == "__main__":
    run_app(app)
