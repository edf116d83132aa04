"""Supervised fine-tuning of policies, through TRL.

The loss is on what the assistant writes; rows are tokenised by dpa.text.tokenization, as in
sampling. Several processes train one model together (docs/training.md): each step is the same for
any number of them.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.errors import InputError
from dpa.models import ModelRef
from dpa.runtime.log import log
from dpa.text.chat_template import ConversationError
from dpa.text.tokenization import ChatTokenizer
from dpa.training.batches import GlobalBatches
from dpa.training.shares import in_shares
from dpa.training.trainer import (
    Training,
    TrainingJob,
    load_policy,
    load_training_chat,
    lora_config,
    run_training,
    shard_policy,
    trainer_arguments,
)

#: Tokens and masks as arrays: as lists of Python's numbers UltraChat's would take 11 GB.
Rows = list[dict[str, np.ndarray]]


def training_row(ids: list[int], mask: list[int]) -> dict[str, np.ndarray]:
    """A row as TRL takes it: tokens, and 1 for each that is learnt."""
    return {
        "input_ids": np.array(ids, dtype=np.int32),
        "completion_mask": np.array(mask, dtype=np.int8),
    }


def tokenise_conversations(
    chat: ChatTokenizer,
    conversations: Iterable[list[dict]],
    max_length: int,
    row_counts: RowCounts,
    last_answer_only: bool = False,
) -> Rows:
    """Rows of input_ids and completion_mask, of all answers or of a conversation's last.

    Longer rows, and those that the chat template does not take, are dropped and counted.
    """
    rows = []
    for messages in conversations:
        row_counts.read += 1
        if messages and messages[0]["role"] == "system":
            chat.check_system_prompt()
        try:
            ids, mask = chat.conversation_ids(messages, last_answer_only)
        except ConversationError as error:
            row_counts.drop(str(error))
            continue
        if not any(mask):
            row_counts.drop("no response")
        elif len(ids) > max_length:
            row_counts.drop("longer than max_length")
        else:
            rows.append(training_row(ids, mask))
    return rows


def tokenise_documents(
    chat: ChatTokenizer,
    conversations: Iterable[list[dict]],
    max_length: int,
    row_counts: RowCounts,
) -> Rows:
    """Rows for pretraining: every token of the conversation is learnt, truncated at max_length."""
    rows = []
    for messages in conversations:
        row_counts.read += 1
        try:
            ids = chat.conversation_ids(messages)[0][:max_length]
        except ConversationError as error:
            row_counts.drop(str(error))
            continue
        rows.append(training_row(ids, [1] * len(ids)))
    return rows


class Finetuner(GlobalBatches, SFTTrainer):
    """TRL's trainer with global batches; on a CPU with a loss of our own, in half of the time."""

    @property
    def fused_head(self) -> bool:
        """Whether the loss is TRL's, whose head saves a GPU's memory."""
        return not self.args.use_cpu

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if self.fused_head or return_outputs or num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return response_loss(model, inputs) * self.args.world_size / num_items_in_batch

    def filler(self) -> dict[str, Any]:
        pad = cast(Any, self.processing_class).pad_token_id
        return {"input_ids": [pad], "labels": [-100], "seq_lengths": [1]}

    def _send_telemetry(self) -> None:
        """Nothing here needs a network."""


class Finetuning(Training):
    """Fine-tuning on tokenised rows. `details` are for the sidecar."""

    def __init__(
        self,
        job: TrainingJob,
        chat: ChatTokenizer,
        rows: Rows,
        row_counts: RowCounts,
        **details: Any,
    ):
        if not rows:
            raise InputError(f"{job.output}: no rows to train on ({row_counts.as_dict()})")
        check_dropped(row_counts, str(job.output))  # not only when it is trained
        response_tokens = sum(int(row["completion_mask"].sum()) for row in rows)
        log.info("training on %d rows, %d response tokens", len(rows), response_tokens)
        self.job, self.tokenizer, self.rows, self.row_counts = job, chat.tokenizer, rows, row_counts
        self.settings: dict[str, Any] = {}
        self.details = details | {
            "rows": len(rows),
            "response_tokens": response_tokens,
            "shortened": dict(sorted(row_counts.shortened.items())),
            "neutralised": chat.controls.log_escaped(),
            **chat.details(),
        }

    def make_trainer(self, folder: Path) -> Finetuner:
        job = self.job
        set_seed(job.seed % 2**32)
        packed = job.trainer.packing
        arguments = SFTConfig(
            **trainer_arguments(job, folder),
            max_length=job.schedule.max_length,
            packing=packed,
            packing_strategy="bfd",
            completion_only_loss=True,
        )
        given = isinstance(job.start, ModelRef)
        return Finetuner(
            model=load_policy(job.start, job.trainer, packed=packed) if given else job.start,
            args=shard_policy(arguments, job.trainer),
            train_dataset=Dataset.from_list(self.rows),
            processing_class=self.tokenizer,
            peft_config=lora_config(job.trainer),
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
    job: TrainingJob,
    conversations: Iterable[list[dict]],
    row_counts: RowCounts | None = None,
    *,
    last_answer_only: bool = False,
    **details: Any,
) -> None:
    """Fine-tune a policy on conversations, tokenised with its own chat template.

    It learns all answers of a conversation, or the last only, where the others are part of the
    prompt. `row_counts` says what was left out of the conversations; `details` are for the sidecar.
    """
    row_counts = row_counts or RowCounts()
    chat = load_training_chat(job)

    def tokenised(block: list[list[dict]]) -> tuple[Rows, RowCounts]:
        counts = RowCounts()
        rows = tokenise_conversations(
            chat, block, job.schedule.max_length, counts, last_answer_only
        )
        return rows, counts

    rows: Rows = []
    for some, counts in in_shares(conversations, tokenised, chat.controls):
        rows += some
        row_counts.add(counts)
    job = replace(job, inputs=(job.start.path, *job.inputs))
    run_training(Finetuning(job, chat, rows, row_counts, **details))
