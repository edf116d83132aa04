"""Pair each direction's best and worst response: an iteration's data for directional DPO.

Rule: select_pairs. Example:

    python -m scripts.select_pairs --scored scored/0.jsonl --scored scored/1.jsonl \
        --prompts data/prompts/d2.jsonl --iteration 1 --seed 0 \
        --directions '{"law": "arc", "from_degrees": -45, "to_degrees": 0}' \
        --directions-per-prompt 5 --responses-per-direction 16 --output pairs.jsonl

Writes one Pair record per line, byte-identical for any number and order of shards.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    scored: Annotated[list[Path], typer.Option(help="Scored shards, any order.")],
    prompts: Annotated[Path, typer.Option(help="The iteration's prompt file.")],
    iteration: Annotated[int, typer.Option(min=1)],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    directions: Annotated[str, typer.Option(help="Direction law (JSON).")],
    directions_per_prompt: Annotated[int, typer.Option(min=1)],
    responses_per_direction: Annotated[int, typer.Option(min=1)],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Pair each direction's best and worst response."""
    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import Distribution
    from dpa.methods.best_of_n import SelectionPlan
    from dpa.methods.preference_pairs import sampled_pairs

    plan = SelectionPlan(
        law=parse(Distribution, directions, "directions").model_dump(),
        seed=seed,
        iteration=iteration,
        directions_per_prompt=directions_per_prompt,
        responses_per_direction=responses_per_direction,
    )
    sampled, paired = RowCounts(), RowCounts()
    rows = write_jsonl(output, sampled_pairs(scored, prompts, plan, sampled, paired))
    write_sidecar(output, [*scored, prompts], sampled, rows=rows, pairs=paired.as_dict())
    log.info("%d pairs for %d of %d prompts", rows, sampled.kept, sampled.read)


if __name__ == "__main__":
    run(app)
