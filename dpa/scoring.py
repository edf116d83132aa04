"""Scores of responses by a reward model checkpoint: the engines of every scoring rule.

With transformers, the responses to one prompt share the computation of what their inputs have in
common: it is run once, its attention cache is copied to all rows, and only the rest of each input
is computed. The scores are those of plain transformers, one input at a time, within rounding.
vLLM's engine (dpa.engines.vllm_rewards) is given the same tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, DynamicCache

from dpa.config import Objective
from dpa.controls import reward_controls
from dpa.errors import InputError
from dpa.models import load_checkpoint_config, load_model, load_tokenizer
from dpa.objectives import check_outputs
from dpa.prompts import Conversation, reward_input
from dpa.reward_model import cut_ids

Group = tuple[Conversation, Sequence[str]]

#: Stored scores have this many decimals.
DECIMALS = 4


@dataclass(frozen=True)
class Family:
    """The distinct inputs of one prompt: their common beginning, and what follows in each."""

    prefix: list[int]
    rests: list[list[int]]
    rows: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longest input."""
        return len(self.prefix) + max(map(len, self.rests))


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

    @abstractmethod
    def _score(
        self, inputs: list[tuple[Conversation, str]], places: dict[tuple[int, str], int]
    ) -> np.ndarray:
        """(inputs, outputs) scores; `places` maps (group, response) to the row of its input."""

    def _tokens(self, inputs: list[tuple[Conversation, str]]) -> list[tuple[list[int], bool]]:
        """Each input's tokens, and whether their beginning was cut off."""
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
        self.scored += len(rows)
        self.cut += sum(cut for _, cut in rows)
        return rows


class RewardModel(Scorer):
    """A reward model in transformers, on the GPU if there is one."""

    def __init__(self, model: Any, tokenizer: Any, names: list[str], tokens_per_batch: int):
        super().__init__(tokenizer, model.config, names)
        self.model = model.eval()
        self.tokens_per_batch = tokens_per_batch

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
        scores = np.empty((len(inputs), len(self.names)))
        for batch in self._batches(self._families(inputs, places)):
            rows = [row for family in batch for row in family.rows]
            scores[rows] = self._forward(batch)
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

    def _batches(self, families: Iterable[Family]) -> Iterator[list[Family]]:
        """Families of similar length, at most tokens_per_batch tokens with padding; larger families
        are split. Families with and without a prefix do not mix."""
        pieces = sorted(
            (piece for family in families for piece in self._split(family)),
            key=lambda f: (not f.prefix, f.length, f.rows),
        )
        batch: list[Family] = []
        count = 0
        for piece in pieces:
            # Sorted by length: the newest piece is the longest.
            size = (count + len(piece.rows)) * piece.length
            if batch and (
                size > self.tokens_per_batch or bool(piece.prefix) != bool(batch[0].prefix)
            ):
                yield batch
                batch, count = [], 0
            batch.append(piece)
            count += len(piece.rows)
        if batch:
            yield batch

    def _split(self, family: Family) -> Iterator[Family]:
        order = sorted(range(len(family.rows)), key=lambda i: (len(family.rests[i]), i))
        while order:
            longest = len(family.prefix) + len(family.rests[order[-1]])
            take = order[-max(1, self.tokens_per_batch // longest) :]
            order = order[: -len(take)]
            yield Family(
                family.prefix, [family.rests[i] for i in take], [family.rows[i] for i in take]
            )

    @torch.inference_mode()
    def _forward(self, batch: list[Family]) -> np.ndarray:
        """(rows, outputs): the scores of all rows of the families, in order."""
        device = self.model.device
        rests = [rest for family in batch for rest in family.rests]
        ids, mask = pad(rests, device)
        backbone = self.model.base_model
        if batch[0].prefix:
            # Prefixes are padded on the left and rests on the right: each row is contiguous.
            prefixes, prefix_mask = pad([f.prefix for f in batch], device, left=True)
            cache = DynamicCache()
            backbone(
                prefixes,
                attention_mask=prefix_mask,
                position_ids=positions(prefix_mask),
                past_key_values=cache,
                use_cache=True,
            )
            owners = torch.tensor(
                [i for i, family in enumerate(batch) for _ in family.rests], device=device
            )
            cache.batch_select_indices(owners)
            whole_mask = torch.cat([prefix_mask[owners], mask], dim=1)
            output = backbone(
                ids,
                attention_mask=whole_mask,
                position_ids=positions(whole_mask)[:, -ids.shape[1] :],
                past_key_values=cache,
                use_cache=True,
            )
        else:
            # Causal attention never looks right, where the padding is: no mask is needed.
            output = backbone(ids, use_cache=False)
        last = torch.tensor([len(rest) - 1 for rest in rests], device=device)
        hidden = output.last_hidden_state[torch.arange(len(rests), device=device), last]
        # In float32: bfloat16 would round scores to half a point.
        score = self.model.score
        bias = None if score.bias is None else score.bias.float()
        return torch.nn.functional.linear(hidden.float(), score.weight.float(), bias).cpu().numpy()


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


def pad(rows: Sequence[list[int]], device: Any, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids (rows, longest), padded with 0, and the mask of real tokens."""
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(len(row))
        ids[i, where] = row
        mask[i, where] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def positions(mask: Tensor) -> Tensor:
    """Position of each real token in its row, counted from 0; 0 for padding in front."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
