"""Make the quickstart's world: raw data in the schemas of the real data sets.

Rule: make_quickstart_data. Example:

    python -m scripts.make_quickstart_data --seed 0 --output-dir results/quickstart/data/raw

Writes helpsteer/{train,validation}.jsonl, ultrafeedback.jsonl,
ultrafeedback_binarized/{train_prefs,test_prefs}.jsonl, ultrachat.jsonl and pretraining.jsonl.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, run

app = make_app()


@app.command()
def main(
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output_dir: Annotated[Path, typer.Option()],
    helpsteer_rows: Annotated[int, typer.Option(min=1)] = 8000,
    ultrafeedback_prompts: Annotated[int, typer.Option(min=1)] = 2000,
    validation_prompts: Annotated[int, typer.Option(min=1)] = 100,
    pretraining_documents: Annotated[int, typer.Option(min=1)] = 6000,
    sft_rows: Annotated[int, typer.Option(min=1)] = 4000,
) -> None:
    """Make the quickstart's world."""
    from dpa.provenance import write_sidecar
    from dpa.records import write_jsonl
    from dpa.world import Sizes, build_world

    sizes = Sizes(
        helpsteer_rows=helpsteer_rows,
        ultrafeedback_prompts=ultrafeedback_prompts,
        validation_prompts=validation_prompts,
        pretraining_documents=pretraining_documents,
        sft_rows=sft_rows,
    )
    for name, rows in build_world(seed, sizes).items():
        count = write_jsonl(output_dir / name, rows)
        write_sidecar(output_dir / name, rows=count, seed=seed)
        log.info("%s: %d rows", output_dir / name, count)


if __name__ == "__main__":
    run(app)
