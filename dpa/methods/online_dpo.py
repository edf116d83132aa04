"""Online directional DPO: MO-ODPO (Gupta et al., 2025, arXiv 2503.00295), with MI-EPO's contrast.

A step visits its prompts: for each a direction v is drawn, two responses are sampled from the
policy as it is, under v in the system prompt, and v.r makes them a pair (dpa.methods.online_pairs).
The step's loss is DPO's, with the policy that training started from as the reference throughout;
every pair is used once. The paper draws weights from a Dirichlet distribution, we draw v from
`directions`.

With a contrast (arXiv 2607.01392) there is another direction w for each pair, and the loss has a
second term over its two responses y,

    1/2 sum_y -log sigmoid(beta_w (stop(D(y|x,v)) - D(y|x,w))),
    D(y|x,v) = log pi(y|x,v) - log pi_ref(y|x,v),

which makes a response less likely under a direction that it was not asked under: the more the
responses tell of the direction, the larger is their mutual information. That paper's first term, a
pair for each objective, is left out: v.r decides.

TRL's own online trainer draws from one global generator, trains on ties, and renders prompts
itself; here the transformers engine draws each sample from a seed of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.artefacts.sidecars import known_hash, write_sidecar
from dpa.config.sampling import SamplingConfig
from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError
from dpa.generation.engine import EngineSettings, ignore_tokens
from dpa.generation.transformers_engine import TransformersEngine
from dpa.methods.dpo import PairTrainer
from dpa.methods.online_pairs import PER_VISIT, DrawnCounts, OnlinePair, PairSource
from dpa.methods.rloo import check_positions, fitting_prompts
from dpa.models import load_checkpoint_config, read_end_tokens
from dpa.records import Prompt
from dpa.reward.scorer import Scorer
from dpa.runtime.log import log
from dpa.training.history import StepHistory
from dpa.training.memory import ONLINE_PAIRS
from dpa.training.trainer import (
    Training,
    TrainingJob,
    load_policy,
    load_training_chat,
    lora_config,
    trainer_arguments,
)

#: Of the history file. `reward` is the mean v.r of the step's responses, in points; `kl` the mean
#: log ratio to the reference of those in pairs, before the step, in nats; `response_tokens` counts
#: the end token; `truncated` is the share truncated at max_new_tokens.
STEP_COLUMNS = ["step", "reward", "kl", "response_tokens", "truncated", "loss"]
#: And what the step drew, counted.
COUNTED = [
    "responses", "pairs", "trained_tokens", "rewards_are_equal", "one_is_truncated",
    "prompt_too_long",
]  # fmt: skip
#: In the trainer's log: before what a step drew, and how many rows it had.
DRAWN, STEP_ROWS = "drawn/", "rows"
#: The number of the row that fills up an epoch's last batch.
NO_PROMPT = -1


class OnlinePairTrainer(PairTrainer):
    """TRL's DPO trainer; its rows are numbers of prompts, of which a step makes its pairs."""

    source: PairSource
    settings: EngineSettings
    contrast_beta: float | None
    drawn: DrawnCounts
    rows: int
    """Of the step, those of nothing included."""

    @cached_property
    def engine(self) -> TransformersEngine:
        """What samples the policy in training."""
        return TransformersEngine(self.settings, self.accelerator.unwrap_model(self.model))

    @cached_property
    def collate(self) -> DataCollatorForPreference:
        """Makes a batch of pairs."""
        return DataCollatorForPreference(cast(Any, self.processing_class).pad_token_id)

    def filler(self) -> dict[str, Any]:
        return {"number": NO_PROMPT}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of the next step, and how many pairs they have: the policy is sampled."""
        rows = [batch["number"].tolist() for batch in islice(epoch_iterator, num_batches)]
        numbers = [number for batch in rows for number in batch if number != NO_PROMPT]
        cast(Any, self.model).eval()
        pairs, drawn = self.source.pairs(self.engine, numbers, self.sampler.epoch + 1)
        sums = torch.tensor(drawn, dtype=torch.float64).to(self.args.device)
        self.drawn = DrawnCounts(*self.accelerator.reduce(sums, "sum").tolist())
        size = max(map(len, rows), default=0)
        self.rows = size * len(rows) * self.args.world_size
        batches = [
            self._batch([*map(pairs.get, batch), *[None] * (size - len(batch))]) for batch in rows
        ]
        return batches, self._get_num_items_in_batch(batches, device).clamp(min=1)

    def _batch(self, pairs: Sequence[OnlinePair | None]) -> dict[str, Any]:
        """Pairs as TRL takes them; those that are missing are pairs of nothing.

        The loss leaves these out. Processes need equally many rows, and TRL's means equal batches.
        """
        nothing = super().filler()
        rows = [
            nothing
            if pair is None
            else {
                "prompt_ids": pair.prompt,
                "chosen_ids": pair.chosen,
                "rejected_ids": pair.rejected,
            }
            for pair in pairs
        ]
        batch = self.collate(rows)
        if self.contrast_beta is not None:
            elsewhere = (
                row if pair is None else row | {"prompt_ids": pair.elsewhere}
                for row, pair in zip(rows, pairs, strict=True)
            )
            batch["elsewhere"] = self.collate(list(elsewhere))
        return batch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        pairs = {name: value for name, value in inputs.items() if name != "elsewhere"}
        loss = super().compute_loss(model, pairs, return_outputs, num_items_in_batch)
        if self.contrast_beta is None:
            return loss
        with torch.no_grad():
            asked = self._log_ratios(model, pairs)
        other = self._log_ratios(model, inputs["elsewhere"])
        real = pairs["completion_mask"].any(dim=1)
        terms = contrast_terms(asked, other, self.contrast_beta)[real]
        return loss + terms.sum() / 2 * (self.args.world_size / num_items_in_batch)

    def _log_ratios(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """(2 pairs,) log pi / pi_ref of each response, the chosen ones first."""
        reference = self.compute_ref_log_probs(self.ref_model or self.model, batch)
        return response_log_probabilities(model, batch) - torch.cat(reference)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update({f"{DRAWN}{name}": sum_ for name, sum_ in self.drawn._asdict().items()})
            logs[STEP_ROWS] = self.rows
        super().log(logs, start_time)


def contrast_terms(asked: torch.Tensor, other: torch.Tensor, beta: float) -> torch.Tensor:
    """-log sigmoid(beta (asked - other)) of log ratios under two directions; no gradient in the
    first."""
    return -F.logsigmoid(beta * (asked.detach() - other))


def response_log_probabilities(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """(rows,) log-probability of each row's response: the tokens of its completion_mask."""
    ids = batch["input_ids"]
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits[
        :, :-1
    ]
    found = -F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
    return (found * batch["completion_mask"][:, 1:]).sum(dim=1)


