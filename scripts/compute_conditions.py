"""Work out which (helpfulness, verbosity) SteerLM can be asked for, from annotated responses.

Rule: compute_conditions. Example:

    python -m scripts.compute_conditions --annotations annotations/0.jsonl \
        --prompts data/prompts/d2.jsonl --seed 0 --output steerlm/conditions.json

Writes the targets of iteration 1's samples (from the responses to --prompts) and the evaluated
curve (from all training responses).
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    AnnotationsOption,
    CurvePointsOption,
    DirectionsOption,
    MembersOption,
    OutputOption,
    PromptsOption,
    SeedOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    annotations: AnnotationsOption,
    prompts: PromptsOption,
    seed: SeedOption,
    output: OutputOption,
    directions: DirectionsOption = None,
    members: MembersOption = 1,
    top_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of responses, the best, that give targets.")
    ] = 0.02,
    curve_points: CurvePointsOption = 5,
) -> None:
    """Work out which conditions SteerLM can be asked for."""
    import msgspec
    import numpy as np

    from dpa.artefacts.jsonl import decode_lines
    from dpa.artefacts.outputs import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.conditions import Conditions, feasible_curve, frontier_targets
    from dpa.config.steering import DistributionConfig
    from dpa.errors import InputError
    from dpa.members import joined_annotations, mean_rewards
    from dpa.records import Prompt

    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    wanted = {prompt.prompt_id for prompt in decode_lines(prompts, Prompt)}
    everything, mine = [], []
    row_counts = RowCounts()
    for _, record, opinions in joined_annotations(annotations, members):
        row_counts.read += 1
        if record.split != "train":
            row_counts.drop("held out", asked_for=True)
            continue
        rewards = mean_rewards(opinions)
        everything.append(rewards)
        if record.prompt_id in wanted:
            mine.append(rewards)
    if not mine:
        raise InputError(f"{prompts}: none of these prompts has an annotated response")
    conditions = Conditions(
        targets=frontier_targets(np.array(mine), distribution, seed, top_fraction)
        .round(2)
        .tolist(),
        curve=feasible_curve(np.array(everything), curve_points),
    )
    write_text(output, msgspec.json.encode(conditions).decode() + "\n")
    write_sidecar(output, [*annotations, prompts], row_counts, from_prompts=len(mine))
    ends = conditions.curve[0], conditions.curve[-1]
    log.info("curve from %s to %s, of %d responses", *ends, len(everything))


if __name__ == "__main__":
    run_app(app)
