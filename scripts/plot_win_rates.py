"""Draw figure 5: AlpacaEval 2 win rate against response length.

Rule: plot_win_rates. Example:

    python -m scripts.plot_win_rates --results alpacaeval/results.csv \
        --published results/published/figure5_alpacaeval2.csv --objectives helpfulness,verbosity \
        --experiment quickstart --output-dir figures

writes figure5.{pdf,svg,png,csv,md}. The paper's marks are always in the table; --draw-published
draws them too. --world says that the instructions are the quickstart's, not AlpacaEval's.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    results: Annotated[Path, typer.Option(help="alpacaeval/results.csv")],
    published: Annotated[Path, typer.Option(help="The paper's figure 5 (CSV).")],
    objectives: Annotated[str, typer.Option(help="Names, comma-separated.")],
    experiment: Annotated[str, typer.Option(help="Its name, for title and caption.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the figure's files.")],
    draw_published: Annotated[bool, typer.Option(help="Draw the paper's marks faintly.")] = False,
    world: Annotated[bool, typer.Option(help="The benchmark is the quickstart's own.")] = False,
    dpi: Annotated[int, typer.Option(min=50, help="Of the PNG file.")] = 200,
) -> None:
    """Draw figure 5."""
    import pandas as pd

    from dpa.report.figures.style import write_figure
    from dpa.report.figures.win_rates import (
        draw_figure5,
        figure5_caption,
        figure5_marks,
        missing_reason,
        read_results,
    )

    names = objectives.split(",")
    table = read_results(results)
    marks = figure5_marks(table, pd.read_csv(published), names)
    title = f"Figure 5, experiment {experiment}"
    figure = draw_figure5(marks, names, title, draw_published, missing_reason(table))
    caption = figure5_caption(table, experiment, world)
    write_figure(output_dir, "figure5", figure, marks, caption, [results, published], dpi)
    log.info("wrote %s", output_dir / "figure5.pdf")


if __name__ == "__main__":
    run(app)
