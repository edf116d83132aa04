"""Write sampled responses as output files of AlpacaEval, for any judge of outputs.

Rule: export_alpacaeval. Example:

    python -m scripts.export_alpacaeval --sampled alpacaeval/sampled/dpa-4.jsonl \
        --prompts alpacaeval/prompts.jsonl --output alpacaeval/outputs

Writes <policy>/<direction_index>.json with instruction, output, generator and dataset; -1 is the
index of a policy that takes no direction.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run

app = make_app()


@app.command()
def main(
    sampled: Annotated[list[Path], typer.Option(help="<policy>.jsonl")],
    prompts: Annotated[Path, typer.Option(help="AlpacaEval's instructions.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write sampled responses as output files of AlpacaEval."""
    from dpa.evaluation.alpacaeval import export_outputs

    export_outputs(sampled, prompts, output)


if __name__ == "__main__":
    run(app)
