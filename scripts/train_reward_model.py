"""Train the multi-objective reward model from the base model on the ratings.

Rule: train_reward_model (only where reward_model.path is null). Example:

    python -m scripts.train_reward_model --ratings data/ratings.jsonl --base-model base_model \
        --attributes helpsteer-verbosity,ultrafeedback-helpfulness --lm-loss-weight 0.1 \
        --token-dropout 0 --schedule '{...}' --training '{...}' --seed 0 --output reward_model/model

Reads the ratings of the training split. Writes a folder that plain
AutoModelForSequenceClassification loads: one output per attribute, on 0-100.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    ratings: Annotated[Path, typer.Option(help="ratings.jsonl")],
    base_model: Annotated[str, typer.Option(help="Folder or hub id of a causal LM.")],
    attributes: Annotated[str, typer.Option(help="Outputs in order, comma-separated.")],
    lm_loss_weight: Annotated[float, typer.Option(min=0)],
    token_dropout: Annotated[float, typer.Option(min=0, max=1)],
    schedule: Annotated[str, typer.Option(help="config.yaml's reward_model.training (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub base model.")] = None,
) -> None:
    """Train the multi-objective reward model."""
    from dpa.artefacts.jsonl import decode_lines
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.records import Rating
    from dpa.reward.train import train_reward_model
    from dpa.seeds import derive_seed

    train_reward_model(
        (base_model, revision),
        decode_lines(ratings, Rating),
        output,
        attributes=attributes.split(","),
        training=parse(TrainerConfig, training, "training"),
        schedule=parse(ScheduleConfig, schedule, "schedule"),
        seed=derive_seed(seed, "reward-model"),
        lm_loss_weight=lm_loss_weight,
        token_dropout=token_dropout,
        inputs=[ratings, base_model],
    )


if __name__ == "__main__":
    run(app)
