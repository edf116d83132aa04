"""Scores of responses by a reward model checkpoint: the engines of every scoring rule.

With transformers, the responses to one prompt share the computation of what their inputs have in
common, equal responses are scored once, and there is no padding (dpa.packed): every token is
computed once. The scores are those of plain transformers, one input at a time, within rounding.
vLLM's engine (dpa.engines.vllm_rewards) is given the same tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from dpa.cli import log
from dpa.config import Objective
from dpa.controls import reward_controls
from dpa.errors import InputError
from dpa.models import load_checkpoint_config, load_model, load_tokenizer
from dpa.objectives import check_outputs
from dpa.onednn import use_onednn
from dpa.packed import BLOCK_TOKENS, Family, last_hidden_states, passes, prepare
from dpa.prompts import Conversation, reward_input
from dpa.score_files import Survey
from dpa.tokenization import cut_ids

Group = tuple[Conversation, Sequence[str]]

#: Stored scores have this many decimals.
DECIMALS = 4


class Scorer(ABC):
    """A multi-objective reward model, ready to score, whatever runs it."""

    def __init__(self, tokenizer: Any, config: Any, names: list[str]) -> None:
        self.tokenizer = tokenizer
        self.controls = reward_controls(tokenizer)
        self.names = names
        self.max_length: int = min(
            tokenizer.model_max_length,
            getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length,
        )
        #: Inputs scored so far, and how many of them lost their beginning to `max_length`.
        self.scored = self.cut = 0
        #: Called whenever there was progress.
        self.on_batch: Callable[[], None] = lambda: None

    def close(self) -> None:  # noqa: B027 (only some engines hold more than memory)
        """Free the model."""

    def score_groups(self, groups: Iterable[Group]) -> Iterator[np.ndarray]:
        """For each (prompt, responses) an array (responses, outputs) on 0-100, float64.

        The scores of a group depend on nothing but the group.
        """
        for group in groups:
            yield self.score_chunk([group])[0]

    def score_chunk(self, groups: Sequence[Group]) -> list[np.ndarray]:
        """As score_groups, with batches that mix prompts: faster for few responses per prompt.

        In the last decimals, scores depend on the whole chunk: chunks must not depend on sharding.
        """
        inputs: list[tuple[Conversation, str]] = []
        places: dict[tuple[int, str], int] = {}
        for i, (prompt, responses) in enumerate(groups):
            for response in responses:
                if places.setdefault((i, response), len(inputs)) == len(inputs):
                    inputs.append((prompt, response))
        scores = self._score(inputs, places).round(DECIMALS)
        return [
            scores[[places[i, response] for response in responses]]
            for i, (_, responses) in enumerate(groups)
        ]

    def survey(self, groups: Iterable[Group]) -> Survey:
        """What is to be scored, by its tokens alone: nothing is computed."""
        inputs = cut = 0
        for prompt, responses in groups:
            rows = self._rows([(prompt, response) for response in dict.fromkeys(responses)])
            inputs += len(rows)
            cut += sum(was_cut for _, was_cut in rows)
        return Survey(inputs, cut)

    @abstractmethod
    def _score(
        self, inputs: list[tuple[Conversation, str]], places: dict[tuple[int, str], int]
    ) -> np.ndarray:
        """(inputs, outputs) scores; `places` maps (group, response) to the row of its input."""

    def _tokens(self, inputs: list[tuple[Conversation, str]]) -> list[tuple[list[int], bool]]:
        """Each input's tokens, and whether their beginning was cut off; counted."""
        rows = self._rows(inputs)
        self.scored += len(rows)
        self.cut += sum(cut for _, cut in rows)
        return rows

    def _rows(self, inputs: list[tuple[Conversation, str]]) -> list[tuple[list[int], bool]]:
        if not inputs:
            return []
        texts = [
            reward_input(
                self.controls.neutralise_prompt(prompt), self.controls.neutralise(response)
            )
            for prompt, response in inputs
        ]
        rows = []
        for full in self.tokenizer(texts, verbose=False)["input_ids"]:
            ids = cut_ids(full, self.max_length, self.tokenizer)
            rows.append((ids, len(ids) < len(full)))
        return rows


