"""Fit the head from which all reward models start that will be averaged: a linear probe.

Rule: probe_reward_model (only with reward_model.average). Example:

    python -m scripts.probe_reward_model --ratings data/ratings.jsonl --base-model base_model \
        --output reward_model/probe.safetensors

The base model's backbone stays as it is. Writes the head's weights, for labels on 0-100.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    BaseModelOption,
    OutputOption,
    RatingsOption,
    ScheduleOption,
    TrainerOption,
)
from dpa.runtime.sections import default_section, names_of, read_section

app = make_app()


@app.command()
def main(
    base_model: BaseModelOption,
    ratings: RatingsOption,
    output: OutputOption,
    attributes: AttributesOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Fit the head from which averaged reward models start."""
    import torch

    from dpa.artefacts.jsonl import decode_lines
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.models import ModelRef
    from dpa.records import Rating
    from dpa.reward.train import RewardTraining
    from dpa.reward.warm import fit_probe, save_probe
    from dpa.runtime.gpus import require_gpu
    from dpa.training.processes import is_main_process
    from dpa.training.trainer import TrainingJob

    ref = ModelRef.of(base_model)
    config = read_section(TrainerConfig, trainer, "trainer", "trainer")
    job = TrainingJob(
        ref,
        output,
        config,
        read_section(ScheduleConfig, schedule, "schedule", "reward_model.schedule"),
        seed=0,  # nothing here is random
    )
    training = RewardTraining(
        job,
        decode_lines(ratings, Rating),
        attributes=names_of(attributes) or default_section("reward_model.attributes"),
        lm_loss_weight=0.0,
        token_dropout=0.0,
    )
    is_main_process()  # takes the GPU
    require_gpu()
    on_gpu = torch.cuda.is_available()
    learner = training.make_learner().to("cuda" if on_gpu else "cpu")
    head = fit_probe(
        learner,
        training.rows,
        training.tokenizer.pad_token_id,
        config.per_device_batch_size,
        bf16=config.bf16 and on_gpu,
    )
    save_probe(head, output)
    write_sidecar(output, [ratings, ref.path], training.row_counts, **training.details)


if __name__ == "__main__":
    run_app(app)
