"""Train SteerLM: SFT on annotated responses with their rewards in the system prompt.

Rules: train_initial_policy (on D2: DPA's policy of iteration 0) and train_steerlm (on all training
prompts: the baseline). Example:

    python -m scripts.train_steerlm --sft-policy sft/policy --annotations annotations/0.jsonl \
        --prompts data/prompts/d2.jsonl --objectives helpfulness,verbosity --schedule '{...}' \
        --training '{...}' --seed 0 --output dpa/iter0/policy
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    sft_policy: Annotated[str, typer.Option(help="Folder or hub id of the SFT policy.")],
    annotations: Annotated[list[Path], typer.Option(help="Annotated original responses.")],
    prompts: Annotated[list[Path], typer.Option(help="Prompt files whose responses are used.")],
    objectives: Annotated[str, typer.Option(help="Names, comma-separated.")],
    schedule: Annotated[str, typer.Option(help="config.yaml's steerlm.training (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub SFT policy.")] = None,
) -> None:
    """Train SteerLM on annotated responses."""
    from dpa.artefacts.jsonl import decode_lines
    from dpa.artefacts.row_counts import RowCounts
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.methods.sft import finetune_conversations
    from dpa.methods.steerlm import annotated_conversations
    from dpa.records import Prompt
    from dpa.seeds import derive_seed

    wanted = {prompt.prompt_id for path in prompts for prompt in decode_lines(path, Prompt)}
    losses = RowCounts()
    finetune_conversations(
        (sft_policy, revision),
        annotated_conversations(annotations, wanted, objectives.split(","), losses),
        output,
        parse(TrainerConfig, training, "training"),
        parse(ScheduleConfig, schedule, "schedule"),
        derive_seed(seed, "steerlm"),
        losses=losses,
        inputs=[*annotations, *prompts],
    )


if __name__ == "__main__":
    run(app)
