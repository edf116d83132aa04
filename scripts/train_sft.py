"""Supervised fine-tuning of the base model on demonstrations: the policy that DPA starts from.

Rule: train_sft (only where sft.path is null). Example:

    python -m scripts.train_sft --base-model results/quickstart/base_model \
        --demonstrations '{"path": "ultrachat.jsonl"}' --seed 0 --output sft/policy

Reads rows with `messages` (UltraChat's schema); the loss is on every assistant turn.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    BaseModelOption,
    ModelsOption,
    OutputFolderOption,
    ScheduleOption,
    SeedOption,
    TrainerOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    base_model: BaseModelOption,
    demonstrations: Annotated[list[str], typer.Option(help="Source (JSON) of demonstrations.")],
    seed: SeedOption,
    output: OutputFolderOption,
    models: ModelsOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Supervised fine-tuning on demonstrations."""
    from dpa.artefacts.row_counts import RowCounts
    from dpa.config.chat import ModelsConfig
    from dpa.config.data import SourceConfig, describe
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.data.sources import read_messages
    from dpa.methods.sft import finetune_conversations
    from dpa.models import ModelRef
    from dpa.seeds import derive_seed
    from dpa.training.trainer import TrainingJob

    sources = [read_section(SourceConfig, source, "demonstrations") for source in demonstrations]
    row_counts = RowCounts()
    conversations = (turns for source in sources for turns in read_messages(source, row_counts))
    finetune_conversations(
        TrainingJob(
            ModelRef.of(base_model),
            output,
            read_section(TrainerConfig, trainer, "trainer", "trainer"),
            read_section(ScheduleConfig, schedule, "schedule", "sft.schedule"),
            derive_seed(seed, "sft"),
            inputs=tuple(describe(source) for source in sources),
            models=read_section(ModelsConfig, models, "models", "models"),
        ),
        conversations,
        row_counts,
    )


if __name__ == "__main__":
    run_app(app)
