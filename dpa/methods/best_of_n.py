"""Best-of-n under each direction, and replay of original responses (paper, section 3.1).

Everything streams: memory is one prompt's candidates plus the prompts themselves.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.row_counts import RowCounts
from dpa.directions import Direction, conditioned, objectives_of, sample_direction, scalar_reward
from dpa.errors import InputError
from dpa.records import Annotation, Prompt, ScoredSample, Selected
from dpa.seeds import derive_seed
from dpa.text.prompts import read_prompts


@dataclass(frozen=True)
class SelectionPlan:
    """What a complete set of candidates looks like, and the directions that choose among them."""

    distribution: dict
    seed: int
    iteration: int
    directions_per_prompt: int
    responses_per_direction: int
    #: Every direction chooses among all of a prompt's candidates: DPA's first iteration, whose
    #: policy, SteerLM, knows conditions and no directions.
    shared: bool = False
    replay_fraction: float = 0.0

    def direction(self, prompt_id: str, index: int) -> Direction:
        """Direction `index` of a prompt; indices from directions_per_prompt on are for replay."""
        return sample_direction(self.distribution, self.seed, self.iteration, prompt_id, index)


def best_of_n(direction: Sequence[float], rewards: Sequence[Sequence[float]]) -> int:
    """Index of the candidate with the highest v.r; among equals the first (paper, algorithm 1)."""
    if not rewards:
        raise ValueError("no candidates")
    scores = [scalar_reward(direction, r) for r in rewards]
    return scores.index(max(scores))


class Candidates(NamedTuple):
    """What one direction of a prompt chooses among, in the order of sample indices."""

    prompt: Prompt
    direction: Direction
    samples: list[ScoredSample]


def candidates_of_prompt(
    prompt: Prompt, samples: list[ScoredSample], plan: SelectionPlan
) -> Iterator[Candidates]:
    """The candidates of each of the prompt's directions.

    Raises ValueError when one is missing, doubled, or was sampled under another direction.
    """
    by_direction: dict[int, list[ScoredSample]] = {}
    for sample in sorted(samples, key=lambda s: (s.direction_index, s.sample_index)):
        by_direction.setdefault(sample.direction_index, []).append(sample)
    total = plan.directions_per_prompt * plan.responses_per_direction
    expected = (
        {-1: total}
        if plan.shared
        else dict.fromkeys(range(plan.directions_per_prompt), plan.responses_per_direction)
    )
    for index, count in expected.items():
        found = [s.sample_index for s in by_direction.get(index, [])]
        if found != list(range(count)):
            raise ValueError(f"direction {index} has samples {found}, expected 0..{count - 1}")
    if foreign := sorted(set(by_direction) - set(expected)):
        raise ValueError(f"unexpected direction indices {foreign}")

    is_conditioned = conditioned(plan.distribution) and not plan.shared
    for index in range(plan.directions_per_prompt):
        direction = plan.direction(prompt.prompt_id, index)
        mine = by_direction[-1 if plan.shared else index]
        for sample in mine:
            if is_conditioned and sample.direction != direction:
                raise ValueError(f"direction {index} is {sample.direction}, expected {direction}")
            if len(sample.rewards) != len(direction):
                raise ValueError(
                    f"{len(sample.rewards)} rewards, but there are {len(direction)} objectives"
                )
        yield Candidates(prompt, direction, mine)


def _selected(
    prompt: Prompt, direction: Direction, response: str, rewards: list[float], n: int, origin
) -> Selected:
    return Selected(
        prompt_id=prompt.prompt_id,
        prompt=prompt.prompt,
        direction=direction,
        response=response,
        rewards=rewards,
        scalar_reward=round(scalar_reward(direction, rewards), 6),
        candidates=n,
        origin=origin,
    )


def in_prompt_order(shards: Iterable[Path], position: dict[str, int]) -> list[Path]:
    """Shard files sorted by their first prompt's place in the prompt file; empty ones first."""

    def first(path: Path) -> int:
        record = next(decode_lines(path, ScoredSample), None)
        return -1 if record is None else _place(record.prompt_id, position, path)

    return sorted(shards, key=lambda path: (first(path), str(path)))


def _place(prompt_id: str, position: dict[str, int], path: Path) -> int:
    if prompt_id not in position:
        raise InputError(
            f"{path}: prompt {prompt_id} is not in the prompt file; "
            "the shard belongs to other data: delete it and rerun"
        )
    return position[prompt_id]


