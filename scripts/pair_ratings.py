"""Pair the ratings of the training prompts' responses, for DPO.

Rule: pair_ratings. Example:

    python -m scripts.pair_ratings --ratings data/ratings.jsonl --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --dataset ultrafeedback --seed 0 --output dpo/pairs.jsonl

Chosen has the highest mean rating, rejected is a seeded choice among the rest (zephyr's recipe).
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    ratings: Annotated[Path, typer.Option(help="ratings.jsonl")],
    prompts: Annotated[list[Path], typer.Option(help="Prompt files whose responses are paired.")],
    dataset: Annotated[str, typer.Option(help="Whose ratings: a name in data.ratings.")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Pair rated responses."""
    from dpa.artefacts.jsonl import decode_lines, write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.methods.preference_pairs import rating_pairs
    from dpa.records import Prompt

    wanted = {prompt.prompt_id for path in prompts for prompt in decode_lines(path, Prompt)}
    losses = RowCounts()
    rows = write_jsonl(output, rating_pairs(ratings, dataset, wanted, seed, losses))
    write_sidecar(output, [ratings, *prompts], losses, rows=rows)
    log.info("%d pairs for %d prompts", rows, losses.read)


if __name__ == "__main__":
    run(app)
