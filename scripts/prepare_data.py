"""Map raw ratings to 0-100 and split prompts into D1, D2 and validation.

Rule: prepare_data. Example (with config.yaml's data):

    python -m scripts.prepare_data --seed 0 --output-ratings ratings.jsonl --output-d1 d1.jsonl \
        --output-d2 d2.jsonl --output-validation validation.jsonl

Writes the four JSONL files, each with a sidecar that counts what was read, kept and dropped, by
reason. Without train_prompts (an experiment that trains a reward model only) the three prompt files
are empty. Ratings stream to disk: memory holds the prompts, not the responses.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import SeedOption
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    seed: SeedOption,
    output_ratings: Annotated[Path, typer.Option(help="Labelled responses that are written.")],
    output_d1: Annotated[Path, typer.Option(help="Training prompts that are written, first half.")],
    output_d2: Annotated[
        Path, typer.Option(help="Training prompts that are written, second half.")
    ],
    output_validation: Annotated[Path, typer.Option(help="Held-out prompts that are written.")],
    judge_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of prompts whose ratings are the judge's.")
    ] = 0.0,
    data: Annotated[
        str | None, typer.Option(help="Over config.yaml's data (JSON, or @file).")
    ] = None,
) -> None:
    """Map raw ratings to 0-100 and split prompts into D1, D2 and validation."""
    from dpa.config.data import DataConfig
    from dpa.data.prepare import prepare_data

    prepare_data(
        read_section(DataConfig, data, "data", "data"),
        seed,
        output_ratings,
        output_d1,
        output_d2,
        output_validation,
        judge_share,
    )


if __name__ == "__main__":
    run_app(app)
