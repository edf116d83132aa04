"""Pair the ratings of the training prompts' responses, for DPO.

Rule: pair_ratings. Example:

    python -m scripts.pair_ratings --ratings data/ratings.jsonl --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --dataset ultrafeedback --seed 0 --output dpo/pairs.jsonl

Chosen has the highest mean rating, rejected is a seeded choice among the rest (zephyr's recipe).
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    DatasetOption,
    OutputOption,
    PromptFilesOption,
    RatingsOption,
    SeedOption,
)

app = make_app()


@app.command()
def main(
    ratings: RatingsOption,
    prompts: PromptFilesOption,
    dataset: DatasetOption,
    seed: SeedOption,
    output: OutputOption,
) -> None:
    """Pair rated responses."""
    from dpa.artefacts.jsonl import decode_lines, write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.methods.preference_pairs import rating_pairs
    from dpa.records import Prompt

    wanted = {prompt.prompt_id for path in prompts for prompt in decode_lines(path, Prompt)}
    row_counts = RowCounts()
    rows = write_jsonl(output, rating_pairs(ratings, dataset, wanted, seed, row_counts))
    write_sidecar(output, [ratings, *prompts], row_counts, rows=rows)
    log.info("%d pairs for %d prompts", rows, row_counts.read)


if __name__ == "__main__":
    run_app(app)
