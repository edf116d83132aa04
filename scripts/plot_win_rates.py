"""Draw figure 5: AlpacaEval 2 win rate against response length.

Rule: plot_win_rates. Example:

    python -m scripts.plot_win_rates --alpacaeval-results alpacaeval/results.csv \
        --published results/published/figure5_alpacaeval2.csv \
        --objective-names helpfulness,verbosity --experiment quickstart --output-figures figures

writes figure5.{pdf,svg,png,csv,md}. The paper's marks are always in the table; --draw-published
draws them too. --world says that the instructions are the quickstart's, not AlpacaEval's.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    DrawPublishedOption,
    ExperimentOption,
    FigureStyleOption,
    ObjectiveNamesOption,
    OutputFiguresOption,
    PublishedOption,
    WorldOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    win_rates_by_length: Annotated[
        Path, typer.Option("--alpacaeval-results", help="alpacaeval/results.csv")
    ],
    published: PublishedOption,
    objective_names: ObjectiveNamesOption,
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    draw_published: DrawPublishedOption = False,
    world: WorldOption = False,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw figure 5."""
    from dpa.artefacts.frames import RESTORE, read_csv_table
    from dpa.config.figures import FigureStyleConfig
    from dpa.report.figures.style import drawn_in, write_figure
    from dpa.report.figures.win_rates import (
        draw_figure5,
        figure5_caption,
        figure5_marks,
        read_results,
    )

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    names = objective_names.split(",")
    table = read_results(win_rates_by_length)
    marks = figure5_marks(table, read_csv_table(published, RESTORE), names)
    title = style.title_of(f"Figure 5, experiment {experiment}")
    caption = figure5_caption(table, experiment, names, world)
    inputs = [win_rates_by_length, published]
    with drawn_in(style):
        figure = draw_figure5(marks, names, title, draw_published)
        write_figure(output_figures, "figure5", figure, marks, caption, inputs, style)
    log.info("wrote %s", output_figures / "figure5.pdf")


if __name__ == "__main__":
    run_app(app)
