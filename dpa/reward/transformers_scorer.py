"""Scores of responses by a reward model checkpoint: the engines of every scoring rule.

With transformers, the responses to one prompt share the computation of what their inputs have in
common, equal responses are scored once, and there is no padding (dpa.reward.packed): every token is
computed once. The scores are those of plain transformers, one input at a time, within rounding.
vLLM's engine (dpa.reward.vllm_scorer) is given the same tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
)

from dpa.attention import choose_attention, fits_kernel, needs_no_mask
from dpa.models import ModelRef, load_checkpoint_config, load_model
from dpa.precision import computing_dtype
from dpa.reward.inputs import RewardInputs
from dpa.reward.packed import BLOCK_TOKENS, NAME, Family, last_hidden_states, passes
from dpa.reward.scorer import InputRow, Scorer
from dpa.runtime.log import log


class TransformersScorer(Scorer):
    """A reward model in transformers, on the GPU if there is one.

    A forward pass takes at most `tokens_per_batch` tokens, fewer where the device has no use or no
    memory for as many. That limit is the same for every run on such a device. When memory runs out
    all the same, it is halved for the rest of the process: the last decimals may then differ.
    """

    def __init__(
        self, model: Any, inputs: RewardInputs, names: list[str], tokens_per_batch: int
    ) -> None:
        super().__init__(inputs, names)
        self.model = model.eval()
        self.packed = needs_no_mask(model.config)
        if self.packed:
            model.set_attn_implementation(NAME)
        half = model.dtype in (torch.bfloat16, torch.float16)
        self.kernel = model.device.type == "cuda" and half and fits_kernel(model.config)
        self.most_tokens = min(tokens_per_batch, useful_tokens(model))

    def _score(self, rows: list[InputRow], places: dict[tuple[int, str], int]) -> np.ndarray:
        families = list(self._families(rows, places))
        while True:
            try:
                return self._score_families(families, len(rows))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.most_tokens < SMALLEST_BATCH:
                    raise
            self.most_tokens //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("out of memory; continuing with %d tokens at a time", self.most_tokens)

    @torch.inference_mode()
    def _score_families(self, families: list[Family], inputs: int) -> np.ndarray:
        scores = np.empty((inputs, len(self.names)))
        backbone = self.model.base_model
        if self.packed:
            for block_tokens in (BLOCK_TOKENS, 0):
                for work in passes(families, self.most_tokens, block_tokens):
                    states = last_hidden_states(backbone, work, kernel=self.kernel)
                    scores[work.rows] = self._head(states)
                    self.on_batch()
                if np.isfinite(scores).all():
                    break
                # NaN goes through masks, to the rows of its block: tell whose it is.
            return scores
        for family in families:
            for row, rest in zip(family.rows, family.rests, strict=True):
                ids = torch.tensor([family.prefix + rest], device=self.model.device)
                states = backbone(ids, use_cache=False).last_hidden_state
                scores[row] = self._head(states[:, -1])
                self.on_batch()
        return scores

    def _families(
        self, tokens: list[InputRow], places: dict[tuple[int, str], int]
    ) -> Iterator[Family]:
        """Inputs grouped by prompt with their common beginning.

        Inputs that were truncated, or share nothing, are families of their own.
        """
        groups: dict[int, list[int]] = {}
        for (group, _), row in places.items():
            ids, truncated = tokens[row]
            if truncated:
                yield Family([], [ids], [row])
            else:
                groups.setdefault(group, []).append(row)
        for rows in groups.values():
            members = [tokens[row][0] for row in rows]
            shared = common_prefix(members) if len(rows) > 1 else 0
            yield Family(members[0][:shared], [ids[shared:] for ids in members], rows)

    def _head(self, hidden: Tensor) -> np.ndarray:
        """(rows, outputs) scores of the last tokens' states."""
        # In float32: bfloat16 would round scores to half a point.
        score = self.model.score
        bias = None if score.bias is None else score.bias.float()
        return torch.nn.functional.linear(hidden.float(), score.weight.float(), bias).cpu().numpy()


def load_transformers_scorer(
    model: ModelRef, inputs: RewardInputs, names: list[str], tokens_per_batch: int
) -> TransformersScorer:
    """A checkpoint of AutoModelForSequenceClassification, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier = load_classifier(model, device, computing_dtype(load_checkpoint_config(model)))
    return TransformersScorer(classifier, inputs, names, tokens_per_batch)


def load_classifier(model: ModelRef, device: str, dtype: torch.dtype) -> Any:
    """A reward model, straight onto a device; its head stays as precise as it was saved."""
    config = load_checkpoint_config(model)
    kind: Any = AutoModelForSequenceClassification
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:  # not of code of its own
        known: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
        precise = {*(known._keep_in_fp32_modules_strict or ()), "score"}
        kind = type(known.__name__, (known,), {"_keep_in_fp32_modules_strict": precise})
    return load_model(
        kind,
        model,
        dtype=dtype,
        attn_implementation=choose_attention(config),
        device_map=device,
    )


#: Tokens of a pass on a CPU: more gain nothing and fall out of its caches (measured).
CPU_BATCH = 2048


#: Below this many tokens a pass is one input: out of memory then means what it says.
SMALLEST_BATCH = 64


#: Share of a GPU's memory for weights and a pass; the rest is for what others and kernels take.
MEMORY_SHARE = 0.8


def useful_tokens(model: Any) -> int:
    """Tokens of a forward pass that the model's device has use and memory for.

    On a GPU by its whole memory, not by what happens to be free: batches, and with them the last
    decimals, are then the same in every run. Per token a pass holds the insides of one layer and
    the states between layers (dpa.plan.memory), and at most the keys and values of all of them.
    """
    if model.device.type != "cuda":
        return CPU_BATCH
    config = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv = width * (getattr(config, "num_key_value_heads", None) or heads)
    inside = 8 * config.hidden_size + 2 * heads * width + 2 * kv + 5 * config.intermediate_size
    size = model.dtype.itemsize
    per_token = size * (inside + 2 * config.num_hidden_layers * kv)
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    _, memory = torch.cuda.mem_get_info(model.device)
    return max(SMALLEST_BATCH, int((MEMORY_SHARE * memory - weights) / per_token))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or (a plain RuntimeError) on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def common_prefix(rows: Sequence[list[int]]) -> int:
    """Number of tokens with which all rows begin, at least one fewer than any row has."""
    low, high = min(rows), max(rows)  # in dictionary order: the others lie between
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if low[i] != high[i]), limit)
