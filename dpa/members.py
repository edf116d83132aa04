"""Several reward models, the members, that scored the same responses.

Files come member by member: all of the first member's, then all of the second's. Nothing here knows
how the members came to be. No torch.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean, pstdev
from typing import TypeVar

import msgspec

from dpa.artefacts.jsonl import decode_lines
from dpa.config.steering import PenaltyConfig, Pessimism
from dpa.directions import scalar_reward
from dpa.errors import InputError
from dpa.records import Annotation, ScoredSample

#: A response's rewards by each member, in order: (members, objectives).
Opinions = Sequence[Sequence[float]]

#: Means have as many decimals as a member's rewards (dpa/objectives.py).
REWARD_DECIMALS = 4

AnyFile = TypeVar("AnyFile")


def by_member(files: Sequence[AnyFile], members: int, flag: str) -> list[Sequence[AnyFile]]:
    """The files of each member. Raises InputError unless all members have as many."""
    each, rest = divmod(len(files), members)
    if rest or not each:
        raise InputError(
            f"{flag}: {len(files)} files of {members} members; give as many of each, one member's "
            "after another's"
        )
    return [files[m * each : (m + 1) * each] for m in range(members)]


def scalar_score(
    direction: Sequence[float], opinions: Opinions, pessimism: Pessimism = "none"
) -> float:
    """What a direction maximises: v.r by one member; of several the mean, the minimum, or mean less
    penalty times standard deviation (ddof 0), all of v.r: members' errors in the objectives
    correlate (Coste et al., arXiv 2310.02743, for one objective)."""
    if len(opinions) == 1:
        return scalar_reward(direction, opinions[0])
    scores = [scalar_reward(direction, rewards) for rewards in opinions]
    if pessimism == "min":
        return min(scores)
    penalty = pessimism.penalty if isinstance(pessimism, PenaltyConfig) else 0.0
    return fmean(scores) - penalty * pstdev(scores)


def mean_rewards(opinions: Opinions) -> list[float]:
    """The members' mean of each objective; of one member its rewards as they are."""
    if len(opinions) == 1:
        return list(opinions[0])
    return [round(fmean(rewards), REWARD_DECIMALS) for rewards in zip(*opinions, strict=True)]


def joined_annotations(
    files: Sequence[Path], members: int = 1
) -> Iterator[tuple[Path, Annotation, Opinions]]:
    """Each annotated response with its file, by its first member, and all members' rewards.

    Raises InputError where members' files are not of the same responses in the same order.
    """
    for paths in zip(*by_member(files, members, "--annotations"), strict=True):
        for records in _in_step(paths, Annotation):
            yield paths[0], records[0], [record.rewards for record in records]


def mean_samples(paths: Sequence[Path]) -> Iterator[ScoredSample]:
    """Samples with the members' mean outputs and rewards; a file of the same samples by each.

    Raises InputError where they are not of the same samples in the same order.
    """
    for records in _in_step(paths, ScoredSample):
        outputs = mean_rewards([list(record.attributes.values()) for record in records])
        yield msgspec.structs.replace(
            records[0],
            attributes=dict(zip(records[0].attributes, outputs, strict=True)),
            rewards=mean_rewards([record.rewards for record in records]),
        )


AnyScored = TypeVar("AnyScored", Annotation, ScoredSample)


def _in_step(paths: Sequence[Path], type: type[AnyScored]) -> Iterator[Sequence[AnyScored]]:
    """The members' records of each response."""
    for records in zip_longest(*(decode_lines(path, type) for path in paths)):
        for path, record in zip(paths, records, strict=True):
            if record is None or records[0] is None or _response(record) != _response(records[0]):
                raise InputError(
                    f"{path}: other responses than in {paths[0]}; delete both and rerun what "
                    "scored them"
                )
        yield records


def _response(record: Annotation | ScoredSample) -> tuple[str, str]:
    return record.prompt_id, record.response
