"""Random models for benchmarks: small ones on a CPU, one of a billion parameters on a GPU."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lengths import vocabulary

#: Six layers, 256 wide; and TinyLlama's shape, 1.1 billion parameters.
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}


def single_thread() -> None:
    """One thread and the CPU's clock: what others do on the machine then counts little."""
    torch.set_num_threads(1)


@cache
def make_tokenizer(size: int = 8000) -> Any:
    """Byte-level BPE in which the made-up words are a token or two."""
    from dpa.quickstart.base_model import train_tokenizer

    words = vocabulary(np.random.default_rng(0))
    return train_tokenizer([" " + " ".join(words)] * 4, size)


def llama_config(**more: Any) -> Any:
    """A Llama configuration for the tokenizer above, small or (on a GPU) large."""
    from transformers import LlamaConfig

    tokenizer = make_tokenizer()
    shape = BILLION if torch.cuda.is_available() else SMALL
    return LlamaConfig(
        **shape | more,
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def make_reward_model(folder: Path, outputs: int = 10, **shape: Any) -> str:
    """A random reward model folder; `shape` is what differs from the configuration above."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    names = [f"output-{i}" for i in range(outputs)]
    config = llama_config(num_labels=outputs, id2label=dict(enumerate(names)), **shape)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.mul_(100)  # scores of a size as on 0-100
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def make_training_job(start: Any, output: Path, *, trainer: dict, schedule: dict) -> Any:
    """A TrainingJob by config.yaml's defaults and what is given, without checkpoints or warm-up."""
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.runtime.sections import read_section
    from dpa.training.trainer import TrainingJob

    trainer = {"save_steps": None} | trainer
    schedule = {"epochs": 1, "warmup_steps": 0} | schedule
    return TrainingJob(
        start,
        output,
        read_section(TrainerConfig, json.dumps(trainer), "trainer", "trainer"),
        read_section(ScheduleConfig, json.dumps(schedule), "schedule", "sft.schedule"),
        seed=0,
    )
