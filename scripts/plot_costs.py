"""Draw what a run cost, by rule and by training stage, and make the table of it.

Rule: plot_costs. Example (repeat --run for more seeds):

    python -m scripts.plot_costs --run results/quickstart --parts '{"dpa": ["dpa/iter1"]}' \
        --experiment quickstart --output-dir figures --tables-dir tables

reads the run's benchmarks/ and sidecars; writes figures/costs.{pdf,svg,png,csv,md} and
tables/costs.{csv,md,tex}. --parts names the folders of a run that make up each method.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    run: Annotated[list[Path], typer.Option(help="Results folder of a seed.")],
    parts: Annotated[str, typer.Option(help="Method -> folders below the run (JSON).")],
    experiment: Annotated[str, typer.Option(help="Its name, for title and caption.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the figure's files.")],
    tables_dir: Annotated[Path, typer.Option(help="Folder of the table's files.")],
    dpi: Annotated[int, typer.Option(min=50, help="Of the PNG file.")] = 200,
) -> None:
    """Draw what a run cost."""
    from pydantic import TypeAdapter

    from dpa.report.figures.costs import (
        cost_caption,
        cost_marks,
        cost_tables,
        draw_costs,
        rule_costs,
        stage_costs,
    )
    from dpa.report.figures.style import write_figure
    from dpa.report.tables import latex, markdown, write_tables

    rules = rule_costs(run)
    stages = stage_costs(run, parse(TypeAdapter(dict[str, list[str]]), parts, "parts"))
    marks = cost_marks(rules, stages)
    title = f"Cost, experiment {experiment}"
    caption = cost_caption(rules, experiment, len(run))
    write_figure(output_dir, "costs", draw_costs(marks, title), marks, caption, [], dpi)
    page = (title, "", cost_tables(rules, stages))
    texts = {
        "costs.csv": rules.to_csv(index=False, float_format="%.6g"),
        "costs.md": markdown(*page),
        "costs.tex": latex(*page),
    }
    write_tables(tables_dir, texts, [], len(rules))
    log.info("wrote %s", output_dir / "costs.pdf")


if __name__ == "__main__":
    run(app)
