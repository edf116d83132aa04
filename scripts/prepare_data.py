"""Map raw ratings to 0-100 and split prompts into D1, D2 and validation.

Rule: prepare_data. Example (the `data` section of the quickstart as JSON):

    python -m scripts.prepare_data --seed 0 --ratings ratings.jsonl --d1 d1.jsonl --d2 d2.jsonl \
        --validation validation.jsonl --data "$(python -c 'from dpa.config import load_config; \
        print(load_config().data.model_dump_json(by_alias=True))')"

Writes the four JSONL files, each with a sidecar that counts what was read, kept and dropped, by
reason. Without train_prompts (an experiment that trains a reward model only) the three prompt files
are empty. Ratings stream to disk: memory holds the prompts, not the responses.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    data: Annotated[str, typer.Option(help="config.yaml's data (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    ratings: Annotated[Path, typer.Option(help="Output: labelled responses.")],
    d1: Annotated[Path, typer.Option(help="Output: training prompts, first half.")],
    d2: Annotated[Path, typer.Option(help="Output: training prompts, second half.")],
    validation: Annotated[Path, typer.Option(help="Output: held-out prompts.")],
) -> None:
    """Map raw ratings to 0-100 and split prompts into D1, D2 and validation."""
    from dpa.config.data import DataConfig
    from dpa.data.prepare import prepare_data

    prepare_data(parse(DataConfig, data, "data"), seed, ratings, d1, d2, validation)


if __name__ == "__main__":
    run(app)
