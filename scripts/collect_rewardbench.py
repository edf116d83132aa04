"""Collect RewardBench's win rates against the reference, and the reward model's accuracy.

Rule: collect_rewardbench. Example:

    python -m scripts.collect_rewardbench --run results/quickstart --seed 0 --policies dpa-4 \
        --reference dpo --sections '[{...}]' --objectives helpfulness,verbosity \
        --win-rates rewardbench/win_rates.csv --accuracy rewardbench/reward_model_accuracy.csv

Give --run and --seed once per seed, in the same order. Without --reference there are no win rates.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse
from dpa.runtime.cli import run as run_app
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    run: Annotated[list[Path], typer.Option(help="Folder of a run: results/<experiment>.")],
    seed: Annotated[list[int], typer.Option(help="Its base seed.")],
    sections: Annotated[str, typer.Option(help="config.yaml's rewardbench.sections (JSON).")],
    objectives: Annotated[str, typer.Option(help="Names in order, separated by commas.")],
    accuracy: Annotated[Path, typer.Option(help="reward_model_accuracy.csv")],
    policies: Annotated[str, typer.Option(help="Policies, separated by commas.")] = "",
    reference: Annotated[str | None, typer.Option(help="The reference policy.")] = None,
    win_rates: Annotated[Path | None, typer.Option(help="win_rates.csv")] = None,
) -> None:
    """Collect RewardBench's win rates and the reward model's accuracy."""
    from pydantic import TypeAdapter

    from dpa.artefacts.files import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.benchmarks import BenchmarkSectionConfig
    from dpa.evaluation import rewardbench

    groups = parse(TypeAdapter(list[BenchmarkSectionConfig]), sections, "sections")
    names = objectives.split(",")
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
    for path, rows in ((accuracy, accuracies), (win_rates, wins)):
        if path is not None:
            with atomic(path) as partial:
                rewardbench.as_table(rows).to_csv(partial, index=False)
            write_sidecar(path, inputs, RowCounts.none(len(rows)))
            log.info("%s: %d rows", path, len(rows))


if __name__ == "__main__":
    run_app(app)
