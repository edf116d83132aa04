"""Train a policy at one direction by online policy gradient, with the reward model in the loop.

Rule: train_ppo (the PPO row, and Reward Soup's experts where reward_soup.experts is ppo). Example:

    python -m scripts.train_ppo --sft-policy sft/policy --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --reward-model reward_model/model \
        --objectives '[{...}]' --direction 1.0,0.0 --beta 0.05 --responses-per-prompt 4 \
        --schedule '{...}' --training '{...}' --sampling '{...}' --tokens-per-batch 16384 \
        --seed 0 --history ppo/100_0/history.csv --output ppo/100_0/policy

Writes the policy's folder and, as CSV, every step's mean reward, KL divergence from the SFT policy,
response length and share of truncated responses. Which algorithm it is: dpa/methods/rloo.py.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    sft_policy: Annotated[str, typer.Option(help="Folder or hub id of the SFT policy.")],
    prompts: Annotated[list[Path], typer.Option(help="Prompt files to train on.")],
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    direction: Annotated[str, typer.Option(help="Unit vector to optimise: 1.0,0.0")],
    beta: Annotated[float, typer.Option(min=0, help="Weight of the KL divergence.")],
    responses_per_prompt: Annotated[int, typer.Option(min=2, help="Sampled in a step.")],
    schedule: Annotated[str, typer.Option(help="config.yaml's ppo.training (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    sampling: Annotated[str, typer.Option(help="config.yaml's sampling (JSON).")],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens scored at a time.")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    history: Annotated[Path, typer.Option(help="CSV to write, one row per step.")],
    output: Annotated[Path, typer.Option()],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub SFT policy.")] = None,
    reward_model_revision: Annotated[str | None, typer.Option(help="Commit, likewise.")] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Names that the reward model's outputs must have, in order.")
    ] = None,
) -> None:
    """Train a policy at one direction by online policy gradient."""
    from pydantic import TypeAdapter

    from dpa.artefacts.jsonl import decode_lines
    from dpa.artefacts.row_counts import RowCounts
    from dpa.config.sampling import SamplingConfig
    from dpa.config.steering import ObjectiveConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.directions import read_direction
    from dpa.methods.rloo import train_policy_gradient
    from dpa.records import Prompt
    from dpa.reward.transformers_scorer import TransformersScorer
    from dpa.seeds import derive_seed
    from dpa.training.processes import process_state

    rated = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    asked = read_direction(direction, None, len(rated))
    sampled = parse(SamplingConfig, sampling, "sampling")
    process_state()  # each of several processes takes a GPU of its own, for the reward model too
    train_policy_gradient(
        (sft_policy, revision),
        (prompt for path in prompts for prompt in decode_lines(path, Prompt)),
        output,
        parse(TrainerConfig, training, "training"),
        parse(ScheduleConfig, schedule, "schedule"),
        derive_seed(seed, "ppo", *(round(100 * v) for v in asked)),
        direction=asked,
        objectives=rated,
        reward_model=TransformersScorer.load(
            reward_model,
            reward_model_revision,
            attributes=attributes.split(",") if attributes else None,
            objectives=rated,
            tokens_per_batch=tokens_per_batch,
        ),
        beta=beta,
        responses_per_prompt=responses_per_prompt,
        temperature=sampled.temperature,
        max_new_tokens=sampled.max_new_tokens,
        max_prompt_tokens=sampled.max_prompt_tokens,
        history=history,
        losses=RowCounts(),
        inputs=[sft_policy, *prompts, reward_model],
    )


if __name__ == "__main__":
    run(app)
