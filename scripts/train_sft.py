"""Supervised fine-tuning of the base model on demonstrations: the policy that DPA starts from.

Rule: train_sft (only where sft.path is null). Example:

    python -m scripts.train_sft --base-model results/quickstart/base_model \
        --demonstrations '{"path": "ultrachat.jsonl"}' --schedule '{...}' --training '{...}' \
        --seed 0 --output sft/policy

Reads rows with `messages` (UltraChat's schema); the loss is on every assistant turn.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    base_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    demonstrations: Annotated[list[str], typer.Option(help="Sources (JSON) of demonstrations.")],
    schedule: Annotated[str, typer.Option(help="config.yaml's sft.training (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub base model.")] = None,
) -> None:
    """Supervised fine-tuning on demonstrations."""
    from dpa.config.data import SourceConfig, describe
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.data.sources import read_messages
    from dpa.methods.sft import finetune_conversations
    from dpa.seeds import derive_seed

    sources = [parse(SourceConfig, source, "demonstrations") for source in demonstrations]
    conversations = (turns for source in sources for turns in read_messages(source))
    finetune_conversations(
        (base_model, revision),
        conversations,
        output,
        parse(TrainerConfig, training, "training"),
        parse(ScheduleConfig, schedule, "schedule"),
        derive_seed(seed, "sft"),
        inputs=[describe(source) for source in sources],
    )


if __name__ == "__main__":
    run(app)
