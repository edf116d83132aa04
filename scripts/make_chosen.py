"""Make the table of DPA's iteration that the judge chose, on the prompts that did not choose.

Rule: make_chosen (only with dpa.choose_iteration: judge). Example (repeat both for more seeds):

    python -m scripts.make_chosen --prompt-rewards evaluation/prompt_rewards.parquet \
        --chosen dpa/chosen.json --objective-names helpfulness,verbosity \
        --hypervolume-reference 0,100 --output-tables tables

writes chosen.csv, .md and .tex: the chosen iteration beside the last, by every scorer.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ObjectiveNamesOption,
    OutputTablesOption,
    PromptRewardsOption,
    ReferenceOption,
)

app = make_app()


@app.command()
def main(
    prompt_rewards: PromptRewardsOption,
    chosen: Annotated[list[Path], typer.Option(help="chosen.json of a run, a seed each.")],
    objective_names: ObjectiveNamesOption,
    hypervolume_reference: ReferenceOption,
    output_tables: OutputTablesOption,
) -> None:
    """Make the table of the chosen iteration."""
    import pandas as pd

    from dpa.errors import InputError
    from dpa.evaluation.bootstrap import read_prompt_rewards
    from dpa.evaluation.choice import chosen_rows
    from dpa.report.chosen import CHOSEN_HEADING, chosen_lead, chosen_table
    from dpa.report.tables import csv_text, latex, markdown, write_tables
    from dpa.runtime.reading import read_json_object

    if len(prompt_rewards) != len(chosen):
        raise InputError(f"{len(prompt_rewards)} --prompt-rewards, {len(chosen)} --chosen")
    names = objective_names.split(",")
    reference = [float(value) for value in hypervolume_reference.split(",")]
    rows = []
    for path, choice in zip(prompt_rewards, chosen, strict=True):
        iteration = read_json_object(choice).get("iteration")
        if not isinstance(iteration, int):
            raise InputError(f"{choice}: no iteration; rerun choose_iteration")
        rows += chosen_rows(read_prompt_rewards(path, names), iteration, names, reference)
    table = pd.DataFrame(rows)
    page = (CHOSEN_HEADING, chosen_lead(table), [chosen_table(table)])
    texts = {
        "chosen.csv": csv_text(table, "%.12g"),
        "chosen.md": markdown(*page),
        "chosen.tex": latex(*page),
    }
    write_tables(output_tables, texts, [*prompt_rewards, *chosen], len(table))
    log.info("wrote %s", output_tables / "chosen.md")


if __name__ == "__main__":
    run_app(app)
