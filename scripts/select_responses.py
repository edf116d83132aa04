"""Select each direction's best response and add replayed originals: an iteration's training data.

Rule: select_responses. Example:

    python -m scripts.select_responses --scored scored/0.jsonl --scored scored/1.jsonl \
        --prompts data/prompts/d1.jsonl --annotations annotations/0.jsonl --iteration 1 --seed 0 \
        --directions '{"law": "arc", "from_degrees": -45, "to_degrees": 0}' \
        --directions-per-prompt 5 --responses-per-direction 16 --replay-fraction 0.15 --shared \
        --output selected.jsonl

Writes one Selected record per line, byte-identical for any number and order of shards.
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
    annotations: Annotated[list[Path], typer.Option(help="Annotated original responses.")],
    iteration: Annotated[int, typer.Option(min=1)],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    directions: Annotated[str, typer.Option(help="Direction law (JSON).")],
    directions_per_prompt: Annotated[int, typer.Option(min=1)],
    responses_per_direction: Annotated[int, typer.Option(min=1)],
    replay_fraction: Annotated[float, typer.Option(min=0, max=0.99)],
    output: Annotated[Path, typer.Option()],
    shared: Annotated[
        bool, typer.Option("--shared", help="Directions choose among all of a prompt's candidates.")
    ] = False,
) -> None:
    """Select each direction's best response and add replayed originals."""
    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import Distribution
    from dpa.methods.best_of_n import SelectionPlan, select

    plan = SelectionPlan(
        law=parse(Distribution, directions, "directions").model_dump(),
        seed=seed,
        iteration=iteration,
        directions_per_prompt=directions_per_prompt,
        responses_per_direction=responses_per_direction,
        shared=shared,
        replay_fraction=replay_fraction,
    )
    sampled, replayed = RowCounts(), RowCounts()
    rows = write_jsonl(output, select(scored, prompts, annotations, plan, sampled, replayed))
    write_sidecar(
        output, [*scored, prompts, *annotations], sampled, rows=rows, replay=replayed.as_dict()
    )
    log.info("selected %d rows for %d of %d prompts", rows, sampled.kept, sampled.read)


if __name__ == "__main__":
    run(app)
