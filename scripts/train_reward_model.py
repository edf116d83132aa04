"""Train the multi-objective reward model from the base model on the ratings.

Rules: train_reward_model (only where reward_model.path is null); train_judge; retrain_reward_model,
with the --iteration for which it is trained and the ratings of samples besides, and with the
--reward-model that it continues, if it continues one. Example:

    python -m scripts.train_reward_model --ratings data/ratings.jsonl --base-model base_model \
        --seed 0 --output reward_model/model

Reads the ratings of the training split (--split judge: the judge's). Writes a folder that plain
AutoModelForSequenceClassification loads: one output per attribute, on 0-100.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    BaseModelOption,
    OptionalIterationOption,
    OptionalRewardModelOption,
    OutputFolderOption,
    ScheduleOption,
    SeedOption,
    TrainerOption,
)
from dpa.runtime.sections import default_section, names_of, read_section

app = make_app()


@app.command()
def main(
    base_model: BaseModelOption,
    ratings: Annotated[
        list[Path],
        typer.Option(help="Ratings that prepare_data wrote, and those of samples."),
    ],
    seed: SeedOption,
    output: OutputFolderOption,
    reward_model: OptionalRewardModelOption = None,
    iteration: OptionalIterationOption = None,
    attributes: AttributesOption = None,
    lm_loss_weight: Annotated[
        float, typer.Option(min=0, help="Of the language-modelling loss on the response.")
    ] = 0.5,
    token_dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Share of input tokens replaced by noise.")
    ] = 0.0,
    member: Annotated[
        int, typer.Option(min=0, help="Which of several reward models: another seed for each.")
    ] = 0,
    probe: Annotated[
        Path | None,
        typer.Option(help="Of a model to be averaged: the head it starts from; --member from 1."),
    ] = None,
    split: Annotated[
        Literal["train", "judge"],
        typer.Option(help="Whose ratings: the reward model's, the judge's."),
    ] = "train",
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Train the multi-objective reward model."""
    from dpa.artefacts.jsonl import decode_lines
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.errors import InputError
    from dpa.models import ModelRef
    from dpa.records import Rating
    from dpa.reward.train import RewardTraining
    from dpa.seeds import derive_seed
    from dpa.training.trainer import TrainingJob, run_training

    if probe is not None and member == 0:
        raise InputError("--probe: give the model's --member, from 1")
    if probe is not None and reward_model is not None:
        raise InputError("--probe, --reward-model: training starts from one of them; leave one out")
    ref = ModelRef.of(base_model)
    continued = None if reward_model is None else ModelRef.of(reward_model)
    training_schedule = read_section(ScheduleConfig, schedule, "schedule", "reward_model.schedule")
    started: dict[str, Any] = {}
    if probe is not None:
        from dpa.reward.warm import ingredient, load_probe

        rate, dropout = ingredient(member)
        training_schedule = training_schedule.model_copy(
            update={"learning_rate": rate * training_schedule.learning_rate}
        )
        started = {"head_dropout": dropout, "head": load_probe(probe)}
    job = TrainingJob(
        ref,
        output,
        read_section(TrainerConfig, trainer, "trainer", "trainer"),
        training_schedule,
        derive_seed(
            seed,
            "reward-model" if split == "train" else split,
            *([member] if member else []),
            *(["iteration", iteration] if iteration else []),
        ),
        inputs=(
            *ratings,
            ref.path,
            *([probe] if probe else []),
            *([continued.path] if continued else []),
        ),
    )
    training = RewardTraining(
        job,
        (rating for path in ratings for rating in decode_lines(path, Rating)),
        attributes=names_of(attributes) or default_section("reward_model.attributes"),
        lm_loss_weight=lm_loss_weight,
        token_dropout=token_dropout,
        split=split,
        continued=continued,
        **started,
    )
    run_training(training)


if __name__ == "__main__":
    run_app(app)
