"""Draw the training curves of what samples as it trains: reward, KL, length.

Rule: plot_policy_gradient. Example:

    python -m scripts.plot_policy_gradient --history ppo/100_0/history.csv \
        --experiment quickstart --output-figures figures

writes policy_gradient.{pdf,svg,png,csv,md}. The folder of a history names its direction or method.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import ExperimentOption, FigureStyleOption, OutputFiguresOption
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    history: Annotated[
        list[Path], typer.Option(help="history.csv files of directions or methods.")
    ],
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw the training curves of what samples as it trains."""
    import os

    from dpa.artefacts.frames import read_csv_table
    from dpa.config.figures import FigureStyleConfig
    from dpa.report.figures.policy_gradient import (
        draw_policy_gradient,
        policy_gradient_caption,
        policy_gradient_marks,
    )
    from dpa.report.figures.style import drawn_in, write_figure

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    common = os.path.commonpath([path.parent.parent for path in history])
    names = {str(path.parent.relative_to(common)): path for path in history}
    marks = policy_gradient_marks({name: read_csv_table(path) for name, path in names.items()})
    caption = policy_gradient_caption(marks, experiment)
    with drawn_in(style):
        figure = draw_policy_gradient(
            marks, style.title_of(f"Sampled in training, experiment {experiment}")
        )
        write_figure(output_figures, "policy_gradient", figure, marks, caption, history, style)
    log.info("wrote %s", output_figures / "policy_gradient.pdf")


if __name__ == "__main__":
    run_app(app)