def candidates_by_direction(
    shards: Sequence[Path], prompts: list[Prompt], plan: SelectionPlan, row_counts: RowCounts
) -> Iterator[Candidates]:
    """Candidates of all shards in prompt order, whatever the shards' number and order.

    Prompts without any candidate (too long to sample) are counted in `row_counts`. Raises
    InputError naming the shard when candidates are missing, doubled or foreign.
    """
    position = {prompt.prompt_id: i for i, prompt in enumerate(prompts)}
    last = -1
    seen = 0
    for path in in_prompt_order(shards, position):
        for prompt_id, group in groupby(decode_lines(path, ScoredSample), lambda r: r.prompt_id):
            place = _place(prompt_id, position, path)
            if place <= last:
                raise InputError(
                    f"{path}: prompt {prompt_id} is out of order or in two shards; "
                    "delete the shards and rerun"
                )
            last = place
            seen += 1
            try:
                yield from candidates_of_prompt(prompts[place], list(group), plan)
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"{path}: prompt {prompt_id}: {error}; delete the shard and rerun"
                ) from None
    row_counts.read += len(prompts)
    row_counts.dropped["no candidates"] += len(prompts) - seen
    if not seen:
        raise InputError(
            f"{', '.join(map(str, shards))}: no prompt has candidates; see the log of "
            "sample_responses, delete the shards and rerun"
        )


def select_sampled(
    shards: Sequence[Path], prompts: list[Prompt], plan: SelectionPlan, row_counts: RowCounts
) -> Iterator[Selected]:
    """Each direction's best candidate; see candidates_by_direction."""
    for prompt, direction, samples in candidates_by_direction(shards, prompts, plan, row_counts):
        best = samples[best_of_n(direction, [s.rewards for s in samples])]
        yield _selected(prompt, direction, best.response, best.rewards, len(samples), "sampled")


def select_replay(
    annotations: Iterable[Path],
    prompts: list[Prompt],
    rows: int,
    plan: SelectionPlan,
    row_counts: RowCounts,
) -> Iterator[Selected]:
    """`rows` original responses: for prompts in seeded hash order, the best of a prompt's own.

    Each is chosen and conditioned under a direction of its own (ours: the paper replays 15 % and
    does not say how it is conditioned). Prompts without responses are counted in `row_counts`.
    """
    ordered = sorted(
        prompts, key=lambda p: derive_seed(plan.seed, "replay", plan.iteration, p.prompt_id)
    )
    wanted = {p.prompt_id for p in prompts}
    own: dict[str, list[Annotation]] = {}
    for path in annotations:
        for record in decode_lines(path, Annotation):
            if record.prompt_id in wanted:
                if len(record.rewards) != objectives_of(plan.distribution):
                    raise InputError(
                        f"{path}: an annotation has {len(record.rewards)} rewards, but there are "
                        f"{objectives_of(plan.distribution)} objectives; rerun annotate_responses"
                    )
                own.setdefault(record.prompt_id, []).append(record)
    available = [p for p in ordered if p.prompt_id in own]
    row_counts.dropped["no original responses"] += len(prompts) - len(available)
    if rows and not available:
        raise InputError("replay: no prompt has original responses; set dpa.replay_fraction to 0")
    for i in range(rows):
        prompt = available[i % len(available)]
        index = plan.directions_per_prompt + i // len(available)
        direction = plan.direction(prompt.prompt_id, index)
        responses = own[prompt.prompt_id]
        best = responses[best_of_n(direction, [r.rewards for r in responses])]
        yield _selected(prompt, direction, best.response, best.rewards, len(responses), "replay")


def replay_rows(sampled: int, fraction: float) -> int:
    """How many replayed rows make `fraction` of all rows, given the sampled ones."""
    return round(sampled * fraction / (1 - fraction))


def select(
    shards: Sequence[Path],
    prompts_file: Path,
    annotations: Iterable[Path],
    plan: SelectionPlan,
    sampled_counts: RowCounts,
    replay_counts: RowCounts,
) -> Iterator[Selected]:
    """All rows of an iteration's fine-tuning data: the sampled ones, then the replayed ones."""
    prompts = read_prompts(prompts_file)
    count = 0
    for row in select_sampled(shards, prompts, plan, sampled_counts):
        count += 1
        yield row
    rows = replay_rows(count, plan.replay_fraction)
    replay_counts.read += len(prompts)
    yield from select_replay(annotations, prompts, rows, plan, replay_counts)