class OnlineDpo(Training):
    """Training of a policy on pairs of its own responses; `history` is the CSV of its steps.

    The job's start is the policy to start from and to stay near. The schedule's batch_size counts
    pairs, and its epochs are visits to each prompt; its max_length is not used, as the sampling's
    max_prompt_tokens and max_new_tokens bound the sequences. Longer prompts are dropped.

    Several processes keep a copy of the model each, and sample for themselves; results are the same
    but for rounding, which now and then makes another token of a sample. The trainer's `sharding`
    is not used.

    Raises InputError when prompts do not fit, when the reward model's scores are not finite, when
    no response is better than another, and when the loss or its gradient stops being a number.
    """

    def __init__(
        self,
        job: TrainingJob,
        prompts: Iterable[Prompt],
        history: Path,
        *,
        seed: int,
        distribution: dict,
        objectives: Sequence[ObjectiveConfig],
        reward_model: Scorer,
        beta: float,
        contrast_beta: float | None,
        sampling: SamplingConfig,
    ):
        # The policy that is sampled is whole.
        self.job = replace(job, trainer=job.trainer.model_copy(update={"sharding": "none"}))
        self.beta, self.contrast_beta, self.sampling = beta, contrast_beta, sampling
        self.reward_model = reward_model
        chat = load_training_chat(job)
        chat.check_system_prompt()
        self.tokenizer = chat.tokenizer
        self.source = PairSource(
            [],
            chat,
            distribution=distribution,
            objectives=objectives,
            reward_model=reward_model,
            seed=seed,
            max_prompt_tokens=sampling.max_prompt_tokens,
            contrasted=contrast_beta is not None,
        )
        self.row_counts = RowCounts()
        self.source.prompts = fitting_prompts(
            prompts,
            lambda prompt: self.source.prompt_ids(prompt, self.source.direction(prompt, 1)),
            sampling.max_prompt_tokens,
            self.row_counts,
        )
        check_dropped(self.row_counts, str(job.output))
        if not self.source.prompts:
            raise InputError(f"{job.output}: no prompts to train on ({self.row_counts})")
        longest = sampling.max_prompt_tokens + sampling.max_new_tokens
        check_positions(load_checkpoint_config(job.start), job.start.path, longest)
        log.info("%d prompts, %d pairs per step", len(self.source.prompts), job.schedule.batch_size)
        self.history, self.steps = history, DrawnHistory(job.output, beta)
        self.rows = ()  # prompts are among the inputs
        self.settings = {
            "base_seed": seed,
            "distribution": distribution,
            "beta": beta,
            "contrast_beta": contrast_beta,
            "sampling": [sampling.temperature, sampling.max_new_tokens, sampling.max_prompt_tokens,
                         sampling.rows_per_batch],
            "objectives": [objective.model_dump() for objective in objectives],
            "chat": chat.details(),
            "read": [known_hash(Path(item)) for item in job.inputs],
        }  # fmt: skip
        self.details = {
            "rows": len(self.source.prompts),
            "neutralised": chat.controls.log_escaped(),
            **chat.details(),
            "beta": beta,
            "contrast_beta": contrast_beta,
        }
        self.engine = EngineSettings(
            policy=job.start,
            chat=chat,
            end_tokens=read_end_tokens(job.start, chat.tokenizer),
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            max_model_len=longest,
            rows_per_batch=sampling.rows_per_batch,
            dtype=None,
            kv_cache_dtype="auto",
            on_tokens=ignore_tokens,
        )

    def make_trainer(self, folder: Path) -> OnlinePairTrainer:
        job = self.job
        set_seed(job.seed % 2**32)
        adapters = lora_config(job.trainer)
        trainer = OnlinePairTrainer(
            model=load_policy(job.start, job.trainer),
            # With LoRA the reference is the policy without adapters.
            ref_model=None if adapters else load_policy(job.start, job.trainer),
            args=DPOConfig(
                **trainer_arguments(job, folder, ONLINE_PAIRS)
                | {"logging_steps": 1, "remove_unused_columns": False},
                beta=self.beta,
                max_length=None,
            ),
            train_dataset=Dataset.from_dict({"number": range(len(self.source.prompts))}),
            data_collator=_numbers,
            processing_class=self.tokenizer,
            peft_config=adapters,
        )
        trainer.source, trainer.settings = self.source, self.engine
        trainer.contrast_beta = self.contrast_beta
        return trainer

    def callback(self) -> "DrawnHistory":
        return self.steps

    def write_sidecars(self, folder: Path, trained: dict[str, Any]) -> None:
        self.steps.rows = trained["history"]
        self.steps.write(self.history)
        steps = RowCounts.all_kept(len(self.steps.rows))
        write_sidecar(self.history, self.job.inputs, steps)
        total, visits = self.steps.total, RowCounts()
        visits.read = total("responses") // PER_VISIT + total("prompt_too_long")
        for reason in ("rewards_are_equal", "one_is_truncated", "prompt_too_long"):
            visits.drop(reason, rows=total(reason))
        details = {
            **self.details,
            "steps": trained["steps"],
            "train_loss": trained["train_loss"],
            "responses": total("responses"),
            "response_tokens": self.steps.total_of_responses("response_tokens"),
            "truncated": self.steps.total_of_responses("truncated"),
            "trained_tokens": total("trained_tokens"),
            "pairs": visits.as_dict(),
        }
        if self.job.furnish is not None:
            self.job.furnish(folder, details)
        write_sidecar(self.job.output, self.job.inputs, self.row_counts, content=folder, **details)
        self.reward_model.warn_if_constant(self.job.output)


