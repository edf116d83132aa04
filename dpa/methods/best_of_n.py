"""Best-of-n under each direction, and replay of original responses (paper, section 3.1).

Everything streams: memory is one prompt's candidates plus the prompts themselves.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import NamedTuple

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.row_counts import RowCounts
from dpa.config.steering import CandidatesName, Pessimism
from dpa.directions import (
    Direction,
    check_direction,
    conditioned,
    degrees_between,
    objectives_of,
    sample_direction,
)
from dpa.errors import InputError
from dpa.members import Opinions, by_member, joined_annotations, mean_rewards, scalar_score
from dpa.records import Origin, Prompt, ScoredSample, Selected
from dpa.seeds import derive_seed
from dpa.text.prompts import direction_system_prompt, messages, read_prompts


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
    #: A prompt's directions choose in their order, none an answer that another has chosen.
    distinct: bool = False
    #: Reward models whose files are given, member by member, and what is maximised by several.
    members: int = 1
    pessimism: Pessimism = "none"
    #: Whose responses a direction chooses among: its own, also those of the prompt's directions
    #: within `neighbour_degrees` of it, or all of the prompt's.
    candidates: CandidatesName = "own"
    neighbour_degrees: float = 0.0

    def direction(self, prompt_id: str, index: int) -> Direction:
        """Direction `index` of a prompt; indices from directions_per_prompt on are for replay."""
        return sample_direction(self.distribution, self.seed, self.iteration, prompt_id, index)


def best_of_n(scores: Sequence[float]) -> int:
    """Index of the highest of the candidates' scores; among equals the first (paper, algorithm 1).

    The score is v.r, or what several members make of it (members.scalar_score).
    """
    if not scores:
        raise ValueError("no candidates")
    return scores.index(max(scores))


class Candidate(NamedTuple):
    """A sample, by the first member, and its rewards by every member."""

    sample: ScoredSample
    opinions: Opinions


@dataclass
class Truncated:
    """Candidates that were truncated at sampling.max_new_tokens."""

    #: Not to be chosen, because others of their group end by themselves.
    left_out: int = 0
    #: To be chosen like any, because all of their group are truncated.
    kept: int = 0

    def leave_out(self, group: list[Candidate]) -> list[Candidate]:
        """Those of a group of candidates that end by themselves, or all if none does.

        A policy that is fine-tuned on truncated responses learns not to end them.
        """
        whole = [candidate for candidate in group if candidate.sample.finish_reason != "length"]
        if whole:
            self.left_out += len(group) - len(whole)
            return whole
        self.kept += len(group)
        return group


class Candidates(NamedTuple):
    """What one direction of a prompt chooses among, its own first, in the order of sample indices;
    and the scores that it chooses by."""

    prompt: Prompt
    direction: Direction
    found: list[Candidate]
    scores: list[float]


def candidates_of_prompt(
    prompt: Prompt, found: Iterable[Candidate], plan: SelectionPlan, truncated: Truncated
) -> Iterator[Candidates]:
    """The candidates of each of the prompt's directions; `found` is in the order of _sample_order.

    Truncated ones are left out (see Truncated).

    Raises ValueError when one is missing, doubled, or was sampled under another direction.
    """
    by_direction: dict[int, list[Candidate]] = {}
    for candidate in found:
        by_direction.setdefault(candidate.sample.direction_index, []).append(candidate)
    total = plan.directions_per_prompt * plan.responses_per_direction
    expected = (
        {-1: total}
        if plan.shared
        else dict.fromkeys(range(plan.directions_per_prompt), plan.responses_per_direction)
    )
    for index, count in expected.items():
        there = [c.sample.sample_index for c in by_direction.get(index, [])]
        if there != list(range(count)):
            raise ValueError(f"direction {index} has samples {there}, expected 0..{count - 1}")
    if foreign := sorted(set(by_direction) - set(expected)):
        raise ValueError(f"unexpected direction indices {foreign}")

    directions = [
        plan.direction(prompt.prompt_id, index) for index in range(plan.directions_per_prompt)
    ]
    is_conditioned = conditioned(plan.distribution) and not plan.shared
    for sample, opinions in (candidate for some in by_direction.values() for candidate in some):
        asked = directions[sample.direction_index]
        if is_conditioned and sample.direction != asked:
            raise ValueError(
                f"direction {sample.direction_index} is {sample.direction}, expected {asked}"
            )
        for rewards in opinions:
            if len(rewards) != len(asked):
                raise ValueError(f"{len(rewards)} rewards, but there are {len(asked)} objectives")
    eligible: dict[tuple[int, ...], list[Candidate]] = {}
    for index, direction in enumerate(directions):
        pool = (-1,) if plan.shared else tuple(_pool(index, directions, plan))
        if pool not in eligible:
            group = [candidate for i in pool for candidate in by_direction[i]]
            eligible[pool] = truncated.leave_out(group)
        mine = eligible[pool]
        scores = [scalar_score(direction, c.opinions, plan.pessimism) for c in mine]
        yield Candidates(prompt, direction, mine, scores)


def _pool(index: int, directions: Sequence[Direction], plan: SelectionPlan) -> list[int]:
    """The directions whose responses direction `index` chooses among: its own, which win ties, then
    others in order."""
    if plan.candidates == "own":
        return [index]
    others = [
        i
        for i, other in enumerate(directions)
        if i != index
        and (
            plan.candidates == "all"
            or degrees_between(directions[index], other) <= plan.neighbour_degrees
        )
    ]
    return [index, *others]


def _selected(
    prompt: Prompt, direction: Direction, response: str, opinions: Opinions, score: float, n: int,
    origin: Origin, sampled_under: Direction | None = None,
) -> Selected:  # fmt: skip
    return Selected(
        prompt_id=prompt.prompt_id,
        prompt=prompt.prompt,
        direction=direction,
        response=response,
        rewards=mean_rewards(opinions),
        scalar_reward=round(score, 6),
        candidates=n,
        origin=origin,
        sampled_under=sampled_under,
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


def _sample_order(sample: ScoredSample) -> tuple[int, int]:
    return sample.direction_index, sample.sample_index


def _samples_by_prompt(
    shards: Sequence[Path], position: dict[str, int]
) -> Iterator[tuple[int, Path, list[ScoredSample]]]:
    """A member's samples of each prompt, with the prompt's place, in prompt order."""
    last = -1
    for path in in_prompt_order(shards, position):
        for prompt_id, group in groupby(decode_lines(path, ScoredSample), lambda r: r.prompt_id):
            place = _place(prompt_id, position, path)
            if place <= last:
                raise InputError(
                    f"{path}: prompt {prompt_id} is out of order or in two shards; "
                    "delete the shards and rerun"
                )
            last = place
            yield place, path, sorted(group, key=_sample_order)


def joined_samples(
    members: Sequence[Sequence[Path]], position: dict[str, int]
) -> Iterator[tuple[int, Path, list[Candidate]]]:
    """As _samples_by_prompt, of all members: joined on prompt, direction and sample.

    Raises InputError naming the shard of a member that scored other samples than the first one.
    """
    for groups in zip_longest(*(_samples_by_prompt(shards, position) for shards in members)):
        there = next(group for group in groups if group is not None)
        place, path, samples = groups[0] or there
        for other in groups[1:]:
            if other is None or groups[0] is None or other[0] != place:
                raise _scored_differently((other or there)[1])
            for one, same in zip_longest(samples, other[2]):
                if one is None or same is None or _identity(one) != _identity(same):
                    raise _scored_differently(other[1])
        found = zip(*(group[2] for group in groups), strict=True)
        yield place, path, [Candidate(same[0], [s.rewards for s in same]) for same in found]


def _identity(sample: ScoredSample) -> tuple[int, int, str]:
    return sample.direction_index, sample.sample_index, sample.response


def _scored_differently(path: Path) -> InputError:
    return InputError(
        f"{path}: the members scored different samples; delete the scored shards and rerun"
    )


def candidates_by_direction(
    shards: Sequence[Path],
    prompts: list[Prompt],
    plan: SelectionPlan,
    row_counts: RowCounts,
    truncated: Truncated,
) -> Iterator[Candidates]:
    """Candidates of all shards in prompt order, whatever the shards' number and order.

    `shards` are those of all members, member by member. Prompts without any candidate (too long to
    sample) are counted in `row_counts`, truncated candidates in `truncated`. Raises InputError
    naming the shard when candidates are missing, doubled or foreign, or the members scored
    different ones.
    """
    position = {prompt.prompt_id: i for i, prompt in enumerate(prompts)}
    seen = 0
    for place, path, found in joined_samples(by_member(shards, plan.members, "--scored"), position):
        seen += 1
        try:
            yield from candidates_of_prompt(prompts[place], found, plan, truncated)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: prompt {prompts[place].prompt_id}: {error}; delete the shard and rerun"
            ) from None
    row_counts.read += len(prompts)
    row_counts.dropped["no candidates"] += len(prompts) - seen
    if not seen:
        raise InputError(
            f"{', '.join(map(str, shards))}: no prompt has candidates; see the log of "
            "sample_responses, delete the shards and rerun"
        )


def select_sampled(
    shards: Sequence[Path],
    prompts: list[Prompt],
    plan: SelectionPlan,
    row_counts: RowCounts,
    truncated: Truncated,
) -> Iterator[Selected]:
    """Each direction's best candidate (see candidates_by_direction), or if the plan's are distinct,
    the best that no earlier direction of the prompt took."""
    last: Prompt | None = None
    taken: set[str] = set()
    for prompt, direction, found, scores in candidates_by_direction(
        shards, prompts, plan, row_counts, truncated
    ):
        if prompt is not last:
            last, taken = prompt, set()
        left = [i for i, c in enumerate(found) if c.sample.response not in taken]
        left = left or list(range(len(found)))  # fewer answers than directions
        best = left[best_of_n([scores[i] for i in left])]
        sample, opinions = found[best]
        if plan.distinct:
            taken.add(sample.response)
        yield _selected(
            prompt, direction, sample.response, opinions, scores[best], len(left), "sampled",
            None if plan.candidates == "own" else sample.direction,
        )  # fmt: skip


def select_replay(
    annotations: Sequence[Path],
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
    own: dict[str, list[tuple[str, Opinions]]] = {}
    for path, record, opinions in joined_annotations(annotations, plan.members):
        if record.prompt_id not in wanted:
            continue
        for rewards in opinions:
            if len(rewards) != objectives_of(plan.distribution):
                raise InputError(
                    f"{path}: an annotation has {len(rewards)} rewards, but there are "
                    f"{objectives_of(plan.distribution)} objectives; rerun annotate_responses"
                )
        own.setdefault(record.prompt_id, []).append((record.response, opinions))
    available = [p for p in ordered if p.prompt_id in own]
    row_counts.dropped["no original responses"] += len(prompts) - len(available)
    if rows and not available:
        raise InputError("replay: no prompt has original responses; set dpa.replay_fraction to 0")
    for i in range(rows):
        prompt = available[i % len(available)]
        index = plan.directions_per_prompt + i // len(available)
        direction = plan.direction(prompt.prompt_id, index)
        responses = own[prompt.prompt_id]
        scores = [scalar_score(direction, opinions, plan.pessimism) for _, opinions in responses]
        best = best_of_n(scores)
        response, opinions = responses[best]
        yield _selected(
            prompt, direction, response, opinions, scores[best], len(responses), "replay"
        )


class Repeats:
    """How many of the sampled rows repeat a response that another direction of the prompt chose."""

    def __init__(self) -> None:
        self.rows = self.repeated = 0

    def count(self, rows: Iterable[Selected]) -> Iterator[Selected]:
        """The rows as they come: a prompt's are contiguous."""
        for (origin, _), group in groupby(rows, lambda row: (row.origin, row.prompt_id)):
            seen: set[str] = set()
            for row in group:
                if origin == "sampled":
                    self.rows += 1
                    self.repeated += row.response in seen
                    seen.add(row.response)
                yield row

    @property
    def share(self) -> float:
        return self.repeated / self.rows if self.rows else 0.0


