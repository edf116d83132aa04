"""Make table 1: the methods' properties, rewards and costs in numbers, and DPA against each.

Rule: make_table1. Example (one seed; repeat --prompt-rewards and --run for more):

    python -m scripts.make_table1 --prompt-rewards evaluation/prompt_rewards.parquet --run . \
        --stages '{"dpa": ["dpa/iter0", "dpa/iter1"], "sft": ["sft"], "dpo": []}' \
        --objective-names helpfulness,verbosity --hypervolume-reference 0,100 \
        --published results/published/table1_method_properties.csv --output-tables tables

writes table1 and comparison, each as .csv, .md and .tex. --stages names the folders of a run
whose cost is a method's: none for a model that was not trained here.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ObjectiveNamesOption,
    OutputTablesOption,
    PromptRewardsOption,
    PublishedOption,
    ReferenceOption,
    RunsOption,
    StagesOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    prompt_rewards: PromptRewardsOption,
    run: RunsOption,
    stages: StagesOption,
    objective_names: ObjectiveNamesOption,
    hypervolume_reference: ReferenceOption,
    published: PublishedOption,
    output_tables: OutputTablesOption,
) -> None:
    """Make table 1 and the comparison with DPA."""
    from pydantic import TypeAdapter

    from dpa.artefacts.frames import RESTORE, read_csv_table
    from dpa.errors import InputError
    from dpa.evaluation.bootstrap import REPLICATES, read_prompt_rewards
    from dpa.report.comparison import (
        COMPARISON_HEADING,
        comparison,
        comparison_lead,
        comparison_tables,
    )
    from dpa.report.seed_measures import measure_seeds
    from dpa.report.table1 import TABLE1_HEADING, table1, table1_lead, table1_tables
    from dpa.report.tables import csv_text, latex, markdown, write_tables

    names = objective_names.split(",")
    reference = [float(value) for value in hypervolume_reference.split(",")]
    if len(reference) != len(names):
        raise InputError(f"--hypervolume-reference: give {len(names)} values, one per objective")
    if len(prompt_rewards) != len(run):
        raise InputError(f"{len(prompt_rewards)} --prompt-rewards, {len(run)} --run: give pairs")
    folders = read_section(TypeAdapter(dict[str, list[str]]), stages, "stages")
    seen, unseen = (
        [read_prompt_rewards(path, names, unseen=harder) for path in prompt_rewards]
        for harder in (False, True)
    )
    outside = [read_prompt_rewards(path, names, outside=True) for path in prompt_rewards]
    seeds = measure_seeds(seen, run, folders, names, reference, unseen, outside)
    if len(numbers := {seed.seed for seed in seeds}) < len(seeds):
        raise InputError(f"--prompt-rewards: {len(seeds)} tables of seeds {sorted(numbers)} only")
    table = table1(seeds, len(names), read_csv_table(published, RESTORE, ["method"]))
    compared = comparison(seeds)
    page = (TABLE1_HEADING, table1_lead(seeds), table1_tables(table))
    against = (COMPARISON_HEADING, comparison_lead(seeds), comparison_tables(compared))
    for name, data, shown in (("table1", table, page), ("comparison", compared, against)):
        texts = {
            f"{name}.csv": csv_text(data, "%.12g"),
            f"{name}.md": markdown(*shown),
            f"{name}.tex": latex(*shown),
        }
        write_tables(
            output_tables,
            texts,
            [*prompt_rewards, published],
            len(data),
            seeds=[seed.seed for seed in seeds],
            prompts=[seed.prompts for seed in seeds],
            clusters=[len(seed.clusters) for seed in seeds],
            replicates=REPLICATES,
        )
    log.info("%d methods, %d seeds: %s", len(table), len(seeds), output_tables / "table1.md")


if __name__ == "__main__":
    run_app(app)
