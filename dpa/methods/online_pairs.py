"""Pairs of a policy's own responses under drawn directions, made while it trains.

On every visit to a prompt a direction is drawn, the policy is asked for two responses under it, and
v.r by the reward model says which is better (Gupta et al., 2025, arXiv 2503.00295, algorithm 1).
What is drawn derives from the base seed, the number of the visit and the prompt, and from nothing
that was drawn before.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from dpa.config.steering import ObjectiveConfig
from dpa.directions import Direction, sample_direction, scalar_reward
from dpa.generation.engine import Chunk, Completion, Request
from dpa.methods.preference_pairs import MARGIN_DECIMALS
from dpa.objectives import objective_rewards
from dpa.records import Prompt
from dpa.reward.scorer import Scorer, named_scores
from dpa.seeds import sample_seed
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer

#: Responses that are sampled on a visit to a prompt.
PER_VISIT = 2

#: Why two responses are no pair.
NoPair = Literal["rewards_are_equal", "one_is_truncated"]


class SamplingEngine(Protocol):
    """A policy in training that can be asked: the transformers engine."""

    def sample_tokens(self, chunk: Chunk) -> list[list[list[int]]]:
        """The tokens of each request's samples, their end tokens included."""
        ...

    def completion(self, ids: list[int]) -> Completion:
        """A sample's tokens as a completion."""
        ...


class OnlinePair(NamedTuple):
    """Tokens of a prompt under a direction, of the better and of the worse response to it, and of
    the same prompt under another direction (or none)."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    elsewhere: list[int]


class DrawnCounts(NamedTuple):
    """What came of some visits, as sums over them."""

    responses: int = 0
    reward: float = 0.0
    """v.r, of all responses."""
    response_tokens: int = 0
    truncated: int = 0
    """Responses that were truncated at max_new_tokens."""
    pairs: int = 0
    trained_tokens: int = 0
    """Response tokens of the pairs."""
    rewards_are_equal: int = 0
    one_is_truncated: int = 0
    """Visits without a pair, by reason."""
    prompt_too_long: int = 0
    """Visits without responses: the prompt under the drawn direction is too long."""


class _Visit(NamedTuple):
    number: int
    prompt: Prompt
    direction: Direction
    request: Request
    elsewhere: list[int]


class PairSource:
    """Makes pairs of a policy's responses to `prompts`, which are known by their numbers.

    `distribution` is where directions come from, `seed` the base seed. A prompt of more than
    `max_prompt_tokens` tokens under a direction of a visit is left out there, and counted.
    `contrasted` pairs have their prompt under another direction, too.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        chat: ChatTokenizer,
        *,
        distribution: dict,
        objectives: Sequence[ObjectiveConfig],
        reward_model: Scorer,
        seed: int,
        max_prompt_tokens: int,
        contrasted: bool,
    ):
        self.prompts, self.chat = prompts, chat
        self.distribution, self.objectives = distribution, objectives
        self.reward_model, self.seed = reward_model, seed
        self.max_prompt_tokens, self.contrasted = max_prompt_tokens, contrasted
        self.names = [objective.name for objective in objectives]

    def pairs(
        self, engine: SamplingEngine, numbers: Sequence[int], visit: int
    ) -> tuple[dict[int, OnlinePair], DrawnCounts]:
        """Pairs by their prompts' numbers, on the visit of that number (from 1) to these prompts.

        Raises InputError naming the prompt for a response that the reward model cannot rate.
        """
        visits = [self._visit(number, visit) for number in numbers]
        longest = self.max_prompt_tokens
        asked = [v for v in visits if max(map(len, (v.request[0], v.elsewhere))) <= longest]
        drawn = DrawnCounts(prompt_too_long=len(visits) - len(asked))
        if not asked:
            return {}, drawn
        sampled = engine.sample_tokens([v.request for v in asked])
        completions = [[engine.completion(ids) for ids in samples] for samples in sampled]
        pairs = {}
        for v, samples, answers, rewards in zip(
            asked, sampled, completions, self._rewards(asked, completions), strict=True
        ):
            truncated = [answer.finish_reason == "length" for answer in answers]
            drawn = drawn._replace(
                responses=drawn.responses + len(samples),
                reward=drawn.reward + sum(rewards),
                response_tokens=drawn.response_tokens + sum(map(len, samples)),
                truncated=drawn.truncated + sum(truncated),
            )
            order = compare(rewards, truncated)
            if isinstance(order, str):
                drawn = drawn._replace(**{order: getattr(drawn, order) + 1})
                continue
            chosen, rejected = (samples[place] for place in order)
            drawn = drawn._replace(
                pairs=drawn.pairs + 1,
                trained_tokens=drawn.trained_tokens + len(chosen) + len(rejected),
            )
            pairs[v.number] = OnlinePair(v.request.prompt_ids, chosen, rejected, v.elsewhere)
        return pairs, drawn

    def prompt_ids(self, prompt: Prompt, direction: Direction) -> list[int]:
        """Tokens that ask for a prompt under a direction. Raises ConversationError."""
        system = direction_system_prompt(self.names, direction)
        return self.chat.prompt_ids(messages(prompt.prompt, system))

    def direction(self, prompt: Prompt, visit: int, index: int = 0) -> Direction:
        """The direction of a visit; with index 1 another one, to contrast it with."""
        return sample_direction(self.distribution, self.seed, visit, prompt.prompt_id, index)

    def _visit(self, number: int, visit: int) -> _Visit:
        prompt = self.prompts[number]
        direction = self.direction(prompt, visit)
        first = sample_seed(self.seed, visit, prompt.prompt_id, 0, 0)
        request = Request(self.prompt_ids(prompt, direction), list(range(first, first + PER_VISIT)))
        elsewhere: list[int] = []
        if self.contrasted:
            elsewhere = self.prompt_ids(prompt, self.direction(prompt, visit, 1))
        return _Visit(number, prompt, direction, request, elsewhere)

    def _rewards(
        self, visits: Sequence[_Visit], completions: Sequence[Sequence[Completion]]
    ) -> list[list[float]]:
        """v.r of each visit's responses, rated as in evaluation."""
        groups = [
            (visit.prompt.prompt, [answer.text for answer in answers])
            for visit, answers in zip(visits, completions, strict=True)
        ]
        found = []
        for visit, scores in zip(visits, self.reward_model.score_chunk(groups), strict=True):
            where = f"a response to prompt {visit.prompt.prompt_id}"
            rated = (named_scores(self.reward_model.names, row, where) for row in scores)
            found.append(
                [
                    scalar_reward(visit.direction, objective_rewards(r, self.objectives))
                    for r in rated
                ]
            )
        return found


def compare(rewards: Sequence[float], truncated: Sequence[bool]) -> tuple[int, int] | NoPair:
    """Which of two responses is chosen and which rejected, or why they are no pair.

    A truncated response is eligible only where both are.
    """
    first, second = rewards
    if truncated[0] != truncated[1]:
        return "one_is_truncated"
    if round(abs(first - second), MARGIN_DECIMALS) <= 0:
        return "rewards_are_equal"
    return (0, 1) if first > second else (1, 0)
