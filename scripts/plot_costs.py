"""Draw what a run cost, by rule and by training stage, and make the table of it.

Rule: plot_costs. Example (repeat --run for more seeds):

    python -m scripts.plot_costs --run results/quickstart --stages '{"dpa": ["dpa/iter1"]}' \
        --experiment quickstart --output-figures figures --output-tables tables

reads the run's benchmarks/ and sidecars; writes figures/costs.{pdf,svg,png,csv,md} and
tables/costs.{csv,md,tex}. --stages names the folders of a run that make up each method.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ExperimentOption,
    FigureStyleOption,
    OutputFiguresOption,
    OutputTablesOption,
    RunsOption,
    StagesOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    run: RunsOption,
    stages: StagesOption,
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    output_tables: OutputTablesOption,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw what a run cost."""
    from pydantic import TypeAdapter

    from dpa.config.figures import FigureStyleConfig
    from dpa.report.figures.costs import (
        cost_caption,
        cost_marks,
        cost_tables,
        draw_costs,
        rule_costs,
        stage_costs,
    )
    from dpa.report.figures.style import drawn_in, write_figure
    from dpa.report.tables import csv_text, latex, markdown, write_tables

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    rules = rule_costs(run)
    by_stage = stage_costs(run, read_section(TypeAdapter(dict[str, list[str]]), stages, "stages"))
    marks = cost_marks(rules, by_stage)
    title = f"Cost, experiment {experiment}"
    caption = cost_caption(rules, experiment, len(run))
    with drawn_in(style):
        figure = draw_costs(marks, style.title_of(title))
        write_figure(output_figures, "costs", figure, marks, caption, [], style)
    page = (title, "", cost_tables(rules, by_stage))
    texts = {
        "costs.csv": csv_text(rules),
        "costs.md": markdown(*page),
        "costs.tex": latex(*page),
    }
    write_tables(output_tables, texts, [], len(rules))
    log.info("wrote %s", output_figures / "costs.pdf")


if __name__ == "__main__":
    run_app(app)
