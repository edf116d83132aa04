"""Train a policy under drawn directions by DPO on pairs that it samples as it trains.

Rule: train_online_dpo. Example:

    python -m scripts.train_online_dpo --policy sft/policy --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --reward-model reward_model/model --seed 0 \
        --output-history online_dpo/history.csv --output online_dpo/policy

Writes the policy's folder and, as CSV, what every step sampled and made of it. The algorithm:
dpa/methods/online_dpo.py.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    BetaOption,
    DirectionsOption,
    ModelsOption,
    ObjectivesOption,
    OutputFolderOption,
    PolicyOption,
    PromptFilesOption,
    RewardModelOption,
    SamplingOption,
    ScheduleOption,
    SeedOption,
    TokensPerBatchOption,
    TrainerOption,
)
from dpa.runtime.sections import names_of, read_section

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    prompts: PromptFilesOption,
    reward_model: RewardModelOption,
    seed: SeedOption,
    output_history: Annotated[Path, typer.Option(help="CSV that is written, a row per step.")],
    output: OutputFolderOption,
    directions: DirectionsOption = None,
    objectives: ObjectivesOption = None,
    beta: BetaOption = 0.1,
    contrast_beta: Annotated[
        float | None,
        typer.Option(min=0, help="Strength of the contrast with another direction; none: without."),
    ] = None,
    models: ModelsOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
    sampling: SamplingOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
) -> None:
    """Train by online DPO under drawn directions."""
    from dpa.artefacts.jsonl import decode_lines
    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import DistributionConfig, ObjectivesConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.methods.online_dpo import OnlineDpo
    from dpa.models import ModelRef
    from dpa.records import Prompt
    from dpa.reward.load import load_scorer
    from dpa.seeds import derive_seed
    from dpa.serving.furnish import furnish_policy
    from dpa.serving.steering import PolicySteering
    from dpa.training.processes import process_state
    from dpa.training.trainer import TrainingJob, run_training

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    distribution = read_section(DistributionConfig, directions, "directions", "directions")
    process_state()  # each of several processes takes a GPU of its own, for the reward model too
    ref, scorer = ModelRef.of(policy), ModelRef.of(reward_model)
    steering = PolicySteering(
        takes="direction", objectives=steered, directions=distribution.model_dump()
    )
    job = TrainingJob(
        ref,
        output,
        read_section(TrainerConfig, trainer, "trainer", "trainer"),
        read_section(ScheduleConfig, schedule, "schedule", "online_dpo.schedule"),
        derive_seed(seed, "online-dpo"),
        inputs=(ref.path, *prompts, scorer.path),
        models=read_section(ModelsConfig, models, "models", "models"),
        furnish=partial(furnish_policy, steering),
    )
    training = OnlineDpo(
        job,
        (prompt for path in prompts for prompt in decode_lines(path, Prompt)),
        output_history,
        seed=seed,
        distribution=distribution.model_dump(),
        objectives=steered,
        reward_model=load_scorer(
            scorer,
            attributes=names_of(attributes),
            objectives=steered,
            tokens_per_batch=tokens_per_batch,
        ),
        beta=beta,
        contrast_beta=contrast_beta,
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
    )
    run_training(training)


if __name__ == "__main__":
    run_app(app)
