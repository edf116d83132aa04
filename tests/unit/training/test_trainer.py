"""What is common to all trainings: batches, schedules, and the end of one that diverges."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dpa.errors import InputError
from dpa.models import ModelRef
from dpa.training import trainer
from dpa.training.batches import LengthGroups
from dpa.training.memory import FINETUNING
from dpa.training.trainer import ProgressCallback, TrainingJob, trainer_arguments
from tests.support.training_jobs import schedule, training


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    def job(batch_size):
        settings = training(per_device_batch_size=4)
        stage = schedule(batch_size=batch_size)
        return TrainingJob(ModelRef("start"), tmp_path, settings, stage, seed=0)

    with pytest.raises(InputError, match="batch_size 6 is not a multiple of 4"):
        trainer_arguments(job(6), tmp_path)
    arguments = trainer_arguments(job(12), tmp_path)
    assert arguments["gradient_accumulation_steps"] == 3


def test_divergence_stops_with_a_remedy():
    from transformers import TrainerState

    callback = ProgressCallback()
    state = TrainerState(global_step=7, max_steps=10)
    callback.on_train_begin(None, state, None)
    with pytest.raises(InputError, match="loss nan at step 7; lower"):
        callback.on_log(None, state, None, logs={"loss": float("nan")})


def test_length_groups_are_batches_of_like_lengths_in_random_order():
    lengths = [10 * (i % 50) + i % 7 for i in range(1003)]
    sampler = LengthGroups(lengths, 16, 3)
    rows = list(sampler)
    assert sorted(rows) == list(range(1003))
    assert rows == list(LengthGroups(lengths, 16, 3))
    batches = [[lengths[r] for r in rows[i : i + 16]] for i in range(0, 1003, 16)]
    assert len(batches[-1]) == 1003 % 16
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    # In random order: the mean length of a batch does not predict the next one's.
    means = [sum(batch) / len(batch) for batch in batches]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4
    sampler.set_epoch(1)
    assert list(sampler) != rows


def test_a_schedule_is_strict():
    with pytest.raises(ValidationError, match="learning_rate"):
        schedule(learning_rate=0)


@pytest.mark.parametrize(
    ("setting", "gpu_gb", "expected"),
    [
        ("auto", 3.1, True),  # 3 GiB are what CUDA itself takes
        ("auto", 80, False),
        ("auto", None, False),
        (True, 80, True),
        (False, 3.1, False),
    ],
)
def test_activations_are_recomputed_where_the_gpu_has_no_room(
    tiny_policy, tmp_path, monkeypatch, setting, gpu_gb, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_gb is not None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, int((gpu_gb or 0) * 2**30)))
    monkeypatch.setattr(trainer, "process_state", lambda: SimpleNamespace(num_processes=1))
    settings = training(gradient_checkpointing=setting)
    job = TrainingJob(ModelRef(str(tiny_policy)), tmp_path / "policy", settings, schedule(), 0)
    assert trainer.recomputes_here(job, FINETUNING) is expected
