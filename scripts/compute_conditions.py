"""Work out which (helpfulness, verbosity) SteerLM can be asked for, from annotated responses.

Rule: compute_conditions. Example:

    python -m scripts.compute_conditions --annotations annotations/0.jsonl \
        --prompts data/prompts/d2.jsonl --directions '{"law": "arc", ...}' --top-fraction 0.02 \
        --curve-points 5 --seed 0 --output steerlm/conditions.json

Writes the targets of iteration 1's samples (from the responses to --prompts) and the evaluated
curve (from all training responses).
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    annotations: Annotated[list[Path], typer.Option(help="Annotated original responses.")],
    prompts: Annotated[Path, typer.Option(help="Prompts whose responses give the targets (D2).")],
    directions: Annotated[str, typer.Option(help="Direction law (JSON).")],
    top_fraction: Annotated[float, typer.Option(min=0, max=1)],
    curve_points: Annotated[int, typer.Option(min=2)],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Work out which conditions SteerLM can be asked for."""
    import msgspec
    import numpy as np

    from dpa.artefacts.files import write_text
    from dpa.artefacts.jsonl import decode_lines
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.conditions import Conditions, feasible_curve, frontier_targets
    from dpa.config.steering import Distribution
    from dpa.errors import InputError
    from dpa.records import Annotation, Prompt

    law = parse(Distribution, directions, "directions").model_dump()
    wanted = {prompt.prompt_id for prompt in decode_lines(prompts, Prompt)}
    everything, mine = [], []
    losses = RowCounts()
    for path in annotations:
        for record in decode_lines(path, Annotation):
            losses.read += 1
            if record.split != "train":
                losses.drop("held out", asked_for=True)
            else:
                everything.append(record.rewards)
                if record.prompt_id in wanted:
                    mine.append(record.rewards)
    if not mine:
        raise InputError(f"{prompts}: none of these prompts has an annotated response")
    conditions = Conditions(
        targets=frontier_targets(np.array(mine), law, seed, top_fraction).round(2).tolist(),
        curve=feasible_curve(np.array(everything), curve_points),
    )
    write_text(output, msgspec.json.encode(conditions).decode() + "\n")
    write_sidecar(output, [*annotations, prompts], losses, from_prompts=len(mine))
    log.info("curve %s from %d responses", conditions.curve, len(everything))


if __name__ == "__main__":
    run(app)