def _numbers(rows: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
    """A batch of prompts' numbers."""
    return {"number": torch.tensor([row["number"] for row in rows])}


class DrawnHistory(StepHistory):
    """Progress lines about reward, KL and pairs; the rows of the history file."""

    columns = (*STEP_COLUMNS, *COUNTED)
    mark = f"{DRAWN}responses"

    def __init__(self, output: Path, beta: float) -> None:
        super().__init__()
        self.output, self.beta = output, beta

    def row(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        drawn = DrawnCounts(*(logs[f"{DRAWN}{name}"] for name in DrawnCounts._fields))
        responses = max(drawn.responses, 1)
        # Of a pair beta times the log ratio, of a row of nothing 0.
        gains = (logs["rewards/chosen"] + logs["rewards/rejected"]) / 2 * logs[STEP_ROWS]
        values = [
            step,
            drawn.reward / responses,
            gains / self.beta / drawn.pairs if drawn.pairs else None,
            drawn.response_tokens / responses,
            drawn.truncated / responses,
            logs["loss"],
            *(int(getattr(drawn, name)) for name in COUNTED),
        ]
        return dict(zip(self.columns, values, strict=True))

    def note_of(self, row: dict[str, Any]) -> str:
        kl = "" if row["kl"] is None else f", KL {row['kl']:.3f}"
        visits = row["responses"] // PER_VISIT
        return f", reward {row['reward']:.2f}{kl}, {row['pairs']} of {visits} pairs"

    def summary(self) -> dict[str, Any]:
        if not self.total("pairs"):
            raise InputError(
                f"{self.output}: of no two responses was one better than the other, so nothing was "
                f"learnt ({self.total('rewards_are_equal')} times the rewards were equal, "
                f"{self.total('one_is_truncated')} times one response was truncated); look at the "
                "reward model's log, and at sampling.max_new_tokens"
            )
        return super().summary()

    def total(self, column: str) -> int:
        """The sum of a column."""
        return sum(row[column] for row in self.rows)

    def total_of_responses(self, column: str) -> int:
        """Sum over all responses of a column that is a mean over each step's."""
        return round(sum(row[column] * row["responses"] for row in self.rows))
