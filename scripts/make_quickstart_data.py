"""Make the quickstart's world: raw data in the schemas of the real data sets.

Rule: make_quickstart_data. Example:

    python -m scripts.make_quickstart_data --seed 0 --output results/quickstart/data/raw

Writes helpsteer/{train,validation}.jsonl, ultrafeedback.jsonl,
ultrafeedback_binarized/{train_prefs,test_prefs}.jsonl, unseen_prompts.jsonl, ultrachat.jsonl,
pretraining.jsonl, alpaca_eval.json and reward_bench.jsonl.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import OutputFilesOption, SeedOption

app = make_app()


@app.command()
def main(
    seed: SeedOption,
    output: OutputFilesOption,
    helpsteer_rows: Annotated[int, typer.Option(min=1)] = 8000,
    ultrafeedback_prompts: Annotated[int, typer.Option(min=1)] = 2000,
    validation_prompts: Annotated[int, typer.Option(min=1)] = 100,
    unseen_prompts: Annotated[int, typer.Option(min=1)] = 40,
    pretraining_documents: Annotated[int, typer.Option(min=1)] = 6000,
    sft_rows: Annotated[int, typer.Option(min=1)] = 4000,
    alpacaeval_prompts: Annotated[int, typer.Option(min=1)] = 60,
    rewardbench_rows: Annotated[int, typer.Option(min=1, help="Of each subset.")] = 10,
) -> None:
    """Make the quickstart's world."""
    import json

    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.outputs import hold, write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.quickstart.world import WorldSizes, build_world

    sizes = WorldSizes(
        helpsteer_rows=helpsteer_rows,
        ultrafeedback_prompts=ultrafeedback_prompts,
        validation_prompts=validation_prompts,
        unseen_prompts=unseen_prompts,
        pretraining_documents=pretraining_documents,
        sft_rows=sft_rows,
        alpacaeval_prompts=alpacaeval_prompts,
        rewardbench_rows=rewardbench_rows,
    )
    for name, rows in build_world(seed, sizes).items():
        path = output / name
        hold(path)
        if path.suffix == ".json":
            write_text(path, json.dumps(rows, indent=1) + "\n")
        else:
            write_jsonl(path, rows)
        write_sidecar(path, [], RowCounts.all_kept(len(rows)), seed=seed)
        log.info("%s: %d rows", path, len(rows))


if __name__ == "__main__":
    run_app(app)
