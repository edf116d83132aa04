"""Make table 2: RewardBench generations against a reference, and the reward model's accuracy.

Rule: make_table2. Example:

    python -m scripts.make_table2 --win-rates rewardbench/win_rates.csv \
        --accuracy rewardbench/reward_model_accuracy.csv \
        --published results/published/table2_rewardbench_gemma2b.csv \
        --objective-names helpfulness,verbosity --experiment quickstart --output-tables tables

writes table2 and rewardbench_reward_model: subsets, sections and averages in .csv, sections and
averages in .md and .tex. --world says that the prompts are the quickstart's, not RewardBench's.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ExperimentOption,
    ModelsScoringOption,
    ObjectiveNamesOption,
    OutputTablesOption,
    PublishedOption,
    WorldOption,
)

app = make_app()


@app.command()
def main(
    win_rates: Annotated[Path, typer.Option(help="rewardbench/win_rates.csv")],
    accuracy: Annotated[Path, typer.Option(help="rewardbench/reward_model_accuracy.csv")],
    published: PublishedOption,
    objective_names: ObjectiveNamesOption,
    experiment: ExperimentOption,
    output_tables: OutputTablesOption,
    world: WorldOption = False,
    reward_models: ModelsScoringOption = 1,
) -> None:
    """Make table 2."""
    from dpa.artefacts.frames import RESTORE, read_csv_table
    from dpa.report import table2
    from dpa.report.scorers import first_of
    from dpa.report.tables import csv_text, latex, markdown, write_tables

    names = objective_names.split(",")
    rates = table2.read_win_rates(win_rates)
    table = table2.table2(rates, read_csv_table(published, RESTORE), names)
    scored = read_csv_table(accuracy)
    lead = table2.table2_lead(rates, experiment, world)
    pages = {
        "table2": (table, (table2.TABLE2_HEADING, lead, table2.table2_tables(table, names))),
        "rewardbench_reward_model": (
            scored,
            (
                table2.ACCURACY_HEADING,
                f"Experiment {experiment}.",
                table2.accuracy_tables(scored, first_of(reward_models, 1)),
            ),
        ),
    }
    for name, (data, page) in pages.items():
        texts = {
            f"{name}.csv": csv_text(data),
            f"{name}.md": markdown(*page),
            f"{name}.tex": latex(*page),
        }
        write_tables(output_tables, texts, [win_rates, accuracy, published], len(data))
    log.info("wrote %s", output_tables / "table2.md")


if __name__ == "__main__":
    run_app(app)
