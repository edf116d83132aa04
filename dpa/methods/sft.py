"""Supervised fine-tuning of policies, through TRL.

The loss is on what the assistant writes; rows are tokenised by dpa.text.tokenization, as in
sampling. Several processes train one model together (docs/training.md): each step is the same for
any number of them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import set_seed

from dpa import models
from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.trainer import ScheduleConfig, TrainerConfig
from dpa.errors import InputError
from dpa.runtime.log import log
from dpa.text.control_tokens import chat_controls
from dpa.text.tokenization import conversation_ids
from dpa.training.batches import GlobalBatches
from dpa.training.checkpoints import training_fingerprint
from dpa.training.trainer import (
    load_policy,
    load_training_tokenizer,
    lora_config,
    save_trained_policy,
    shard_policy,
    train_and_save,
    trainer_arguments,
)

#: Tokens and masks as arrays: as lists of Python's numbers UltraChat's would take 11 GB.
Rows = list[dict[str, np.ndarray]]


def training_row(ids: list[int], mask: list[int]) -> dict[str, np.ndarray]:
    """A row as TRL takes it: tokens, and 1 for each that is to be learnt."""
    return {
        "input_ids": np.array(ids, dtype=np.int32),
        "completion_mask": np.array(mask, dtype=np.int8),
    }


def tokenise_conversations(
    tokenizer: Any, conversations: Iterable[list[dict]], max_length: int, losses: RowCounts
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
            rows.append(training_row(ids, mask))
    return rows


def tokenise_documents(
    tokenizer: Any, conversations: Iterable[list[dict]], max_length: int, losses: RowCounts
) -> Rows:
    """Rows for pretraining: every token of the conversation is learnt, cut at max_length."""
    rows = []
    for messages in conversations:
        losses.read += 1
        ids, _ = conversation_ids(tokenizer, messages)
        ids = ids[:max_length]
        rows.append(training_row(ids, [1] * len(ids)))
    return rows


def finetune(
    start: Any,
    tokenizer: Any,
    rows: Rows,
    output: Path,
    training: TrainerConfig,
    schedule: ScheduleConfig,
    seed: int,
    *,
    losses: RowCounts,
    inputs: list[Path | str],
    **details: Any,
) -> None:
    """Fine-tune on tokenised rows and save a plain causal LM folder with its sidecar.

    `start` is a model, or the (path, revision) of one.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Finetuner(GlobalBatches, SFTTrainer):
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if self.args.use_cpu and not return_outputs and num_items_in_batch is not None:
                return response_loss(model, inputs) * self.args.world_size / num_items_in_batch
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        def filler(self) -> dict[str, Any]:
            return {"input_ids": [tokenizer.pad_token_id], "labels": [-100], "seq_lengths": [1]}

        def _send_telemetry(self) -> None:
            """Nothing here needs a network."""

    if not rows:
        raise InputError(f"{output}: no rows to train on ({losses.as_dict()})")
    check_dropped(losses, str(output))  # not only when it is trained
    response_tokens = sum(int(row["completion_mask"].sum()) for row in rows)
    log.info("training on %d rows, %d response tokens", len(rows), response_tokens)

    def make_trainer(folder: Path) -> Any:
        set_seed(seed % 2**32)
        return Finetuner(
            model=load_policy(start[0], start[1], training) if isinstance(start, tuple) else start,
            args=shard_policy(
                SFTConfig(
                    **trainer_arguments(training, schedule, seed, folder),
                    max_length=schedule.max_length,
                    packing=training.packing,
                    packing_strategy="bfd",
                    completion_only_loss=True,
                ),
                training,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora_config(training),
        )

    details.update(
        rows=len(rows),
        response_tokens=response_tokens,
        neutralised=chat_controls(tokenizer).log_neutralised(),
    )
    train_and_save(
        output,
        lambda: training_fingerprint(
            start, rows, training.model_dump(), schedule.model_dump(), seed
        ),
        make_trainer,
        lambda trainer, folder: save_trained_policy(trainer, tokenizer, training, folder),
        lambda folder, trained: write_sidecar(
            output, inputs, losses, content=folder, **details, **trained
        ),
    )


def response_loss(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Summed cross-entropy (nats) of the labels, of a batch as TRL's collator makes it.

    TRL's own loss goes through a head that saves a GPU's memory by computing logits twice, which on
    a CPU takes as long as all the rest. Here they are kept, from the batch's first response on.
    """
    labels = inputs["labels"]
    first = max(1, int((labels != -100).any(dim=0).int().argmax()))
    logits = model(
        **{name: value for name, value in inputs.items() if name != "labels"},
        use_cache=False,
        logits_to_keep=labels.shape[1] - first + 1,
    ).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, first:].flatten(), reduction="sum"
    )


def finetune_conversations(
    start: tuple[str, str | None],
    conversations: Iterable[list[dict]],
    output: Path,
    training: TrainerConfig,
    schedule: ScheduleConfig,
    seed: int,
    *,
    inputs: list[Path | str],
    losses: RowCounts | None = None,
    **details: Any,
) -> None:
    """`finetune` a policy on conversations, tokenised with its own chat template.

    `start` is (folder or hub id, revision); `inputs` are what the conversations were made from, and
    `losses` what was left out of them.
    """
    losses = losses or RowCounts()
    tokenizer = load_training_tokenizer(*start)
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
