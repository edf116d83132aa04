"""Get AlpacaEval's instructions and its reference outputs.

Rule: prepare_alpacaeval. Example:

    python -m scripts.prepare_alpacaeval --source '{"path": "reference_outputs.json"}' \
        --expected 805 --prompts alpacaeval/prompts.jsonl \
        --reference alpacaeval/reference_outputs.json

Writes Prompt records and the reference outputs in AlpacaEval's own format.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    source: Annotated[str, typer.Option(help="config.yaml's alpacaeval.reference (JSON).")],
    expected: Annotated[int, typer.Option(min=1, help="Number of instructions.")],
    prompts: Annotated[Path, typer.Option(help="Prompts to write.")],
    reference: Annotated[Path, typer.Option(help="Reference outputs to write.")],
) -> None:
    """Get AlpacaEval's instructions and its reference outputs."""
    from dpa.config.data import SourceConfig
    from dpa.evaluation.alpacaeval import prepare_alpacaeval

    prepare_alpacaeval(parse(SourceConfig, source, "source"), expected, prompts, reference)


if __name__ == "__main__":
    run(app)
