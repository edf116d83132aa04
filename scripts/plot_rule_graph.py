"""Draw the workflow's rule graph from Snakemake's own description of it.

Rule: plot_rule_graph. Example:

    snakemake --rulegraph dot all | python -m scripts.plot_rule_graph --experiment quickstart \
        --output-dir figures

reads the graph from standard input; writes rule_graph.{pdf,svg,png,csv,md}.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, run

app = make_app()


@app.command()
def main(
    experiment: Annotated[str, typer.Option(help="Its name, for title and caption.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the figure's files.")],
    dpi: Annotated[int, typer.Option(min=50, help="Of the PNG file.")] = 200,
) -> None:
    """Draw the workflow's rule graph."""
    from dpa.figures.rule_graph import (
        draw_rule_graph,
        read_dot,
        rule_graph_caption,
        rule_graph_marks,
    )
    from dpa.figures.style import write_figure

    marks = rule_graph_marks(read_dot(sys.stdin.read()))
    figure = draw_rule_graph(marks, f"Rule graph, experiment {experiment}")
    write_figure(output_dir, "rule_graph", figure, marks, rule_graph_caption(experiment), [], dpi)
    log.info("wrote %s", output_dir / "rule_graph.pdf")


if __name__ == "__main__":
    run(app)
