"""Small trainings by name, run in the tests' own process or on several by accelerate's launcher.

`python -m tests.support.training_jobs JOBS.json` runs a list of [name, output, options] in turn:
a launch takes longer than all of its trainings.
"""

import json
import os
import signal
import sys
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import numpy as np

from dpa.artefacts.row_counts import RowCounts
from dpa.config.sampling import SamplingConfig
from dpa.config.steering import ObjectiveConfig
from dpa.config.trainer import LoraConfig, ScheduleConfig, TrainerConfig
from dpa.models import ModelRef
from dpa.records import Prompt, Rating
from dpa.text.prompts import Conversation
from dpa.training import shares
from dpa.training.trainer import TrainingJob
from tests.support.tiny_models import WORDS

#: Of the few rows here, too, each process is to make some.
shares.ITEMS_PER_BLOCK = 4


def training(**changes) -> TrainerConfig:
    values = {
        "per_device_batch_size": 2,
        "bf16": False,
        "gradient_checkpointing": False,
        "packing": False,
        "attention": "auto",
        "sharding": "none",
        "lora": None,
        "save_steps": None,
        "adam_betas": (0.9, 0.98),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "report_to": [],
    }
    return TrainerConfig(**{**values, **changes})


def schedule(**changes) -> ScheduleConfig:
    values = {
        "learning_rate": 5e-3,
        "epochs": 2,
        "batch_size": 8,
        "warmup_steps": 1,
        "lr_scheduler": "cosine",
        "max_length": 128,
    }
    return ScheduleConfig(**{**values, **changes})


def sentence(index: int) -> str:
    words = [WORDS[(index * 5 + i * i) % len(WORDS)] for i in range(2 + index % 9)]
    return " ".join(words).capitalize() + "."


def question(index: int) -> Conversation:
    return f"Tell me about the {WORDS[index % len(WORDS)]}."


def rating(index: int) -> Rating:
    """A row that carries only some attributes, as each data set has its own."""
    attributes = {"quality": 50.0 + index % 7, "length": 10.0 * (index % 9)}
    if index % 3:
        del attributes["quality" if index % 2 else "length"]
    return Rating(
        prompt_id=f"{index:016x}",
        prompt=question(index),
        response=sentence(index),
        attributes=attributes,
        dataset="test",
        split="train",
    )


def finetune(
    start: str, output: Path, train: TrainerConfig, stage: ScheduleConfig, rows: int
) -> None:
    from dpa.methods.sft import finetune_conversations

    conversations = [
        [
            {"role": "user", "content": question(i)},
            {"role": "assistant", "content": sentence(i)},
        ]
        for i in range(rows)
    ]
    job = TrainingJob(ModelRef(start), output, train, stage, seed=5, inputs=())
    finetune_conversations(job, conversations)


def finetune_fused(*arguments) -> None:
    """With the loss that GPUs use."""
    from dpa.methods.sft import Finetuner

    original = Finetuner.fused_head
    Finetuner.fused_head = True  # type: ignore[assignment, method-assign]
    try:
        finetune(*arguments)
    finally:
        Finetuner.fused_head = original  # type: ignore[method-assign]


def dpo(start: str, output: Path, train: TrainerConfig, stage: ScheduleConfig, rows: int) -> None:
    from dpa.methods.dpo import PairTraining
    from dpa.training.trainer import run_training

    pairs = [
        ([{"role": "user", "content": question(i)}], sentence(i), sentence(i + 4))
        for i in range(rows)
    ]
    job = TrainingJob(ModelRef(start), output, train, stage, seed=5, inputs=())
    run_training(PairTraining(job, pairs, 0.1, RowCounts()))


class Ruler:
    """Stands in for a reward model: by `scores`, or all are good, and as long as they are."""

    names = ("good", "length")

    def __init__(self, scores: dict[str, list[float]] | None = None):
        self.groups: list = []
        self.scores = scores

    def score_chunk(self, groups):
        self.groups += groups
        return [
            np.array([self.scores[r] if self.scores else [50.0, float(len(r))] for r in some])
            for _, some in groups
        ]

    def warn_if_constant(self, place):
        """It is asked in the end."""


