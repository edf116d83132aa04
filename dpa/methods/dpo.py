"""Direct preference optimisation, through TRL: with a direction in the prompt, or without."""

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig, DPOTrainer

from dpa.artefacts.row_counts import RowCounts, check_dropped, check_truncated
from dpa.errors import InputError
from dpa.text.chat_template import ConversationError
from dpa.text.tokenization import ChatTokenizer
from dpa.training.batches import EMPTY_PAIR_LOSS, MeanOverRows
from dpa.training.memory import PAIRS
from dpa.training.shares import in_shares
from dpa.training.trainer import (
    Training,
    TrainingJob,
    load_policy,
    load_training_chat,
    lora_config,
    shard_policy,
    trainer_arguments,
)


class PairTrainer(MeanOverRows, DPOTrainer):
    """TRL's trainer on rows that dpa.text.tokenization made, each of the same weight."""

    filler_loss = EMPTY_PAIR_LOSS

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Rows are tokenised already."""
        return dataset

    def filler(self) -> dict[str, Any]:
        pad = cast(Any, self.processing_class).pad_token_id
        return {"prompt_ids": [pad], "chosen_ids": [], "rejected_ids": []}

    def lengths(self) -> list[int]:
        return [1] * len(cast(Sized, self.train_dataset))  # pairs in plainly random order

    def count_rows(self, batch: dict[str, Any]) -> tuple[int, torch.Tensor]:
        chosen, _ = batch["completion_mask"].chunk(2)
        return len(chosen), chosen.any(dim=1).sum()

    def _send_telemetry(self) -> None:
        """Nothing here needs a network."""


#: (prompt messages, chosen, rejected).
MessagePair = tuple[list[dict], str, str]
PairRows = list[dict[str, np.ndarray]]


def tokenise_pairs(
    chat: ChatTokenizer, pairs: Iterable[MessagePair], max_length: int, row_counts: RowCounts
) -> PairRows:
    """Rows of prompt_ids, chosen_ids and rejected_ids, truncated as the published recipes do.

    Where prompt and longer answer have more than `max_length` tokens together, the prompt keeps the
    last half of that many at most, and if that is not enough the answers keep their first half of
    it (zephyr-7b-beta and the alignment handbook: 1024 and 512). A pair is dropped whose prompt
    would lose its system prompt, which carries the direction, or that the chat template does not
    take. All is counted.
    """
    rows = []
    longest_prompt = max_length // 2
    for messages, chosen, rejected in pairs:
        row_counts.read += 1
        try:
            prompt, answers = chat.answer_ids(messages, [chosen, rejected])
        except ConversationError as error:
            row_counts.drop(str(error))
            continue
        longest = max(map(len, answers))
        if len(prompt) + longest > max_length and len(prompt) > longest_prompt:
            if messages[0]["role"] == "system":
                row_counts.drop("longer than max_length")
                continue
            prompt = prompt[-longest_prompt:]
            row_counts.shorten("the prompt's beginning")
        if len(prompt) + longest > max_length:
            answers = [answer[: max_length - longest_prompt] for answer in answers]
            row_counts.shorten("the answers' ends")
        ids = {"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]}
        rows.append({name: np.array(row, dtype=np.int32) for name, row in ids.items()})
    return rows


class PairTraining(Training):
    """DPO from a policy on (prompt messages, chosen, rejected), with the start as reference.

    Pairs are truncated to the schedule's max_length; what is dropped and shortened is counted in
    `row_counts` (see tokenise_pairs). `details` are for the sidecar. Raises InputError when no
    pair is left.
    """

    def __init__(
        self,
        job: TrainingJob,
        pairs: Iterable[MessagePair],
        beta: float,
        row_counts: RowCounts,
        **details: Any,
    ):
        chat = load_training_chat(job)

        def tokenised(block: list[MessagePair]) -> tuple[PairRows, RowCounts]:
            counts = RowCounts()
            return tokenise_pairs(chat, block, job.schedule.max_length, counts), counts

        rows: PairRows = []
        for some, counts in in_shares(pairs, tokenised, chat.controls):
            rows += some
            row_counts.add(counts)
        answered = (row[name] for row in rows for name in ("chosen_ids", "rejected_ids"))
        response_tokens = sum(map(len, answered))
        if not rows:
            raise InputError(f"{job.output}: no pairs to train on ({row_counts.as_dict()})")
        check_dropped(row_counts, str(job.output))
        shortened = dict(sorted(row_counts.shortened.items()))
        check_truncated(max(shortened.values(), default=0), len(rows), str(job.output))
        self.job, self.tokenizer, self.rows, self.row_counts = job, chat.tokenizer, rows, row_counts
        self.beta, self.settings = beta, {"beta": beta}
        self.details = details | {
            "rows": len(rows),
            "beta": beta,
            "response_tokens": response_tokens,
            "shortened": shortened,
            "neutralised": chat.controls.log_escaped(),
            **chat.details(),
        }

    def make_trainer(self, folder: Path) -> PairTrainer:
        job = self.job
        set_seed(job.seed % 2**32)
        # In fp32 like the trained policy; with LoRA the reference is the policy without adapters.
        adapters = lora_config(job.trainer)
        arguments = DPOConfig(
            **trainer_arguments(job, folder, PAIRS),
            beta=self.beta,
            max_length=job.schedule.max_length,
        )
        return PairTrainer(
            model=load_policy(job.start, job.trainer),
            ref_model=None if adapters else load_policy(job.start, job.trainer),
            args=shard_policy(arguments, job.trainer),
            train_dataset=Dataset.from_list(self.rows),
            processing_class=self.tokenizer,
            peft_config=adapters,
        )
