"""Collect RewardBench's win rates against the reference, and the reward model's accuracy.

Rule: collect_rewardbench. Example:

    python -m scripts.collect_rewardbench --run results/quickstart --seed 0 --policies dpa-4 \
        --reference dpo --objective-names helpfulness,verbosity \
        --output-win-rates rewardbench/win_rates.csv \
        --output-accuracy rewardbench/reward_model_accuracy.csv

Give --run and --seed once per seed, in the same order. Without --reference there are no win rates.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import ObjectiveNamesOption, RunsOption, SectionsOption, SeedsOption
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    run: RunsOption,
    seed: SeedsOption,
    objective_names: ObjectiveNamesOption,
    output_accuracy: Annotated[
        Path, typer.Option(help="reward_model_accuracy.csv, which is written.")
    ],
    sections: SectionsOption = None,
    policies: Annotated[str, typer.Option(help="Policies in order, by commas.")] = "",
    reference: Annotated[
        str | None, typer.Option(help="The policy that others are compared with.")
    ] = None,
    output_win_rates: Annotated[
        Path | None, typer.Option(help="win_rates.csv, which is written.")
    ] = None,
) -> None:
    """Collect RewardBench's win rates and the reward model's accuracy."""

    from dpa.artefacts.outputs import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.benchmarks import BenchmarkSectionsConfig
    from dpa.evaluation import rewardbench

    groups = read_section(BenchmarkSectionsConfig, sections, "sections", "rewardbench.sections")
    names = objective_names.split(",")
    wins, accuracies, inputs = [], [], []
    for folder, number in zip((r / "rewardbench" for r in run), seed, strict=True):
        rewards = folder / "rewards.jsonl"
        inputs.append(rewards)
        accuracies += rewardbench.accuracies(rewards, groups, names, number)
        if reference is not None:
            judged = [folder / f"judged/{policy}.jsonl" for policy in policies.split(",")]
            against = folder / f"judged/{reference}.jsonl"
            wins += rewardbench.win_rates(
                judged, against, folder / "items.jsonl", groups, names, number
            )
            inputs += [*judged, against]
    for path, rows in ((output_accuracy, accuracies), (output_win_rates, wins)):
        if path is not None:
            with atomic(path) as partial:
                rewardbench.as_table(rows).to_csv(partial, index=False)
            write_sidecar(path, inputs, RowCounts.all_kept(len(rows)))
            log.info("%s: %d rows", path, len(rows))


if __name__ == "__main__":
    run_app(app)