#: What it rates, as objectives.
RULED = [
    ObjectiveConfig(name="quality", outputs={"good": 1.0}),
    ObjectiveConfig(name="verbosity", outputs={"length": 1.0}),
]


def sampling(**changes) -> SamplingConfig:
    values = {
        "engine": "transformers",
        "kv_cache_dtype": "auto",
        "temperature": 1.0,
        "max_new_tokens": 24,
        "max_prompt_tokens": 96,
        "prompts_per_chunk": 1,
        "rows_per_batch": 64,
        "max_truncated_fraction": 1.0,
    }
    return SamplingConfig(**{**values, **changes})


def online_dpo(
    start: str, output: Path, train: TrainerConfig, stage: ScheduleConfig, rows: int
) -> None:
    from dpa.methods.online_dpo import OnlineDpo
    from dpa.training.trainer import run_training

    prompts = [Prompt(prompt_id=str(i), prompt=question(i), source="test") for i in range(rows)]
    job = TrainingJob(ModelRef(start), output, train, stage, seed=5, inputs=())
    training = OnlineDpo(
        job,
        prompts,
        output.with_name(f"{output.name}.csv"),
        seed=5,
        distribution={"distribution": "arc", "from_degrees": -90.0, "to_degrees": 0.0},
        objectives=RULED,
        reward_model=Ruler(),  # type: ignore[arg-type]
        beta=0.1,
        contrast_beta=0.1,
        sampling=sampling(),
    )
    run_training(training)


def reward_model(
    start: str, output: Path, train: TrainerConfig, stage: ScheduleConfig, rows: int
) -> None:
    from dpa.reward.train import RewardTraining
    from dpa.training.trainer import run_training

    job = TrainingJob(ModelRef(start), output, train, stage, seed=5, inputs=())
    rated = [rating(i) for i in range(rows)]
    attributes = ["quality", "length"]
    run_training(
        RewardTraining(job, rated, attributes=attributes, lm_loss_weight=0.1, token_dropout=0.0)
    )


def run(name: str, output: str | Path, options: dict) -> Path:
    """Run one training: `start`, `rows`, and what differs in `trainer` and `schedule`.

    With `signal` ([number, rank, step]) that process gets that signal after that step.
    """
    changes = dict(options.get("trainer", {}))
    if changes.get("lora"):
        changes["lora"] = LoraConfig(**changes["lora"])
    kind = {
        "finetune": finetune,
        "finetune_fused": finetune_fused,
        "dpo": dpo,
        "online_dpo": online_dpo,
        "reward_model": reward_model,
    }[name]
    stage = schedule(**options.get("schedule", {}))
    with struck(*options["signal"]) if "signal" in options else nullcontext():
        kind(options["start"], Path(output), training(**changes), stage, options.get("rows", 19))
    return Path(output)


@contextmanager
def struck(number: int, rank: int, step: int):
    """Send this process a signal after a step, if it has that rank."""
    from dpa.training.trainer import ProgressCallback

    original = ProgressCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == step and int(os.environ.get("RANK", "0")) == rank:
            os.kill(os.getpid(), number)

    ProgressCallback.on_step_end = on_step_end  # type: ignore[method-assign]
    # A shell starts what runs in the background with interrupts ignored.
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except SystemExit as end:
        if (number, end.code) != (signal.SIGTERM, 143):
            raise
    finally:
        ProgressCallback.on_step_end = original  # type: ignore[method-assign]
        signal.signal(signal.SIGINT, handler)


def group_timeout() -> timedelta:
    """How long this process waits for the others, by its process group."""
    from torch import device
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_group()._get_backend(device("cpu")).options._timeout


if __name__ == "__main__":
    import logging

    if os.environ.get("RANK", "0") == "0":
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    # Of several processes each has workers, which one process that is compared with has not.
    shares.FEW_ITEMS, shares.usable_cores = 8, lambda: 2  # type: ignore[assignment]
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        logging.info("job %d: %s", number, job[0])
        run(*job)
    logging.info("processes wait %s for each other", group_timeout())
