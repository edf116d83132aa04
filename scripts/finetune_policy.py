"""Fine-tune the SFT policy on an iteration's selected responses, conditioned on their directions.

Rule: finetune_policy. Example:

    python -m scripts.finetune_policy --policy sft/policy --selected selected.jsonl \
        --iteration 1 --seed 0 --output dpa/iter1/policy

Always starts from the SFT policy, never from the previous iteration's (paper, section 3.1). Under
the distribution `fixed` (RSF) the policy is given no direction.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    DirectionsOption,
    IterationOption,
    ModelsOption,
    ObjectivesOption,
    OutputFolderOption,
    PolicyOption,
    ScheduleOption,
    SeedOption,
    TrainerOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    selected: Annotated[Path, typer.Option(help="The iteration's selected.jsonl.")],
    iteration: IterationOption,
    seed: SeedOption,
    output: OutputFolderOption,
    objectives: ObjectivesOption = None,
    directions: DirectionsOption = None,
    replay_prompt: Annotated[
        Literal["direction", "plain"],
        typer.Option(help="Whether replayed rows are conditioned on a direction."),
    ] = "direction",
    models: ModelsOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Fine-tune on selected responses."""

    from dpa.config.chat import ModelsConfig
    from dpa.config.steering import DistributionConfig, ObjectivesConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.directions import conditioned
    from dpa.methods.best_of_n import selected_conversations
    from dpa.methods.sft import finetune_conversations
    from dpa.models import ModelRef
    from dpa.records import Origin
    from dpa.seeds import derive_seed
    from dpa.serving.furnish import furnish_policy
    from dpa.serving.steering import PolicySteering
    from dpa.training.trainer import TrainingJob

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    names = [objective.name for objective in steered]
    told: set[Origin] = set()
    steering = None
    if conditioned(distribution):
        told = {"sampled", "replay"} if replay_prompt == "direction" else {"sampled"}
        steering = PolicySteering(takes="direction", objectives=steered, directions=distribution)
    finetune_conversations(
        TrainingJob(
            ModelRef.of(policy),
            output,
            read_section(TrainerConfig, trainer, "trainer", "trainer"),
            read_section(ScheduleConfig, schedule, "schedule", "dpa.schedule"),
            derive_seed(seed, "finetune", iteration),
            inputs=(selected,),
            models=read_section(ModelsConfig, models, "models", "models"),
            furnish=partial(furnish_policy, steering) if steering else None,
        ),
        selected_conversations(selected, names, told),
        last_answer_only=True,
    )


if __name__ == "__main__":
    run_app(app)
