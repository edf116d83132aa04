"""Training of the multi-objective reward model (paper, section 3.1).

A causal language model's backbone with one linear output per attribute, trained on what is labelled
in each row and, beside it, on predicting the response (one backbone pass for both). Labels are on
0-100; while training, outputs and labels are divided by 100, and the saved head has the factor
folded in, so that plain `AutoModelForSequenceClassification` gives scores on 0-100.

Works for every architecture that has both AutoModelForCausalLM and
AutoModelForSequenceClassification with a linear `score` (Mistral, Llama, Gemma, Qwen, ...).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, cast

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

from dpa import models
from dpa.artefacts.row_counts import RowCounts, check_dropped, check_truncated
from dpa.artefacts.sidecars import known_hash
from dpa.config.trainer import TrainerConfig
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef
from dpa.records import Rating
from dpa.runtime.log import log
from dpa.text.control_tokens import reward_controls
from dpa.text.prompts import REWARD_INSTRUCTION, REWARD_SUFFIX, reward_input, reward_prefix
from dpa.text.tokenization import truncate_ids
from dpa.training.batches import MeanOverRows
from dpa.training.saving import save_checkpoint
from dpa.training.shares import in_shares
from dpa.training.trainer import (
    Training,
    TrainingJob,
    gathered,
    load_policy,
    lora_config,
    shard_policy,
    trainer_arguments,
)

#: The head learns labels divided by this: outputs near 1 suit the backbone's learning rate.
LABEL_SCALE = 100.0


class RatedRow(TypedDict):
    """A tokenised rating; ranges are [start, end) of token positions."""

    input_ids: np.ndarray
    content: tuple[int, int]
    response: tuple[int, int]
    targets: np.ndarray


class RatedBatch(TypedDict):
    """Rows padded on the right: (B, L) ids and masks, (B,) lengths, (B, outputs) targets."""

    input_ids: Tensor
    lengths: Tensor
    content: Tensor
    response: Tensor
    targets: Tensor


# --- Data ------------------------------------------------------------------------------------


def tokenise_ratings(
    tokenizer: Any,
    ratings: Iterable[Rating],
    attributes: Sequence[str],
    max_length: int,
    row_counts: RowCounts,
) -> tuple[list[RatedRow], int]:
    """(rows, how many of them were truncated to `max_length` tokens).

    Rows without labels are dropped. Targets are NaN where an attribute is not labelled. Raises
    InputError for a rating of an attribute that is not among `attributes`.
    """
    index = {name: i for i, name in enumerate(attributes)}
    rows, truncated = [], 0
    controls = reward_controls(tokenizer)
    labelled = (
        msgspec.structs.replace(
            rating,
            prompt=controls.escape_prompt(rating.prompt),
            response=controls.escape(rating.response),
        )
        for rating in _labelled(ratings, index, row_counts)
    )
    while some := list(islice(labelled, 1000)):
        texts = [reward_input(rating.prompt, rating.response) for rating in some]
        encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
        for rating, text, ids, offsets in zip(
            some, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            kept = truncate_ids(ids, max_length, tokenizer)
            removed = len(ids) - len(kept)
            truncated += removed > 0
            spans = np.array(offsets)
            targets = np.full(len(attributes), np.nan, dtype=np.float32)
            for name, value in rating.attributes.items():
                targets[index[name]] = value
            begin, end = len(REWARD_INSTRUCTION), len(text) - len(REWARD_SUFFIX)
            rows.append(
                RatedRow(
                    input_ids=np.array(kept, dtype=np.int32),
                    content=_token_range(spans, begin, end, removed),
                    response=_token_range(spans, len(reward_prefix(rating.prompt)), end, removed),
                    targets=targets,
                )
            )
    return rows, truncated


def _labelled(
    ratings: Iterable[Rating], index: dict[str, int], row_counts: RowCounts
) -> Iterator[Rating]:
    for rating in ratings:
        row_counts.read += 1
        if unknown := sorted(set(rating.attributes) - set(index)):
            raise InputError(
                f"ratings: prompt {rating.prompt_id} ({rating.dataset}) has attributes {unknown} "
                "that are not in reward_model.attributes; add them there"
            )
        if rating.attributes:
            yield rating
        else:
            row_counts.drop("no labelled attribute")


def _token_range(spans: np.ndarray, begin: int, end: int, removed: int) -> tuple[int, int]:
    """Positions of the tokens that overlap characters [begin, end), once `removed` tokens are gone.

    A token that straddles `begin` (a space and the first word) counts as inside.
    """
    inside = np.flatnonzero((spans[:, 1] > begin) & (spans[:, 0] < end))
    if begin >= end or len(inside) == 0:
        return 0, 0
    return max(int(inside[0]) - removed, 0), max(int(inside[-1]) + 1 - removed, 0)


def collate(rows: list[RatedRow], pad_id: int) -> RatedBatch:
    """Pad rows on the right into one batch."""
    lengths = [len(row["input_ids"]) for row in rows]
    shape = (len(rows), max(lengths))
    ids = np.full(shape, pad_id, dtype=np.int64)
    masks = {name: np.zeros(shape, dtype=bool) for name in ("content", "response")}
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = row["input_ids"]
        masks["content"][i, slice(*row["content"])] = True
        masks["response"][i, slice(*row["response"])] = True
    return RatedBatch(
        input_ids=torch.from_numpy(ids),
        lengths=torch.tensor(lengths),
        content=torch.from_numpy(masks["content"]),
        response=torch.from_numpy(masks["response"]),
        targets=torch.from_numpy(np.stack([row["targets"] for row in rows])),
    )


# --- Model -----------------------------------------------------------------------------------


class RewardLearner(nn.Module):
    """The classifier with its language-modelling head, for training."""

    def __init__(
        self,
        classifier: Any,
        lm_head: nn.Module,
        *,
        lm_loss_weight: float,
        token_dropout: float,
        noise_id: int,
        head_dropout: float = 0.0,
        adapters: Any = None,
    ):
        super().__init__()
        self.classifier = classifier
        self.adapters = [adapters]  # in a list: its modules are the classifier's
        self._no_split_modules = classifier._no_split_modules  # what is sharded as a unit
        self.lm_head = lm_head if lm_loss_weight > 0 else None
        self.lm_loss_weight = lm_loss_weight
        self.token_dropout = token_dropout
        self.head_dropout = head_dropout
        self.noise_id = noise_id

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """What the Trainer calls on a transformers model."""
        self.classifier.gradient_checkpointing_enable(**kwargs)

    def forward(
        self, input_ids: Tensor, lengths: Tensor, content: Tensor, response: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """{"loss": scalar, "scores": (B, outputs) on 0-1}: means over rows, so that the loss does
        not depend on how a global batch is split."""
        tokens = input_ids
        if self.training and self.token_dropout > 0:
            noised = content & (
                torch.rand(content.shape, device=content.device) < self.token_dropout
            )
            tokens = input_ids.masked_fill(noised, self.noise_id)
        hidden = self._hidden(tokens)
        last = _last(hidden, lengths)
        if self.training and self.head_dropout > 0:
            last = F.dropout(last, self.head_dropout)
        with torch.autocast(hidden.device.type, enabled=False):
            # bfloat16 would round scores to 0.4 points of 100.
            head = self.classifier.score
            bias = None if head.bias is None else head.bias.float()
            scores = F.linear(last.float(), head.weight.float(), bias)
        loss = regression_loss(scores, targets / LABEL_SCALE)
        if self.lm_head is not None:
            loss = loss + self.lm_loss_weight * self.response_loss(hidden, input_ids, response)
        return {"loss": loss, "scores": scores}

    def features(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, width): what the head sees of each row."""
        return _last(self._hidden(input_ids), lengths)

    def _hidden(self, tokens: Tensor) -> Tensor:
        # Causal attention never looks right, where the padding is: no mask is needed.
        return self.classifier.base_model(tokens, use_cache=False).last_hidden_state

    def response_loss(self, hidden: Tensor, input_ids: Tensor, response: Tensor) -> Tensor:
        """Cross-entropy (nats) of the response tokens: mean within each row, then over rows."""
        assert self.lm_head is not None
        predicted = response[:, 1:]
        logits = self.lm_head(hidden[:, :-1][predicted]).float()
        cap = getattr(self.classifier.config, "final_logit_softcapping", None)  # Gemma 2
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        losses = F.cross_entropy(logits, input_ids[:, 1:][predicted], reduction="none")
        counts = predicted.sum(dim=1)
        rows = torch.nonzero(predicted)[:, 0]
        return (losses / counts[rows]).sum() / len(counts)


