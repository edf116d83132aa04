"""Draw the reward model's predictions against held-out labels, and make the table of its quality.

Rule: plot_reward_model. Example:

    python -m scripts.plot_reward_model --predictions reward_model/predictions.parquet \
        --metrics reward_model/metrics.csv --ranking reward_model/ranking.csv \
        --experiment quickstart --output-figures figures --output-tables tables

writes figures/reward_model.{pdf,svg,png,csv,md} and tables/reward_model.{csv,md,tex}.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ExperimentOption,
    FigureStyleOption,
    MetricsOption,
    ModelsScoringOption,
    OutputFiguresOption,
    OutputTablesOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    predictions: Annotated[Path, typer.Option(help="predictions.parquet")],
    metrics: MetricsOption,
    ranking: Annotated[Path, typer.Option(help="ranking.csv")],
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    output_tables: OutputTablesOption,
    judge_metrics: Annotated[
        Path | None, typer.Option(help="The judge's metrics.csv, for its agreement beside.")
    ] = None,
    judge_ranking: Annotated[Path | None, typer.Option(help="The judge's ranking.csv.")] = None,
    reward_models: ModelsScoringOption = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the experiment.")] = 1,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw the reward model's predictions against held-out labels."""
    import pandas as pd

    from dpa.artefacts.frames import read_csv_table, read_parquet_table
    from dpa.config.figures import FigureStyleConfig
    from dpa.report.figures.reward_model import (
        draw_reward_model,
        quality,
        quality_table,
        reward_model_caption,
        reward_model_marks,
    )
    from dpa.report.figures.style import drawn_in, write_figure
    from dpa.report.scorers import first_of
    from dpa.report.tables import csv_text, latex, markdown, write_tables

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    table = quality(read_csv_table(metrics), read_csv_table(ranking))
    marks = reward_model_marks(read_parquet_table(predictions))
    title = f"Reward model, experiment {experiment}"
    inputs = [predictions, metrics, ranking]
    caption = reward_model_caption(table, marks, experiment, first_of(reward_models, seeds))
    with drawn_in(style):
        figure = draw_reward_model(marks, table, style.title_of(title))
        write_figure(output_figures, "reward_model", figure, marks, caption, inputs, style)
    shown, rows = [quality_table(table, first_of(reward_models, seeds))], table
    if judge_metrics is not None and judge_ranking is not None:
        inputs += [judge_metrics, judge_ranking]
        judges = quality(read_csv_table(judge_metrics), read_csv_table(judge_ranking))
        judge = quality_table(judges, first_of(1, seeds))
        shown.append(judge._replace(title="The judge, which never selects"))
        rows = pd.concat([table.assign(scorer="reward_model"), judges.assign(scorer="judge")])
    page = (title, "", shown)
    texts = {
        "reward_model.csv": csv_text(rows, None),
        "reward_model.md": markdown(*page),
        "reward_model.tex": latex(*page),
    }
    write_tables(output_tables, texts, inputs, len(rows))
    log.info("wrote %s", output_figures / "reward_model.pdf")


if __name__ == "__main__":
    run_app(app)
