"""Draw what DPA's iterations gain against how far they have moved from the SFT policy.

Rule: plot_overoptimisation. Example:

    python -m scripts.plot_overoptimisation --variant plain=results/quickstart \
        --variant feedback=results/quickstart-feedback --objective-names helpfulness,verbosity \
        --experiment quickstart --output-figures figures

writes overoptimisation.{pdf,svg,png,csv,md}. Each variant is a curve; a label that is given several
times has a seed in each of its folders.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ExperimentOption,
    FigureStyleOption,
    ObjectiveNamesOption,
    OutputFiguresOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    variant: Annotated[
        list[str], typer.Option(help="LABEL=FOLDER: a curve's name, and the folder of a run.")
    ],
    objective_names: ObjectiveNamesOption,
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw gains against divergence."""
    from pathlib import Path

    from dpa.config.figures import FigureStyleConfig
    from dpa.errors import InputError
    from dpa.report.figures.overoptimisation import (
        draw_overoptimisation,
        overoptimisation_caption,
        overoptimisation_marks,
        read_measured_run,
    )
    from dpa.report.figures.style import drawn_in, write_figure

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    names = objective_names.split(",")
    variants: dict[str, list] = {}
    for given in variant:
        label, equals, folder = given.partition("=")
        if not (label and equals and folder):
            raise InputError(f"--variant {given}: give LABEL=FOLDER")
        variants.setdefault(label, []).append(read_measured_run(Path(folder), names))
    marks = overoptimisation_marks(variants, names)
    inputs = [path for runs in variants.values() for run in runs for path in run.files]
    caption = overoptimisation_caption(marks, experiment)
    title = style.title_of(f"Over-optimisation, experiment {experiment}")
    with drawn_in(style):
        figure = draw_overoptimisation(marks, title)
        write_figure(output_figures, "overoptimisation", figure, marks, caption, inputs, style)
    log.info("wrote %s", output_figures / "overoptimisation.pdf")


if __name__ == "__main__":
    run_app(app)
