"""A reward model, ready to score, whatever runs it. No torch here."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dpa.artefacts.jsonl import check_finite
from dpa.artefacts.row_counts import check_truncated
from dpa.errors import InputError
from dpa.text.control_tokens import reward_controls
from dpa.text.prompts import Conversation, reward_input
from dpa.text.tokenization import truncate_ids


class Survey(NamedTuple):
    """Different inputs that are to be scored, and how many of them are longer than the model holds.

    Known before anything is scored, and the same whatever a killed job had done already.
    """

    inputs: int
    truncated: int

    def check(self, what: object) -> None:
        """Raise InputError when more than the run's limit would be truncated."""
        check_truncated(self.truncated, self.inputs, str(what))


def named_scores(names: Sequence[str], scores: np.ndarray, place: str) -> dict[str, float]:
    """One response's outputs by name. Raises InputError naming the place when one is not finite."""
    attributes = dict(zip(names, scores.tolist(), strict=True))
    try:
        check_finite([], attributes)
    except ValueError as error:
        raise InputError(
            f"{place}: {error}; the reward model cannot rate this response: look at its training "
            "log, and at the response"
        ) from None
    return attributes


Group = tuple[Conversation, Sequence[str]]


#: Stored scores have this many decimals.
SCORE_DECIMALS = 4


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
        self.scored = self.truncated = 0
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
        scores = self._score(inputs, places).round(SCORE_DECIMALS)
        return [
            scores[[places[i, response] for response in responses]]
            for i, (_, responses) in enumerate(groups)
        ]

    def survey(self, groups: Iterable[Group]) -> Survey:
        """The tokens that will be scored: nothing is computed."""
        inputs = truncated = 0
        for prompt, responses in groups:
            rows = self._rows([(prompt, response) for response in dict.fromkeys(responses)])
            inputs += len(rows)
            truncated += sum(was_truncated for _, was_truncated in rows)
        return Survey(inputs, truncated)

    @abstractmethod
    def _score(
        self, inputs: list[tuple[Conversation, str]], places: dict[tuple[int, str], int]
    ) -> np.ndarray:
        """(inputs, outputs) scores; `places` maps (group, response) to the row of its input."""

    def _tokens(self, inputs: list[tuple[Conversation, str]]) -> list[tuple[list[int], bool]]:
        """Each input's tokens, and whether their beginning was truncated; counted."""
        rows = self._rows(inputs)
        self.scored += len(rows)
        self.truncated += sum(truncated for _, truncated in rows)
        return rows

    def _rows(self, inputs: list[tuple[Conversation, str]]) -> list[tuple[list[int], bool]]:
        if not inputs:
            return []
        texts = [
            reward_input(self.controls.escape_prompt(prompt), self.controls.escape(response))
            for prompt, response in inputs
        ]
        rows = []
        for full in self.tokenizer(texts, verbose=False)["input_ids"]:
            ids = truncate_ids(full, self.max_length, self.tokenizer)
            rows.append((ids, len(ids) < len(full)))
        return rows


def output_names(config: Any, attributes: Sequence[str] | None, path: str) -> list[str]:
    """Names of a checkpoint's outputs in order. Raises InputError, see load.load_scorer."""
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
