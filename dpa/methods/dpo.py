"""Direct preference optimisation, through TRL: with a direction in the prompt, or without."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.trainer import ScheduleConfig, TrainerConfig
from dpa.errors import InputError
from dpa.text.control_tokens import chat_controls
from dpa.text.tokenization import answer_ids
from dpa.training.batches import EMPTY_PAIR_LOSS, MeanOverRows
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


def train_dpo(
    start: tuple[str, str | None],
    pairs: Iterable[tuple[list[dict], str, str]],
    output: Path,
    training: TrainerConfig,
    schedule: ScheduleConfig,
    seed: int,
    *,
    beta: float,
    losses: RowCounts,
    inputs: list[Path | str],
    **details: Any,
) -> None:
    """DPO from a policy on (prompt messages, chosen, rejected), with the start as reference.

    Pairs longer than the schedule's max_length are dropped and counted in `losses`.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = load_training_tokenizer(*start)

    class PairTrainer(MeanOverRows, DPOTrainer):
        filler_loss = EMPTY_PAIR_LOSS

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            """Rows are tokenised by dpa.tokenization."""
            return dataset

        def filler(self) -> dict[str, Any]:
            return {"prompt_ids": [tokenizer.pad_token_id], "chosen_ids": [], "rejected_ids": []}

        def lengths(self) -> list[int]:
            return [1] * len(self.train_dataset)  # pairs in plainly random order

        def count_rows(self, batch: dict[str, Any]) -> tuple[int, torch.Tensor]:
            chosen, _ = batch["completion_mask"].chunk(2)
            return len(chosen), chosen.any(dim=1).sum()

        def _send_telemetry(self) -> None:
            """Nothing here needs a network."""

    rows = []
    response_tokens = 0
    for messages, chosen, rejected in pairs:
        losses.read += 1
        prompt, answers = answer_ids(tokenizer, messages, [chosen, rejected])
        if len(prompt) + max(map(len, answers)) > schedule.max_length:
            losses.drop("longer than max_length")
        else:
            columns = {"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]}
            rows.append({name: np.array(ids, dtype=np.int32) for name, ids in columns.items()})
            response_tokens += sum(map(len, answers))
    if not rows:
        raise InputError(f"{output}: no pairs to train on ({losses.as_dict()})")
    check_dropped(losses, str(output))
    details.update(
        rows=len(rows),
        beta=beta,
        response_tokens=response_tokens,
        neutralised=chat_controls(tokenizer).log_neutralised(),
    )
    # In fp32 like the trained policy; with LoRA the reference is the policy without its adapters.
    peft_config = lora_config(training)

    def make_trainer(folder: Path) -> Any:
        set_seed(seed % 2**32)
        return PairTrainer(
            model=load_policy(*start, training),
            ref_model=None if peft_config else load_policy(*start, training),
            args=shard_policy(
                DPOConfig(
                    **trainer_arguments(training, schedule, seed, folder),
                    beta=beta,
                    max_length=schedule.max_length,
                ),
                training,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=peft_config,
        )

    train_and_save(
        output,
        lambda: training_fingerprint(
            start, rows, training.model_dump(), schedule.model_dump(), seed, beta
        ),
        make_trainer,
        lambda trainer, folder: save_trained_policy(trainer, tokenizer, training, folder),
        lambda folder, trained: write_sidecar(
            output, inputs, losses, content=folder, **details, **trained
        ),
    )
