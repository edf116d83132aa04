"""Get RewardBench's rows and prompts, and check that every subset is complete.

Rule: prepare_rewardbench. Example:

    python -m scripts.prepare_rewardbench --source '{"path": "filtered.parquet"}' \
        --sections '[{"name": "Chat", "subsets": {"alpacaeval-easy": 100}}]' \
        --items rewardbench/items.jsonl --prompts rewardbench/prompts.jsonl

Writes a Choice record per row, and a Prompt record per different prompt.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    source: Annotated[str, typer.Option(help="config.yaml's rewardbench.data (JSON).")],
    sections: Annotated[str, typer.Option(help="config.yaml's rewardbench.sections (JSON).")],
    items: Annotated[Path, typer.Option(help="Choices to write.")],
    prompts: Annotated[Path, typer.Option(help="Prompts to write.")],
) -> None:
    """Get RewardBench's rows and prompts, and check that every subset is complete."""
    from pydantic import TypeAdapter

    from dpa.config.benchmarks import BenchmarkSectionConfig
    from dpa.config.data import SourceConfig
    from dpa.evaluation.rewardbench_data import prepare_rewardbench

    expected = parse(TypeAdapter(list[BenchmarkSectionConfig]), sections, "sections")
    prepare_rewardbench(parse(SourceConfig, source, "source"), expected, items, prompts)


if __name__ == "__main__":
    run(app)
