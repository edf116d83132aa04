"""Draw the training curves of every model that an experiment trains.

Rule: plot_training_curves. Example (repeat --run for more seeds):

    python -m scripts.plot_training_curves --run results/quickstart --model sft/policy \
        --model dpa/iter1/policy --history ppo/100_0/history.csv \
        --experiment quickstart --output-figures figures

reads the losses in the models' sidecars; writes training_curves.{pdf,svg,png,csv,md}.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ExperimentOption,
    FigureStyleOption,
    OutputFiguresOption,
    RunsOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    run: RunsOption,
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    model: Annotated[list[str] | None, typer.Option(help="A model, below each run.")] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="A history.csv, below each run.")
    ] = None,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw the training curves of every model."""
    from dpa.config.figures import FigureStyleConfig
    from dpa.report.figures.style import drawn_in, write_figure
    from dpa.report.figures.training_curves import (
        draw_training_curves,
        training_curves_caption,
        training_marks,
    )

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    models, histories = model or [], history or []
    marks = training_marks(run, models, histories)
    caption = training_curves_caption(marks, experiment)
    title = style.title_of(f"Training curves, experiment {experiment}")
    inputs = [folder / name for folder in run for name in (*models, *histories)]
    with drawn_in(style):
        figure = draw_training_curves(marks, title)
        write_figure(output_figures, "training_curves", figure, marks, caption, inputs, style)
    log.info("wrote %s", output_figures / "training_curves.pdf")


if __name__ == "__main__":
    run_app(app)
