"""Train a policy at one direction by online policy gradient, with the reward model in the loop.

Rule: train_ppo (the PPO row, and Reward Soup's experts where reward_soup.experts is ppo). Example:

    python -m scripts.train_ppo --policy sft/policy --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --reward-model reward_model/model --direction 1.0,0.0 \
        --seed 0 --output-history ppo/100_0/history.csv --output ppo/100_0/policy

Writes the policy's folder and, as CSV, every step's mean reward, KL divergence from the SFT policy,
response length and share of truncated responses. Which algorithm it is: dpa/methods/rloo.py.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    BetaOption,
    DirectionOption,
    ModelsOption,
    ObjectivesOption,
    OutputFolderOption,
    PolicyOption,
    PromptFilesOption,
    ResponsesPerPromptOption,
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
    direction: DirectionOption = None,
    objectives: ObjectivesOption = None,
    beta: BetaOption = 0.05,
    responses_per_prompt: ResponsesPerPromptOption = 4,
    models: ModelsOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
    sampling: SamplingOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
) -> None:
    """Train a policy at one direction by online policy gradient."""
    from dpa.artefacts.jsonl import decode_lines
    from dpa.config.chat import ModelsConfig
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import ObjectivesConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.directions import read_direction
    from dpa.methods.rloo import PolicyGradient, train_policy_gradient
    from dpa.models import ModelRef
    from dpa.records import Prompt
    from dpa.reward.load import load_scorer
    from dpa.seeds import derive_seed
    from dpa.training.processes import process_state
    from dpa.training.trainer import TrainingJob

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    asked = read_direction(direction, None, len(steered))
    process_state()  # each of several processes takes a GPU of its own, for the reward model too
    ref, scorer = ModelRef.of(policy), ModelRef.of(reward_model)
    job = TrainingJob(
        ref,
        output,
        read_section(TrainerConfig, trainer, "trainer", "trainer"),
        read_section(ScheduleConfig, schedule, "schedule", "ppo.schedule"),
        derive_seed(seed, "ppo", *(round(100 * v) for v in asked)),
        inputs=(ref.path, *prompts, scorer.path),
        models=read_section(ModelsConfig, models, "models", "models"),
    )
    training = PolicyGradient(
        job,
        (prompt for path in prompts for prompt in decode_lines(path, Prompt)),
        output_history,
        direction=asked,
        objectives=steered,
        reward_model=load_scorer(
            scorer,
            attributes=names_of(attributes),
            objectives=steered,
            tokens_per_batch=tokens_per_batch,
        ),
        beta=beta,
        responses_per_prompt=responses_per_prompt,
        sampling=read_section(SamplingConfig, sampling, "sampling", "sampling"),
    )
    train_policy_gradient(training)


if __name__ == "__main__":
    run_app(app)
