"""Get AlpacaEval's instructions and its reference outputs.

Rule: prepare_alpacaeval. Example:

    python -m scripts.prepare_alpacaeval --source '{"path": "reference_outputs.json"}' \
        --expected 805 --output-prompts alpacaeval/prompts.jsonl \
        --output-reference alpacaeval/reference_outputs.json

Writes Prompt records and the reference outputs in AlpacaEval's own format.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputPromptsOption, SourceOption
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    source: SourceOption,
    expected: Annotated[int, typer.Option(min=1, help="Number of instructions.")],
    output_prompts: OutputPromptsOption,
    output_reference: Annotated[Path, typer.Option(help="Reference outputs that are written.")],
) -> None:
    """Get AlpacaEval's instructions and its reference outputs."""
    from dpa.config.data import SourceConfig
    from dpa.evaluation.alpacaeval import prepare_alpacaeval

    prepare_alpacaeval(
        read_section(SourceConfig, source, "source"), expected, output_prompts, output_reference
    )


if __name__ == "__main__":
    run_app(app)
