"""Draw figure 4: validation rewards of every method and iteration, and their hypervolume.

Rule: plot_pareto_front. Example (one seed; repeat --prompt-rewards for more):

    python -m scripts.plot_pareto_front --prompt-rewards evaluation/prompt_rewards.parquet \
        --objective-names helpfulness,verbosity --hypervolume-reference 0,100 \
        --published results/published/figure4_validation_rewards.csv --experiment quickstart \
        --output-figures figures

writes figure4.pdf, .svg, .png, its marks (figure4.csv) and its caption (figure4.md). The paper's
marks are always in the table; --draw-published draws them too. --extra draws other methods' numbers
beside ours, by a label and a file each (docs/outputs.md).
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    CurvePointsOption,
    DrawPublishedOption,
    ExperimentOption,
    FigureStyleOption,
    ObjectiveNamesOption,
    OutputFiguresOption,
    PromptRewardsOption,
    PublishedOption,
    ReferenceOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    prompt_rewards: PromptRewardsOption,
    objective_names: ObjectiveNamesOption,
    hypervolume_reference: ReferenceOption,
    published: PublishedOption,
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    curve_points: CurvePointsOption = 5,
    draw_published: DrawPublishedOption = False,
    uncertainty: Annotated[str, typer.Option(help="ellipses, bars or none.")] = "ellipses",
    extra: Annotated[
        str | None, typer.Option(help="figures.extra: [{label, file}, ...] (JSON, or @file).")
    ] = None,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw figure 4."""
    from pathlib import Path

    from pydantic import TypeAdapter

    from dpa.artefacts.frames import RESTORE, read_csv_table
    from dpa.config.figures import FigureStyleConfig, GivenPointsConfig
    from dpa.evaluation.bootstrap import common_prompts, read_prompt_rewards
    from dpa.evaluation.given_points import read_given_points
    from dpa.report.figures.fronts import draw_figure4, figure4_caption, figure4_marks
    from dpa.report.figures.style import drawn_in, write_figure

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    given = read_section(TypeAdapter(list[GivenPointsConfig]), extra, "extra", "figures.extra")
    names = objective_names.split(",")
    reference = [float(value) for value in hypervolume_reference.split(",")]
    tables = [read_prompt_rewards(path, names, outside=True) for path in prompt_rewards]
    others = {points.label: read_given_points(Path(points.file), names) for points in given}
    marks = figure4_marks(
        tables, names, reference, read_csv_table(published, RESTORE), curve_points, others
    )
    title = style.title_of(f"Figure 4, experiment {experiment}")
    prompts = min(len(common_prompts(table)) for table in tables)
    caption = figure4_caption(marks, experiment, names, prompts, uncertainty)
    inputs = [*prompt_rewards, published, *(Path(points.file) for points in given)]
    with drawn_in(style):
        figure = draw_figure4(marks, names, title, draw_published, uncertainty)
        write_figure(output_figures, "figure4", figure, marks, caption, inputs, style)
    log.info("wrote %s", output_figures / "figure4.pdf")


if __name__ == "__main__":
    run_app(app)
