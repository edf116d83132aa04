"""Get RewardBench's rows and prompts, and check that every subset is complete.

Rule: prepare_rewardbench. Example:

    python -m scripts.prepare_rewardbench --source '{"path": "filtered.parquet"}' \
        --sections '[{"name": "Chat", "subsets": {"alpacaeval-easy": 100}}]' \
        --output-items rewardbench/items.jsonl --output-prompts rewardbench/prompts.jsonl

Writes a Choice record per row, and a Prompt record per different prompt.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputPromptsOption, SectionsOption, SourceOption
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    source: SourceOption,
    output_items: Annotated[Path, typer.Option(help="The benchmark's rows, which are written.")],
    output_prompts: OutputPromptsOption,
    sections: SectionsOption = None,
) -> None:
    """Get RewardBench's rows and prompts, and check that every subset is complete."""

    from dpa.config.benchmarks import BenchmarkSectionsConfig
    from dpa.config.data import SourceConfig
    from dpa.evaluation.rewardbench_data import prepare_rewardbench

    expected = read_section(BenchmarkSectionsConfig, sections, "sections", "rewardbench.sections")
    prepare_rewardbench(
        read_section(SourceConfig, source, "source"), expected, output_items, output_prompts
    )


if __name__ == "__main__":
    run_app(app)
