"""Which rows a training step takes, the same on any number of processes.

A global batch is the schedule's batch_size, whatever the number of processes and of accumulation
steps that it is spread over: the sampler orders rows by global batches, and accelerate deals them
out in turn. The last batch of an epoch may be short. Several processes need equal shares of it, so
it is filled up with a row of padding, which the loss leaves out: the loss is a mean over the real
tokens or rows of the whole global batch.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


class LengthGroups(torch.utils.data.Sampler[int]):
    """Row numbers such that rows of a batch have similar lengths and batches come in random order.

    The Trainer's own grouping runs from long to short over and over, so that what goes with length
    (verbosity!) drifts from step to step; it cost the quickstart's reward model a quarter of its
    correlation with the truth.

    The end is filled up to a multiple of `multiple` with the number after the last row.
    """

    WINDOW = 20  # batches among which rows are sorted

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, multiple: int = 1):
        self.lengths, self.batch_size, self.seed = np.asarray(lengths), batch_size, seed
        self.fillers = -len(lengths) % multiple
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Every epoch has an order of its own."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.fillers

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
        yield from [len(self.lengths)] * self.fillers


class WithFiller(torch.utils.data.Dataset):
    """A trainer's rows with one more after them: the row that fills up an epoch's last batch."""

    def __init__(self, rows: Any, filler: dict[str, Any]):
        self.rows, self.filler = rows, filler

    def __len__(self) -> int:
        return len(self.rows) + 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.filler if index == len(self.rows) else self.rows[index]


class GlobalBatches:
    """Mixin: makes a Trainer draw its global batches with LengthGroups."""

    args: Any
    train_dataset: Any
    sampler: LengthGroups

    def filler(self) -> dict[str, Any]:
        """The row of padding; columns that the dataset lacks are left out."""
        raise NotImplementedError

    def lengths(self) -> list[int]:
        """Of all rows, in tokens; or all the same, for an order that is plainly random."""
        return [len(row["input_ids"]) for row in self.train_dataset]

    def set_epoch(self, epoch: int) -> None:
        """Which epoch's order comes next."""
        self.sampler.set_epoch(epoch)

    def get_train_dataloader(self) -> Any:
        """The Trainer's, over the rows and the filler."""
        rows, args = self.train_dataset, self.args
        step = args.per_device_train_batch_size * args.world_size
        self.sampler = LengthGroups(
            self.lengths(),
            step * args.gradient_accumulation_steps,
            args.seed,
            multiple=step if args.world_size > 1 else 1,
        )
        if self.sampler.fillers:
            rows = WithFiller(rows, {k: v for k, v in self.filler().items() if k in rows[0]})
        return self._get_dataloader(  # type: ignore[attr-defined]
            dataset=rows,
            description="Training",
            batch_size=args.per_device_train_batch_size,
            sampler_fn=lambda _: self.sampler,
            is_training=True,
        )


class MeanOverRows(GlobalBatches):
    """Mixin: a loss that is a mean over a forward pass's rows becomes one over the global batch.

    Without it every forward pass would weigh the same, however few rows it has.
    """

    accelerator: Any
    loss_is_scaled_for_ga: Any = True
    #: What a row of padding adds to the sum over rows.
    filler_loss = 0.0

    def count_rows(self, batch: dict[str, Any]) -> tuple[int, torch.Tensor]:
        """(rows of a forward pass, how many of them are not fillers)."""
        raise NotImplementedError

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        counts = [self.count_rows(batch)[1] for batch in batch_samples]
        total = torch.stack(counts).sum().to(device)
        return self.accelerator.gather(total).sum() if self.args.world_size > 1 else total

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Times the number of processes, because gradients are averaged over them."""
        rows, real = self.count_rows(inputs)
        result = super().compute_loss(model, inputs, return_outputs)  # type: ignore[misc]
        if num_items_in_batch is None:
            return result
        loss, outputs = result if return_outputs else (result, None)
        share = self.args.world_size / num_items_in_batch
        loss = loss * (rows * share) - self.filler_loss * ((rows - real) * share)
        return (loss, outputs) if return_outputs else loss


#: Of a pair without responses in DPO: -log sigmoid(0), whatever the policy.
EMPTY_PAIR_LOSS = math.log(2)
