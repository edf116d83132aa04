"""What the online iterations of Rewards-in-Context learn from (Yang et al., arXiv 2402.10207).

The offline stage is SteerLM: SFT on responses with their rewards in the prompt. An iteration asks
for rewards near the Pareto front (dpa.conditions.draw_desired_rewards), puts those that the
responses got in the place of the desired ones, rejects what is good at nothing, and trains on: on
what all iterations so far have kept, and on original responses that are good at something.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

import numpy as np

from dpa.artefacts.row_counts import RowCounts
from dpa.conditions import RewardRanges
from dpa.directions import single_objectives
from dpa.errors import InputError
from dpa.members import Opinions, by_member, joined_annotations, mean_rewards
from dpa.methods.best_of_n import Truncated, joined_samples
from dpa.records import Annotation, Prompt, ScoredSample, Turn
from dpa.seeds import derive_seed


def signs_of(distribution: dict) -> np.ndarray:
    """(k,) 1 for an objective of which directions want more, -1 for one of which they want less."""
    return np.sum(single_objectives(distribution), axis=0)


def reward_ranges(rewards: np.ndarray, signs: np.ndarray) -> RewardRanges:
    """The worst and the best of (responses, k) rewards."""
    low, high = rewards.min(axis=0), rewards.max(axis=0)
    more = signs > 0
    return RewardRanges(
        worst=np.where(more, low, high).round(4).tolist(),
        best=np.where(more, high, low).round(4).tolist(),
    )


def annotated_originals(
    annotations: Sequence[Path], members: int, wanted: Set[str], row_counts: RowCounts
) -> Iterator[Annotation]:
    """The original responses to the wanted prompts, with the members' mean rewards."""
    for _, record, opinions in joined_annotations(annotations, members):
        row_counts.read += 1
        if record.prompt_id in wanted:
            yield _annotation(record, record.prompt, opinions)
        else:
            row_counts.drop("to other prompts", asked_for=True)


def relabelled_samples(
    scored: Sequence[Path],
    prompts: Sequence[Prompt],
    members: int,
    row_counts: RowCounts,
    truncated: Truncated,
) -> Iterator[Annotation]:
    """An iteration's samples with the rewards that they got, in the order of prompts.

    Truncated ones are left out where another response to their prompt ends by itself.
    """
    position = {prompt.prompt_id: i for i, prompt in enumerate(prompts)}
    for place, _, candidates in joined_samples(by_member(scored, members, "--scored"), position):
        row_counts.read += len(candidates)
        whole = truncated.leave_out(candidates)
        row_counts.drop("truncated", rows=len(candidates) - len(whole), asked_for=True)
        for sample, opinions in whole:
            yield _annotation(sample, prompts[place].prompt, opinions)


def rewards_of(rows: Iterable[Annotation]) -> np.ndarray:
    """(responses, k). Raises InputError when there are none."""
    if not (rewards := [row.rewards for row in rows]):
        raise InputError("Rewards-in-Context: no responses to these prompts; give those of a run")
    return np.array(rewards)


def good_at_something(rewards: np.ndarray, signs: np.ndarray, threshold: float) -> np.ndarray:
    """(responses,) whether some objective's reward is at least its `threshold` quantile of all: the
    multi-objective rejection.

    `rewards` is (responses, k). Of an objective of which less is wanted, the negative counts.
    """
    wanted = rewards * signs
    return (wanted >= np.quantile(wanted, threshold, axis=0)).any(axis=1)


def at_most(good: np.ndarray, most: int, seed: int) -> np.ndarray:
    """(responses,) so many of the good ones, drawn at random; all if there are no more."""
    places = np.flatnonzero(good)
    drawn = np.random.default_rng(derive_seed(seed, "ric originals")).permutation(places)[:most]
    return np.isin(np.arange(len(good)), drawn)


def keep(
    rows: Iterable[Annotation], wanted: np.ndarray, reason: str, row_counts: RowCounts
) -> Iterator[Annotation]:
    """The wanted rows; the others are counted by the reason for leaving them out."""
    for row, is_wanted in zip(rows, wanted, strict=True):
        if is_wanted:
            yield row
        else:
            row_counts.drop(reason, asked_for=True)


def _annotation(
    response: Annotation | ScoredSample, prompt: str | list[Turn], opinions: Opinions
) -> Annotation:
    return Annotation(
        prompt_id=response.prompt_id,
        prompt=prompt,
        response=response.response,
        attributes=response.attributes,
        rewards=mean_rewards(opinions),
        split="train",
    )
