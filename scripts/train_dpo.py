"""Train a policy on pairs by DPO, with the policy it starts from as the reference.

Rules: train_dpo (pairs from ratings, no directions; only where dpo.path is null) and
train_directional_dpo (pairs from samples, with their directions). Example:

    python -m scripts.train_dpo --policy sft/policy --pairs dpo/pairs.jsonl --seed 0 \
        --output dpo/policy
"""

from functools import partial

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    BetaOption,
    DirectionsOption,
    ModelsOption,
    ObjectivesOption,
    OptionalIterationOption,
    OutputFolderOption,
    PairsOption,
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
    pairs: PairsOption,
    seed: SeedOption,
    output: OutputFolderOption,
    beta: BetaOption = 0.1,
    iteration: OptionalIterationOption = None,
    objectives: ObjectivesOption = None,
    directions: DirectionsOption = None,
    models: ModelsOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Train by DPO."""

    from dpa.artefacts.jsonl import read_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.config.chat import ModelsConfig
    from dpa.config.steering import DistributionConfig, ObjectivesConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.methods.dpo import PairTraining
    from dpa.methods.preference_pairs import as_conversations
    from dpa.models import ModelRef
    from dpa.records import Pair
    from dpa.seeds import derive_seed
    from dpa.serving.furnish import furnish_policy
    from dpa.serving.steering import PolicySteering
    from dpa.training.trainer import TrainingJob, run_training

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    rows = read_jsonl(pairs, Pair)
    is_steered = bool(rows and rows[0].direction)
    distribution = read_section(DistributionConfig, directions, "directions", "directions")
    steering = is_steered and PolicySteering(
        takes="direction", objectives=steered, directions=distribution.model_dump()
    )
    ref = ModelRef.of(policy)
    job = TrainingJob(
        ref,
        output,
        read_section(TrainerConfig, trainer, "trainer", "trainer"),
        read_section(ScheduleConfig, schedule, "schedule", "dpo.recipes.zephyr.schedule"),
        derive_seed(seed, "dpo", iteration or 0),
        inputs=(ref.path, pairs),
        models=read_section(ModelsConfig, models, "models", "models"),
        furnish=partial(furnish_policy, steering) if steering else None,
    )
    conversations = as_conversations(rows, [objective.name for objective in steered])
    run_training(PairTraining(job, conversations, beta, RowCounts()))


if __name__ == "__main__":
    run_app(app)