class RewardModel(Scorer):
    """A reward model in transformers, on the GPU if there is one.

    A forward pass takes at most `tokens_per_batch` tokens, fewer where the device has no use or no
    memory for as many. That limit is the same for every run on such a device. When memory runs out
    all the same, it is halved for the rest of the process: the last decimals may then differ.
    """

    def __init__(self, model: Any, tokenizer: Any, names: list[str], tokens_per_batch: int):
        super().__init__(tokenizer, model.config, names)
        self.model = model.eval()
        self.packed = prepare(model)
        self.most_tokens = min(tokens_per_batch, useful_tokens(model))
        use_onednn(model.base_model)

    @classmethod
    def load(
        cls,
        path: str,
        revision: str | None = None,
        *,
        attributes: Sequence[str] | None = None,
        objectives: Sequence[Objective] = (),
        tokens_per_batch: int,
    ) -> "RewardModel":
        """Load a checkpoint of AutoModelForSequenceClassification, in float32 on a CPU.

        `attributes` names the outputs, in order: of a checkpoint that does not name them itself, or
        to be checked. Raises InputError before the weights are read when names are missing or
        differ, or when one of the `objectives` uses an output that is not there.
        """
        gpu = torch.cuda.is_available()
        names = output_names(load_checkpoint_config(path, revision), attributes, path)
        check_outputs(objectives, names, path)
        tokenizer = load_tokenizer(path, revision)
        model = load_model(
            AutoModelForSequenceClassification,
            path,
            revision,
            dtype=torch.bfloat16 if gpu else torch.float32,
        )
        return cls(model.to("cuda" if gpu else "cpu"), tokenizer, names, tokens_per_batch)

    def _score(
        self, inputs: list[tuple[Conversation, str]], places: dict[tuple[int, str], int]
    ) -> np.ndarray:
        families = list(self._families(inputs, places))
        while True:
            try:
                return self._score_families(families, len(inputs))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.most_tokens < SMALLEST_BATCH:
                    raise
            self.most_tokens //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("out of memory; going on with %d tokens at a time", self.most_tokens)

    @torch.inference_mode()
    def _score_families(self, families: list[Family], inputs: int) -> np.ndarray:
        scores = np.empty((inputs, len(self.names)))
        backbone = self.model.base_model
        if self.packed:
            for block_tokens in (BLOCK_TOKENS, 0):
                for work in passes(families, self.most_tokens, block_tokens):
                    scores[work.rows] = self._head(last_hidden_states(backbone, work))
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
        self, inputs: list[tuple[Conversation, str]], places: dict[tuple[int, str], int]
    ) -> Iterator[Family]:
        """Inputs grouped by prompt with their common beginning. Inputs that were cut, or that have
        nobody to share with, are families of their own."""
        tokens = self._tokens(inputs)
        groups: dict[int, list[int]] = {}
        for (group, _), row in places.items():
            ids, cut = tokens[row]
            if cut:
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


def load_scorer(
    engine: str,
    path: str,
    revision: str | None = None,
    *,
    attributes: Sequence[str] | None = None,
    objectives: Sequence[Objective] = (),
    tokens_per_batch: int,
) -> Scorer:
    """A reward model in an engine, `transformers` or `vllm`; otherwise as RewardModel.load."""
    if engine == "transformers":
        return RewardModel.load(
            path,
            revision,
            attributes=attributes,
            objectives=objectives,
            tokens_per_batch=tokens_per_batch,
        )
    from dpa.engines.vllm_rewards import VllmRewardModel

    config = load_checkpoint_config(path, revision)
    names = output_names(config, attributes, path)
    check_outputs(objectives, names, path)
    return VllmRewardModel(
        path, revision, config, load_tokenizer(path, revision), names, tokens_per_batch
    )


def output_names(config: Any, attributes: Sequence[str] | None, path: str) -> list[str]:
    """Names of a checkpoint's outputs in order. Raises InputError, see RewardModel.load."""
    names = [config.id2label[i] for i in range(config.num_labels)]
    unnamed = names == [f"LABEL_{i}" for i in range(len(names))]
    if not unnamed and (attributes is None or list(attributes) == names):
        return names
    if unnamed and attributes is not None and len(attributes) == len(names):
        return list(attributes)
    if unnamed and attributes is None:
        raise InputError(
            f"{path}: the checkpoint does not name its {len(names)} outputs; pass names"
        )
    found = f"{len(names)} unnamed outputs" if unnamed else f"the outputs {names}"
    raise InputError(f"{path}: the reward model has {found}, expected {list(attributes or ())}")


def common_prefix(rows: Sequence[list[int]]) -> int:
    """Number of tokens with which all rows begin, at least one fewer than any row has."""
    low, high = min(rows), max(rows)  # in dictionary order: the others lie between
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if low[i] != high[i]), limit)