def replay_rows(sampled: int, fraction: float) -> int:
    """How many replayed rows make `fraction` of all rows, given the sampled ones."""
    return round(sampled * fraction / (1 - fraction))


def select(
    shards: Sequence[Path],
    prompts_file: Path,
    annotations: Sequence[Path],
    plan: SelectionPlan,
    sampled_counts: RowCounts,
    replay_counts: RowCounts,
    truncated: Truncated,
) -> Iterator[Selected]:
    """All rows of an iteration's fine-tuning data: the sampled ones, then the replayed ones."""
    prompts = read_prompts(prompts_file)
    count = 0
    for row in select_sampled(shards, prompts, plan, sampled_counts, truncated):
        count += 1
        yield row
    rows = replay_rows(count, plan.replay_fraction)
    replay_counts.read += len(prompts)
    yield from select_replay(annotations, prompts, rows, plan, replay_counts)


def selected_conversations(
    selected: Path, names: Sequence[str], told: Set[Origin]
) -> Iterator[list[dict]]:
    """The chosen responses as conversations, those of the origins `told` with their directions.

    Raises InputError naming the line of a direction that does not fit the objectives `names`.
    """
    for line, row in enumerate(decode_lines(selected, Selected), 1):
        try:
            direction = check_direction(row.direction, len(names))
        except InputError as error:
            raise InputError(f"{selected}:{line}: {error}; rerun select_responses") from None
        system = direction_system_prompt(names, direction) if row.origin in told else None
        yield messages(row.prompt, system, row.response)
