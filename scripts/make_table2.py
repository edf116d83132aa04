"""Make table 2: RewardBench generations against a reference, and the reward model's accuracy.

Rule: make_table2. Example:

    python -m scripts.make_table2 --win-rates rewardbench/win_rates.csv \
        --accuracy rewardbench/reward_model_accuracy.csv \
        --published results/published/table2_rewardbench_gemma2b.csv \
        --objectives helpfulness,verbosity --experiment quickstart --output-dir tables

writes table2 and rewardbench_reward_model: subsets, sections and averages in .csv, sections and
averages in .md and .tex. --world says that the prompts are the quickstart's, not RewardBench's.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    win_rates: Annotated[Path, typer.Option(help="rewardbench/win_rates.csv")],
    accuracy: Annotated[Path, typer.Option(help="rewardbench/reward_model_accuracy.csv")],
    published: Annotated[Path, typer.Option(help="The paper's table 2 (CSV).")],
    objectives: Annotated[str, typer.Option(help="Names, comma-separated.")],
    experiment: Annotated[str, typer.Option(help="Its name, for the captions.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the tables' files.")],
    world: Annotated[bool, typer.Option(help="The benchmark is the quickstart's own.")] = False,
) -> None:
    """Make table 2."""
    import pandas as pd

    from dpa.report import table2
    from dpa.report.tables import latex, markdown, write_tables

    names = objectives.split(",")
    rates = table2.read_win_rates(win_rates)
    table = table2.table2(rates, pd.read_csv(published), names)
    scored = pd.read_csv(accuracy)
    lead = table2.table2_lead(rates, experiment, world)
    pages = {
        "table2": (table, (table2.HEADING, lead, table2.table2_tables(table, names))),
        "rewardbench_reward_model": (
            scored,
            (
                table2.ACCURACY_HEADING,
                f"Experiment {experiment}.",
                table2.accuracy_tables(scored),
            ),
        ),
    }
    for name, (data, page) in pages.items():
        texts = {
            f"{name}.csv": data.to_csv(index=False, float_format="%.6g"),
            f"{name}.md": markdown(*page),
            f"{name}.tex": latex(*page),
        }
        write_tables(output_dir, texts, [win_rates, accuracy, published], len(data))
    log.info("wrote %s", output_dir / "table2.md")


if __name__ == "__main__":
    run(app)
