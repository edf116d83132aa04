"""The JSONL records of the pipeline: one schema each."""

from typing import Annotated, Literal

import msgspec

from dpa.artefacts.jsonl import check_finite
from dpa.directions import check_direction

Score = Annotated[float, msgspec.Meta(ge=0, le=100)]


Count = Annotated[int, msgspec.Meta(ge=0)]


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all records: unknown fields are refused, absent optional fields are left out."""


class Prompt(Record):
    """A line of data/prompts/*.jsonl.

    Prompts of one `cluster` are alike (by default each is its own), which intervals allow for.
    `unseen` prompts are of the harder split: what policies do with them has columns of its own.
    """

    prompt_id: str
    prompt: str | list[Turn]
    source: str
    cluster: str | None = None
    unseen: bool = False


class Rating(Record):
    """A line of data/ratings.jsonl; an attribute that was not rated is absent."""

    prompt_id: str
    prompt: str | list[Turn]
    response: str
    attributes: Annotated[dict[str, Score], msgspec.Meta(min_length=1)]
    dataset: str
    split: Literal["train", "judge", "validation"]


class ToRate(Record):
    """A line of feedback/iter{t}/to_rate.jsonl: a sample that an annotator is asked about.

    The hash is the response's (dpa.feedback.choose.response_hash): with the prompt's id it is what
    ratings are matched by.
    """

    prompt_id: str
    response_hash: str
    prompt: str | list[Turn]
    response: str


class Annotation(Record):
    """An original response of the prompt data with the reward model's outputs (unclipped)."""

    prompt_id: str
    prompt: str | list[Turn]
    response: str
    attributes: dict[str, float]
    rewards: list[float]
    split: Literal["train", "validation"]

    def __post_init__(self) -> None:
        check_finite(self.rewards, self.attributes)


class Sample(Record, kw_only=True):
    """A line of sampled/{shard}.jsonl: one response of a policy to a prompt.

    `direction` (unit vector, one weight per objective) or `condition` (SteerLM's integers, one per
    objective) is what the policy was asked for; neither for a policy that takes no steering. With
    both, the condition is in its prompt, and stands for the direction.
    """

    prompt_id: str
    direction_index: Annotated[int, msgspec.Meta(ge=-1)]
    direction: list[float] | None = None
    condition: list[Annotated[int, msgspec.Meta(ge=0, le=100)]] | None = None
    sample_index: Count
    seed: Count
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: Count
    response_tokens: Count
    unseen: bool = False

    def __post_init__(self) -> None:
        if self.direction is not None:
            check_direction(self.direction, len(self.direction))


class ScoredSample(Sample, kw_only=True):
    """A line of scored/{shard}.jsonl: all reward-model outputs, and one reward per objective."""

    attributes: dict[str, float]
    rewards: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite(self.rewards, self.attributes)


class JudgedSample(Sample, kw_only=True):
    """A line of rewardbench/judged/{policy}.jsonl: the judge's score, higher is better."""

    score: float

    def __post_init__(self) -> None:
        check_finite([self.score], {})


class Choice(Record):
    """A line of rewardbench/items.jsonl: a prompt of a subset, a better and a worse response."""

    item_id: str
    subset: str
    prompt_id: str
    prompt: str | list[Turn]
    chosen: str
    rejected: str


class ScoredChoice(Record):
    """A line of rewardbench/rewards.jsonl: what the reward model makes of a choice."""

    item_id: str
    subset: str
    chosen: dict[str, float]
    rejected: dict[str, float]
    chosen_rewards: list[float]
    rejected_rewards: list[float]

    def __post_init__(self) -> None:
        check_finite(self.chosen_rewards + self.rejected_rewards, {})


#: Where a row of fine-tuning data comes from: a policy's sample, or an original response.
Origin = Literal["sampled", "replay"]


class Selected(Record):
    """A line of selected.jsonl: a row of fine-tuning data.

    `scalar_reward` is what was maximised; `sampled_under` is the direction that the response was
    sampled under, where directions may choose each other's.
    """

    prompt_id: str
    prompt: str | list[Turn]
    direction: list[float]
    response: str
    rewards: list[float]
    scalar_reward: float
    candidates: Count
    origin: Origin
    sampled_under: list[float] | None = None

    def __post_init__(self) -> None:
        for direction in (self.direction, self.sampled_under or self.direction):
            check_direction(direction, len(self.direction))
        if len(self.rewards) != len(self.direction):
            raise ValueError(
                f"{len(self.rewards)} rewards for a direction of {len(self.direction)} weights"
            )


class Pair(Record):
    """A line of pairs.jsonl: two responses to a prompt, the first better by `margin`.

    `direction` is the one that they were compared under, and that the policy is conditioned on;
    null for
    pairs from ratings, whose margin is that of the mean ratings.
    """

    prompt_id: str
    prompt: str | list[Turn]
    direction: list[float] | None
    chosen: str
    rejected: str
    margin: Annotated[float, msgspec.Meta(gt=0)]
