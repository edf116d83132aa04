"""Train a policy on pairs by DPO, with the policy it starts from as the reference.

Rules: train_dpo (pairs from ratings, no directions; only where dpo.path is null) and
train_directional_dpo (pairs from samples, told their directions). Example:

    python -m scripts.train_dpo --policy sft/policy --pairs dpo/pairs.jsonl --objectives '[{...}]' \
        --beta 0.1 --schedule '{...}' --training '{...}' --seed 0 --output dpo/policy
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    policy: Annotated[str, typer.Option(help="Folder or hub id to start from.")],
    pairs: Annotated[Path, typer.Option(help="pairs.jsonl")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    beta: Annotated[float, typer.Option(min=0)],
    schedule: Annotated[str, typer.Option(help="The stage's training section (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    iteration: Annotated[int, typer.Option(min=0)] = 0,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub policy.")] = None,
) -> None:
    """Train by DPO."""
    from pydantic import TypeAdapter

    from dpa.artefacts.jsonl import read_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.config.steering import ObjectiveConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.methods.dpo import train_dpo
    from dpa.methods.preference_pairs import as_conversations
    from dpa.records import Pair
    from dpa.seeds import derive_seed

    steered = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    rows = read_jsonl(pairs, Pair)
    # For chat: what a direction is about, and how it is rewarded.
    told = {"objectives": [o.model_dump() for o in steered]} if rows and rows[0].direction else {}
    train_dpo(
        (policy, revision),
        as_conversations(rows, [objective.name for objective in steered]),
        output,
        parse(TrainerConfig, training, "training"),
        parse(ScheduleConfig, schedule, "schedule"),
        derive_seed(seed, "dpo", iteration),
        beta=beta,
        losses=RowCounts(),
        inputs=[policy, pairs],
        **told,
    )


if __name__ == "__main__":
    run(app)