def _last(hidden: Tensor, lengths: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def regression_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Squared error: its sum over each row's labelled attributes (not NaN), mean over rows.

    Equation 1: every label weighs the same, however many attributes its row's data set rates.
    """
    labelled = ~targets.isnan()
    return ((scores - targets.nan_to_num()).square() * labelled).sum(dim=1).mean()


def make_learner(
    base: AnyModel,
    tokenizer: Any,
    attributes: Sequence[str],
    config: TrainerConfig,
    *,
    lm_loss_weight: float,
    token_dropout: float,
    head_dropout: float = 0.0,
    head: Tensor | None = None,
    continued: AnyModel | None = None,
) -> RewardLearner:
    """A learner on the base model's backbone with a zeroed head, or with the weights `head`
    (outputs, width), for labels on 0-100; or with the backbone and the head of a reward model that
    is `continued`. Where the language-modelling head is not the embedding, it is the base model's.

    Raises InputError when the architecture has no linear `score` head, or holds fewer tokens than
    the tokenizer lets through, or when `head` or `continued` is another model's.
    """
    path = ModelRef.of(base).path
    before: Any = None
    if continued is not None:
        models.check_same_architecture(continued, base)
        models.output_names(models.load_checkpoint_config(continued), attributes, str(continued))
        # In fp32, whatever the backbone takes: its head would lose decimals.
        before = models.load_model(
            AutoModelForSequenceClassification, continued, dtype=torch.float32
        )
    causal = load_policy(base, config)
    positions = getattr(causal.config, "max_position_embeddings", None)
    if positions is not None and tokenizer.model_max_length > positions:
        raise InputError(
            f"{path}: holds {positions} tokens, fewer than reward_model.schedule.max_length "
            f"{tokenizer.model_max_length}; lower it"
        )
    if len(tokenizer) > causal.get_input_embeddings().num_embeddings:
        causal.resize_token_embeddings(len(tokenizer))
    if before is not None:
        causal.resize_token_embeddings(before.get_input_embeddings().num_embeddings)
        causal.base_model.load_state_dict(before.base_model.state_dict())
    architecture = causal.config
    architecture.num_labels = len(attributes)
    architecture.id2label = dict(enumerate(attributes))
    architecture.label2id = {name: i for i, name in enumerate(attributes)}
    architecture.problem_type = "regression"
    architecture.pad_token_id = tokenizer.pad_token_id
    try:
        learner = learner_of(
            causal,
            config,
            lm_loss_weight=lm_loss_weight,
            token_dropout=token_dropout,
            head_dropout=head_dropout,
            noise_id=tokenizer.pad_token_id,
        )
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if before is not None:
        learner.classifier.score.load_state_dict(before.score.state_dict())
        with torch.no_grad():
            for parameter in learner.classifier.score.parameters():
                parameter.div_(LABEL_SCALE)
    if head is not None:
        weight = learner.classifier.score.weight
        if head.shape != weight.shape:
            raise InputError(
                f"{path}: its reward model's head is {tuple(weight.shape)}, the probe's "
                f"{tuple(head.shape)}; rerun probe_reward_model"
            )
        with torch.no_grad():
            weight.copy_(head / LABEL_SCALE)
    return learner


def learner_of(causal: Any, config: TrainerConfig, **options: Any) -> RewardLearner:
    """A learner made of a causal model whose configuration is the classifier's.

    Raises ValueError when the architecture has no linear `score` head.
    """
    lm_head = causal.get_output_embeddings()
    with torch.device("meta"):  # the weights come from the causal model
        classifier: Any = AutoModelForSequenceClassification.from_config(causal.config)
    if not isinstance(getattr(classifier, "score", None), nn.Linear):
        raise ValueError(f"{type(classifier).__name__} has no linear `score` head")
    adapters = None
    if config.lora is not None:
        from peft.tuners.lora import LoraModel

        # Puts adapters into the backbone and freezes all else in it.
        adapters = LoraModel(causal.base_model, lora_config(config), "default")
        lm_head.requires_grad_(False)
    setattr(classifier, classifier.base_model_prefix, causal.base_model)
    bias = classifier.score.bias is not None
    outputs = causal.config.num_labels
    classifier.score = nn.Linear(classifier.score.in_features, outputs, bias=bias)
    for parameter in classifier.score.parameters():
        nn.init.zeros_(parameter)
    return RewardLearner(classifier, lm_head, adapters=adapters, **options)


def load_reward_tokenizer(base: AnyModel, max_length: int) -> Any:
    """The base model's tokenizer, with a pad token that is not the end token.

    Plain transformers reads the scores at the last token that is not padding, so text must never
    end in a pad token. `max_length` becomes the checkpoint's own limit: longer inputs lose their
    beginning.
    """
    path = ModelRef.of(base).path
    tokenizer = models.load_tokenizer(base)
    if not tokenizer.is_fast:
        raise InputError(f"{path}: needs a fast tokenizer (tokenizer.json), which has offsets")
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        if tokenizer.unk_token is not None and tokenizer.unk_token_id != tokenizer.eos_token_id:
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": "<|reward_pad|>"})
    tokenizer.model_max_length = max_length
    tokenizer.truncation_side = "left"
    return tokenizer


def save_reward_model(learner: RewardLearner, tokenizer: Any, folder: Path) -> None:
    """A folder that plain AutoModelForSequenceClassification loads, with outputs on 0-100."""
    [adapters] = learner.adapters
    if adapters is not None:
        adapters.merge_and_unload()
    classifier = learner.classifier
    with torch.no_grad():
        for parameter in classifier.score.parameters():
            parameter.mul_(LABEL_SCALE)
    save_checkpoint(classifier, tokenizer, folder)


# --- Training --------------------------------------------------------------------------------


class RewardTrainer(MeanOverRows, Trainer):
    """Every row of a global batch weighs the same; rows of a batch have similar lengths."""

    def filler(self) -> dict[str, Any]:
        first: RatedRow = cast(Any, self.train_dataset)[0]
        return {
            "input_ids": first["input_ids"][:1],
            "content": (0, 0),
            "response": (0, 0),
            "targets": np.full_like(first["targets"], np.nan),
        }

    def count_rows(self, batch: dict[str, Any]) -> tuple[int, Tensor]:
        labelled = ~batch["targets"].isnan()
        return len(labelled), labelled.any(dim=1).sum()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights of a checkpoint. The Trainer's own way refuses an lm_head tied to embeddings."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(cast(nn.Module, self.model), str(folder / "model.safetensors"))


class RewardTraining(Training):
    """Training on the ratings of a split. The job's start is a causal LM; with `continued`, that
    reward model's backbone and head take the place of its own.

    Raises InputError when nothing is left to train on.
    """

    def __init__(
        self,
        job: TrainingJob,
        ratings: Iterable[Rating],
        *,
        attributes: Sequence[str],
        lm_loss_weight: float,
        token_dropout: float,
        head_dropout: float = 0.0,
        head: Tensor | None = None,
        split: str = "train",
        continued: ModelRef | None = None,
    ):
        max_length = job.schedule.max_length
        self.job, self.attributes, self.continued = job, list(attributes), continued
        self.tokenizer = load_reward_tokenizer(continued or job.start, max_length)
        self.row_counts = RowCounts()
        origins: Counter[str] = Counter()

        def counted() -> Iterator[Rating]:
            for rating in ratings:
                if rating.split == split:
                    origins[rating.dataset] += 1
                    yield rating

        def tokenised(block: list[Rating]) -> tuple[list[RatedRow], int, RowCounts]:
            counts = RowCounts()
            return *tokenise_ratings(self.tokenizer, block, attributes, max_length, counts), counts

        rows: list[RatedRow] = []
        truncated = 0
        for some, cut, counts in in_shares(counted(), tokenised, reward_controls(self.tokenizer)):
            rows += some
            truncated += cut
            self.row_counts.add(counts)
        if not rows:
            raise InputError(
                f"{job.output}: no labelled ratings to train on ({self.row_counts.as_dict()})"
            )
        check_dropped(self.row_counts, str(job.output))
        check_truncated(truncated, len(rows), str(job.output))
        tokens = sum(len(row["input_ids"]) for row in rows)
        log.info(
            "training on %d ratings, %d tokens (%d ratings truncated)", len(rows), tokens, truncated
        )
        self.rows = rows
        self.head = head
        self.weights = {
            "lm_loss_weight": lm_loss_weight,
            "token_dropout": token_dropout,
            "head_dropout": head_dropout,
        }
        started = None if head is None else sha256(head.numpy().tobytes()).hexdigest()
        self.settings = {
            **self.weights,
            "attributes": self.attributes,
            "head": started,
            "continued": [str(continued), known_hash(Path(continued.path))] if continued else None,
        }
        labels = np.isfinite(np.stack([row["targets"] for row in rows])).sum(axis=0)
        self.details = {
            "labels": dict(zip(attributes, labels.tolist(), strict=True)),
            "origins": dict(sorted(origins.items())),
            "tokens": tokens,
            "cut": truncated,
            "neutralised": reward_controls(self.tokenizer).log_escaped(),
        }

    def make_learner(self) -> RewardLearner:
        """What is trained, before training."""
        job = self.job
        return make_learner(
            job.start,
            self.tokenizer,
            self.attributes,
            job.trainer,
            **self.weights,
            head=self.head,
            continued=self.continued,
        )

    def make_trainer(self, folder: Path) -> RewardTrainer:
        job, pad = self.job, self.tokenizer.pad_token_id
        set_seed(job.seed % 2**32)
        arguments = trainer_arguments(job, folder) | {
            "remove_unused_columns": False,  # rows are ours, not a Dataset's
        }
        return RewardTrainer(
            model=self.make_learner(),
            args=shard_policy(TrainingArguments(**arguments), job.trainer),
            train_dataset=self.rows,
            data_collator=lambda some: dict(collate(some, pad)),
        )

    def save(self, trainer: Any, folder: Path) -> None:
        def empty() -> RewardLearner:
            causal = AutoModelForCausalLM.from_config(trainer.model.classifier.config)
            noise = self.tokenizer.pad_token_id
            return learner_of(causal, self.job.trainer, **self.weights, noise_id=noise)

        learner = gathered(trainer, empty)
        if learner is not None:
            save_reward_model(learner, self.tokenizer, folder)
