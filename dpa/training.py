"""Supervised fine-tuning and DPO of policies, through TRL.

All stages share `Training` (hardware, optimiser) and have a `Schedule` of their own. The loss is on
what the assistant writes; rows are tokenised by dpa.tokenization, as in sampling.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, TrainerCallback, set_seed

from dpa import models
from dpa.cli import Progress, log
from dpa.config import Schedule, Training
from dpa.controls import chat_controls
from dpa.errors import InputError
from dpa.models import load_model
from dpa.provenance import Losses, save_folder, write_sidecar
from dpa.tokenization import answer_ids, conversation_ids

Rows = list[dict[str, list[int]]]


def trainer_arguments(
    training: Training, schedule: Schedule, seed: int, output_dir: Path
) -> dict[str, Any]:
    """Arguments that every Trainer of the pipeline gets.

    Gradient accumulation is derived so that the global batch is the schedule's batch_size on any
    number of devices. Raises InputError when that does not divide.
    """
    from accelerate import PartialState

    devices = PartialState().num_processes
    step = min(training.per_device_batch_size, schedule.batch_size) * devices
    if schedule.batch_size % step:
        raise InputError(
            f"batch_size {schedule.batch_size} is not a multiple of {step} (per_device_batch_size "
            "times devices); change training.per_device_batch_size"
        )
    return {
        "output_dir": str(output_dir),
        "seed": seed % 2**32,
        "use_cpu": not torch.cuda.is_available(),
        "per_device_train_batch_size": step // devices,
        "gradient_accumulation_steps": schedule.batch_size // step,
        "learning_rate": schedule.learning_rate,
        "num_train_epochs": schedule.epochs,
        "lr_scheduler_type": schedule.schedule,
        "warmup_steps": schedule.warmup_steps,
        "adam_beta1": training.adam_betas[0],
        "adam_beta2": training.adam_betas[1],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": training.bf16,
        "gradient_checkpointing": training.gradient_checkpointing,
        "logging_steps": 50,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class LengthGroups(torch.utils.data.Sampler[int]):
    """Row numbers such that rows of a batch have similar lengths and batches come in random order.

    The Trainer's own grouping runs from long to short over and over, so that what goes with length
    (verbosity!) drifts from step to step; it cost the quickstart's reward model a quarter of its
    correlation with the truth.
    """

    WINDOW = 20  # batches among which rows are sorted

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed = np.asarray(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer, so that every epoch has an order of its own."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        span = self.WINDOW * self.batch_size
        windows = [order[i : i + span] for i in range(0, len(order), span)]
        rows = np.concatenate([w[np.argsort(self.lengths[w], kind="stable")] for w in windows])
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        # The last batch may be short, which only the end of an epoch allows.
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        for batch in [*(batches[i] for i in generator.permutation(len(batches))), *last]:
            yield from batch.tolist()


class LengthGroupedMixin:
    """Makes a Trainer draw its batches with LengthGroups (unless rows are packed)."""

    args: Any
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if getattr(self.args, "packing", False):
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        lengths = [len(row["input_ids"]) for row in self.train_dataset]
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(lengths, batch, self.args.seed)


class ProgressCallback(TrainerCallback):
    """Progress lines instead of progress bars; a loss that is not a number ends the run."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(state.max_steps, "steps")
        self.loss: float | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.loss = logs["loss"]
            if not math.isfinite(self.loss):
                raise InputError(
                    f"training diverged: loss {self.loss} at step {state.global_step}; "
                    "lower the stage's learning_rate"
                )

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.advance(1, "" if self.loss is None else f", loss {self.loss:.4f}")


