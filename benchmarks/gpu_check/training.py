"""Part 4: fine-tuning a model of two billion parameters, and a reward model of its size.

Steps are timed between their ends, the first two left out; nothing is saved. MFU counts six
operations a weight and token, neither recomputation nor attention, against a large product's rate.
"""

import gc
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from benchmarks.gpu_check.rows import is_small, on_gpu, product_rate, record, synchronise
from benchmarks.gpu_check.shapes import TWO_BILLION, built, inner_weights, llama
from benchmarks.measure_training import tokenised
from benchmarks.models import make_tokenizer, make_training_job
from dpa.artefacts.row_counts import RowCounts
from dpa.attention import choose_attention
from dpa.methods.sft import Finetuning
from dpa.reward.train import RatedRow, RewardTrainer, collate, learner_of
from dpa.text.tokenization import ChatTokenizer
from dpa.training.trainer import TrainingJob, trainer_arguments

LENGTH = 128 if is_small() else 4096
#: Steps of a measurement, of which the first two are not timed.
STEPS = 3 if is_small() else 6
#: Sequences of a step.
ROWS = 4
#: Ours may take so much of bare TRL's time more.
OVERHEAD = 1.03


def main() -> None:
    rate = product_rate(256 if is_small() else 8192)
    config = llama(TWO_BILLION, num_labels=10)
    model = built(AutoModelForCausalLM, config, torch.float32)
    weights = inner_weights(model)
    rows = tokenised(40 if is_small() else STEPS * ROWS * 20, LENGTH)
    with tempfile.TemporaryDirectory() as name:
        check = Check(model, weights, rate, rows, Path(name))
        best = check.finetuning("auto", 4, recomputation=True)
        bare = check.bare("auto", 4, recomputation=True)
        goal = OVERHEAD if on_gpu() and not is_small() else None
        record("packed SFT: time, over bare TRL's", best / bare, "x", at_most=goal)
        masked = check.finetuning("sdpa", 4, recomputation=True)
        record("packed SFT: masked attention's time, over ours", masked / best, "x")
        for at_once, recomputation in itertools.product((1, 2, 4), (False, True)):
            if (at_once, recomputation) != (4, True):
                with room(f"packed SFT, {at_once} rows a pass"):
                    check.finetuning("auto", at_once, recomputation=recomputation)
        for at_once in (2, 8):
            with room(f"reward model, {at_once} rows a pass"):
                check.reward_model(at_once)


class Check:
    """One model, trained in several ways."""

    def __init__(self, model: Any, weights: int, rate: float, rows: list, folder: Path) -> None:
        self.model, self.weights, self.rate = model, weights, rate
        self.rows, self.folder = rows, folder

    def job(
        self,
        attention: str,
        at_once: int,
        recomputation: bool,
        *,
        batch: int = ROWS,
        packed: bool = True,
    ) -> TrainingJob:
        """What a training is given; the model gets the attention that load_policy would choose."""
        chosen = choose_attention(self.model.config, attention, packed=packed, half=on_gpu())
        self.model.set_attn_implementation(chosen)
        self.model.gradient_checkpointing_disable()
        return make_training_job(
            self.model,
            self.folder / "out",
            trainer={
                "per_device_batch_size": at_once,
                "bf16": on_gpu(),
                "gradient_checkpointing": recomputation,
                "attention": attention,
            },
            schedule={"learning_rate": 1e-9, "batch_size": batch, "max_length": LENGTH},
        )

    def finetuning(self, attention: str, at_once: int, *, recomputation: bool) -> float:
        """Seconds of a step of packed fine-tuning."""
        job = self.job(attention, at_once, recomputation)
        training = Finetuning(job, ChatTokenizer(make_tokenizer()), self.rows, RowCounts())
        trainer = training.make_trainer(self.folder / "checkpoints")
        name = f"packed SFT, {attention}, {at_once} rows a pass"
        return self.measure(name + (", recomputation" if recomputation else ""), trainer)

    def bare(self, attention: str, at_once: int, *, recomputation: bool) -> float:
        """The same by TRL alone."""
        job = self.job(attention, at_once, recomputation)
        arguments = SFTConfig(
            **trainer_arguments(job, self.folder / "bare"),
            max_length=LENGTH,
            packing=True,
            packing_strategy="bfd",
            completion_only_loss=True,
        )
        trainer = SFTTrainer(
            model=self.model,
            args=arguments,
            train_dataset=Dataset.from_list(self.rows),
            processing_class=make_tokenizer(),
        )
        return self.measure("bare TRL", trainer)

    def reward_model(self, at_once: int) -> float:
        """Seconds of a step of the reward model on rows of real lengths."""
        job = self.job("auto", at_once, False, batch=16, packed=False)
        learner = learner_of(
            self.model, job.trainer, lm_loss_weight=0.1, token_dropout=0.0, noise_id=0
        )
        random = np.random.default_rng(0)
        rows = [
            RatedRow(
                input_ids=row["input_ids"][: LENGTH // 4],
                content=(0, 1),
                response=(1, min(len(row["input_ids"]), LENGTH // 4)),
                targets=random.uniform(0, 100, 10).astype(np.float32),
            )
            for row in self.rows
        ]
        pad = make_tokenizer().pad_token_id
        arguments = trainer_arguments(job, self.folder / "rm") | {"remove_unused_columns": False}
        trainer = RewardTrainer(
            model=learner,
            args=TrainingArguments(**arguments),
            train_dataset=rows,
            data_collator=lambda some: dict(collate(some, pad)),
        )
        return self.measure(f"reward model, {at_once} rows a pass", trainer)

    def measure(self, name: str, trainer: Any) -> float:
        """Record a trainer's tokens a second, MFU and memory; returns seconds of a step."""
        trainer.args.max_steps = STEPS
        clock = StepClock()
        trainer.add_callback(clock)
        if on_gpu():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        seconds = (clock.ends[-1] - clock.ends[1]) / (len(clock.ends) - 2)
        tokens = clock.tokens(trainer)
        memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu() else 0.0
        record(f"{name}: trained", tokens / seconds, "tokens/s", gib=round(memory, 1))
        mfu = 100 * 6 * self.weights * tokens / seconds / self.rate
        record(f"{name}: MFU", mfu, "%")
        del trainer
        free()
        return seconds


class StepClock(TrainerCallback):
    """When each step ended, and what it held."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        synchronise()
        self.ends.append(time.perf_counter())

    @staticmethod
    def tokens(trainer: Any) -> float:
        """Mean tokens of a step: the data set's, over its steps."""
        rows = trainer.train_dataset
        lengths = [len(rows[i]["input_ids"]) for i in range(min(len(rows), 200))]
        arguments = trainer.args
        per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        return float(np.mean(lengths)) * per_step


@contextmanager
def room(what: str) -> Iterator[None]:
    """A measurement for which the card may have too little memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        record(what, "out of memory")
        free()


def free() -> None:
    """Optimiser and activations of the last trainer."""
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
