"""A reward model, ready to score, whatever runs it. No torch here."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from dpa.artefacts.jsonl import check_finite
from dpa.errors import InputError
from dpa.reward.inputs import Group, RewardInputs
from dpa.runtime.ahead import ahead
from dpa.runtime.log import log
from dpa.text.prompts import Conversation


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


#: As many different inputs have different scores, unless the reward model is dead.
FEWEST_INPUTS = 5

#: Stored scores have this many decimals.
SCORE_DECIMALS = 4


#: An input's token ids, and whether their beginning was truncated.
InputRow = tuple[list[int], bool]

#: Whatever groups are made of.
AnyChunk = TypeVar("AnyChunk")


class Tokenised(NamedTuple):
    """Groups, their different inputs, and where the one of (group, response) is among these."""

    groups: Sequence[Group]
    rows: list[InputRow]
    places: dict[tuple[int, str], int]


class Scorer(ABC):
    """A multi-objective reward model, ready to score, whatever runs it."""

    def __init__(self, inputs: RewardInputs, names: list[str]) -> None:
        self.inputs, self.controls = inputs, inputs.controls
        self.names = names
        self.max_length = inputs.max_length
        #: Inputs scored so far, and how many of them lost their beginning to `max_length`.
        self.scored = self.truncated = 0
        #: The lowest and the highest score of each output so far.
        self.lowest, self.highest = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        #: Called whenever there was progress.
        self.on_batch: Callable[[], None] = lambda: None

    def close(self) -> None:  # noqa: B027 (only some engines hold more than memory)
        """Free the model."""

    def score_stream(
        self,
        chunks: Iterable[AnyChunk],
        groups_of: Callable[[AnyChunk], Sequence[Group]],
        *,
        apart: bool = False,
    ) -> Iterator[tuple[AnyChunk, list[np.ndarray]]]:
        """Each chunk with what score_chunk gives for its groups.

        What comes next is read and tokenised in a thread meanwhile. With `apart` the scores of a
        group depend on nothing but the group.
        """

        def tokenised() -> Iterator[tuple[AnyChunk, list[Tokenised]]]:
            for chunk in chunks:
                groups = groups_of(chunk)
                parts = [[group] for group in groups] if apart else [groups]
                yield chunk, [self._tokenise(part) for part in parts]

        for chunk, parts in ahead(tokenised()):
            yield chunk, [scores for part in parts for scores in self._score_chunk(part)]

    def score_groups(self, groups: Iterable[Group]) -> Iterator[np.ndarray]:
        """For each (prompt, responses) an array (responses, outputs) on 0-100, float64.

        The scores of a group depend on nothing but the group.
        """
        for _, [scores] in self.score_stream(groups, lambda group: [group]):
            yield scores

    def score_chunk(self, groups: Sequence[Group]) -> list[np.ndarray]:
        """As score_groups, with batches that mix prompts: faster for few responses per prompt.

        In the last decimals, scores depend on the whole chunk: chunks must not depend on sharding.
        """
        return self._score_chunk(self._tokenise(groups))

    def _tokenise(self, groups: Sequence[Group]) -> Tokenised:
        pairs: list[tuple[Conversation, str]] = []
        places: dict[tuple[int, str], int] = {}
        for i, (prompt, responses) in enumerate(groups):
            for response in responses:
                if places.setdefault((i, response), len(pairs)) == len(pairs):
                    pairs.append((prompt, response))
        return Tokenised(groups, self.inputs.tokenise(pairs), places)

    def _score_chunk(self, chunk: Tokenised) -> list[np.ndarray]:
        groups, rows, places = chunk
        scores = self._score(rows, places).round(SCORE_DECIMALS)
        self.lowest = np.minimum(self.lowest, scores.min(axis=0, initial=np.inf))
        self.highest = np.maximum(self.highest, scores.max(axis=0, initial=-np.inf))
        self.scored += len(rows)
        self.truncated += sum(truncated for _, truncated in rows)
        return [
            scores[[places[i, response] for response in responses]]
            for i, (_, responses) in enumerate(groups)
        ]

    def constant_outputs(self) -> list[str]:
        """The outputs that told none of the inputs so far apart, if there were enough of them."""
        if self.scored < FEWEST_INPUTS:
            return []
        same = self.lowest == self.highest
        return [name for name, constant in zip(self.names, same, strict=True) if constant]

    def warn_if_constant(self, place: object) -> None:
        """Say which outputs scored all inputs so far alike, when scoring for `place`."""
        if constant := self.constant_outputs():
            log.warning(
                "%s: all %d inputs have the same score by %s: nothing can be chosen, ranked or "
                "learnt by it; look at the log of the reward model's training, and at whether "
                "any ratings teach it",
                place, self.scored, ", ".join(constant),
            )  # fmt: skip

    @abstractmethod
    def _score(self, rows: list[InputRow], places: dict[tuple[int, str], int]) -> np.ndarray:
        """(rows, outputs) scores; `places` maps (group, response) to its row."""