def run_trainer(trainer: Any) -> dict[str, Any]:
    """Train with progress lines for progress bars; returns steps and loss for the sidecar."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressCallback())
    result = trainer.train()
    if not math.isfinite(result.training_loss):
        raise InputError(
            f"training diverged: mean loss {result.training_loss}; lower the stage's learning_rate"
        )
    return {"steps": result.global_step, "train_loss": round(result.training_loss, 6)}


def tokenise_conversations(
    tokenizer: Any, conversations: Iterable[list[dict]], max_length: int, losses: Losses
) -> Rows:
    """Rows of input_ids and completion_mask; longer rows are dropped and counted."""
    rows = []
    for messages in conversations:
        losses.read += 1
        if messages and messages[0]["role"] == "system":
            models.check_system_prompt(tokenizer)
        ids, mask = conversation_ids(tokenizer, messages)
        if not any(mask):
            losses.drop("no response")
        elif len(ids) > max_length:
            losses.drop("longer than max_length")
        else:
            rows.append({"input_ids": ids, "completion_mask": mask})
    return rows


def tokenise_documents(
    tokenizer: Any, conversations: Iterable[list[dict]], max_length: int, losses: Losses
) -> Rows:
    """Rows for pretraining: every token of the conversation is learnt, cut at max_length."""
    rows = []
    for messages in conversations:
        losses.read += 1
        ids, _ = conversation_ids(tokenizer, messages)
        rows.append({"input_ids": ids[:max_length], "completion_mask": [1] * len(ids[:max_length])})
    return rows


def finetune(
    start: Any,
    tokenizer: Any,
    rows: Rows,
    output: Path,
    training: Training,
    schedule: Schedule,
    seed: int,
    *,
    losses: Losses,
    inputs: list[Path | str],
    **details: Any,
) -> None:
    """Fine-tune on tokenised rows and save a plain causal LM folder with its sidecar.

    `start` is a model, or the (path, revision) of one.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Finetuner(LengthGroupedMixin, SFTTrainer):
        pass

    if not rows:
        raise InputError(f"{output}: no rows to train on ({losses.as_dict()})")
    set_seed(seed % 2**32)
    model = load_policy(start[0], start[1], training) if isinstance(start, tuple) else start
    response_tokens = sum(sum(row["completion_mask"]) for row in rows)
    log.info("training on %d rows, %d response tokens", len(rows), response_tokens)

    def train(folder: Path) -> None:
        trainer = Finetuner(
            model=model,
            args=SFTConfig(
                **trainer_arguments(training, schedule, seed, folder),
                max_length=schedule.max_length,
                packing=training.packing,
                packing_strategy="bfd",
                completion_only_loss=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        details.update(run_trainer(trainer))
        save_policy(trainer.model, tokenizer, folder)

    save_folder(output, train)
    details.update(
        rows=len(rows),
        response_tokens=response_tokens,
        neutralised=chat_controls(tokenizer).log_neutralised(),
    )
    write_sidecar(output, inputs, losses, **details)


def finetune_conversations(
    start: tuple[str, str | None],
    conversations: Iterable[list[dict]],
    output: Path,
    training: Training,
    schedule: Schedule,
    seed: int,
    *,
    inputs: list[Path | str],
    **details: Any,
) -> None:
    """`finetune` a policy on conversations, tokenised with its own chat template.

    `start` is (folder or hub id, revision); `inputs` are what the conversations were made from.
    """
    losses = Losses()
    tokenizer = load_tokenizer(*start)
    rows = tokenise_conversations(tokenizer, conversations, schedule.max_length, losses)
    inputs = [start[0], *inputs]
    finetune(
        start,
        tokenizer,
        rows,
        output,
        training,
        schedule,
        seed,
        losses=losses,
        inputs=inputs,
        **details,
    )


def train_dpo(
    start: tuple[str, str | None],
    pairs: Iterable[tuple[list[dict], str, str]],
    output: Path,
    training: Training,
    schedule: Schedule,
    seed: int,
    *,
    beta: float,
    losses: Losses,
    inputs: list[Path | str],
    **details: Any,
) -> None:
    """DPO from a policy on (prompt messages, chosen, rejected), with the start as reference.

    Pairs longer than the schedule's max_length are dropped and counted in `losses`.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class TokenisedDPOTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            """Rows are tokenised by dpa.tokenization."""
            return dataset

    tokenizer = load_tokenizer(*start)
    rows = []
    response_tokens = 0
    for messages, chosen, rejected in pairs:
        losses.read += 1
        prompt, answers = answer_ids(tokenizer, messages, [chosen, rejected])
        if len(prompt) + max(map(len, answers)) > schedule.max_length:
            losses.drop("longer than max_length")
        else:
            rows.append(
                {"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]}
            )
            response_tokens += sum(map(len, answers))
    if not rows:
        raise InputError(f"{output}: no pairs to train on ({losses.as_dict()})")
    set_seed(seed % 2**32)
    details.update(
        rows=len(rows),
        beta=beta,
        response_tokens=response_tokens,
        neutralised=chat_controls(tokenizer).log_neutralised(),
    )

    def train(folder: Path) -> None:
        arguments = trainer_arguments(training, schedule, seed, folder)
        trainer = TokenisedDPOTrainer(
            model=load_policy(*start, training),
            ref_model=load_policy(*start, training),
            args=DPOConfig(**arguments, beta=beta, max_length=schedule.max_length),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        details.update(run_trainer(trainer))
        save_policy(trainer.model, tokenizer, folder)

    save_folder(output, train)
    write_sidecar(output, inputs, losses, **details)


def load_policy(path: str, revision: str | None, training: Training) -> Any:
    """A causal LM for training: fp32 master weights (bf16 compute is the Trainer's)."""
    return load_model(
        AutoModelForCausalLM,
        path,
        revision,
        dtype=torch.float32,
        attn_implementation=training.attention,
    )


def load_tokenizer(path: str, revision: str | None) -> Any:
    """The model's tokenizer. Raises InputError without a chat template or a pad token."""
    tokenizer = models.load_tokenizer(path, revision)
    if not tokenizer.chat_template:
        raise InputError(f"{path}: the tokenizer has no chat template; choose a chat model")
    models.check_chat_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    """A folder that plain AutoModelForCausalLM and AutoTokenizer load."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
