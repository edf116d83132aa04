"""Sampling responses: which requests a shard makes, and writing what comes back.

A file's prompts are split into chunks, and a shard is a run of whole chunks. Directions, conditions
and seeds derive from the prompt's id, and engines keep chunks apart, so the concatenated shards of
a file are the same bytes for any number of shards. Light on purpose (no torch): the
model is loaded only once it is known that there is work, and how much.
"""

import hashlib
import json
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines
from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.artefacts.sidecars import fingerprint, write_sidecar
from dpa.conditions import (
    Conditions,
    RewardRanges,
    condition_for,
    desired_rewards,
    draw_condition,
    draw_desired_rewards,
    evaluated_conditions,
    read_conditions,
    read_ranges,
)
from dpa.config.chat import ModelsConfig
from dpa.config.sampling import SamplingConfig
from dpa.directions import (
    Direction,
    conditioned,
    evaluation_directions,
    grid_size,
    sample_direction,
)
from dpa.errors import InputError
from dpa.generation.engine import Completion, Engine, Request
from dpa.generation.load import load_engine
from dpa.models import AnyModel, ModelRef, download
from dpa.records import Prompt, Sample
from dpa.runtime.gpus import take_gpu
from dpa.runtime.log import Progress, log
from dpa.runtime.watchdog import Watchdog
from dpa.seeds import sample_seed
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import (
    condition_system_prompt,
    direction_system_prompt,
    messages,
    read_prompts,
)
from dpa.text.tokenization import ChatTokenizer


class Steering(NamedTuple):
    """What a prompt's samples are asked for: a direction, a condition, or (neither) nothing.

    With both, the policy is told the condition, which stands for the direction.

    `direction_index` tells a prompt's steerings apart; the samples are number `first` and following
    of that index.
    """

    direction_index: int
    direction: Direction | None = None
    condition: list[int] | None = None
    samples: int = 1
    first: int = 0


#: Why a prompt is left out; any other reason is its chat template's.
TOO_LONG = "prompt_too_long"

#: In the place of an iteration it sets evaluation's seeds apart from those of iterations 1, 2, ...
EVALUATION = 0

#: The steerings of a prompt, given its id.
Steer = Callable[[str], Sequence[Steering]]


def always(grid: Sequence[Steering]) -> Steer:
    """The same steerings for every prompt: an evaluation."""
    return lambda prompt_id: grid


def drawn_directions(
    distribution: dict, seed: int, iteration: int, directions: int, samples: int
) -> Steer:
    """Iterations 2 and up: `directions` drawn for each prompt, `samples` each (section 3.1).

    Under a distribution that has one direction only the policy is not conditioned on it.
    """

    def steer(prompt_id: str) -> list[Steering]:
        if not conditioned(distribution):
            return [Steering(i, samples=samples) for i in range(directions)]
        return [
            Steering(
                i, sample_direction(distribution, seed, iteration, prompt_id, i), samples=samples
            )
            for i in range(directions)
        ]

    return steer


def drawn_conditions(
    conditions: Conditions, seed: int, samples: int, noise: float, uniform_share: float
) -> Steer:
    """Iteration 1: `samples` of the SteerLM policy, each under a condition of its own.

    They have direction index -1: every direction of the prompt chooses among all of them.
    """

    def steer(prompt_id: str) -> list[Steering]:
        drawn = (
            draw_condition(conditions, seed, prompt_id, i, noise, uniform_share)
            for i in range(samples)
        )
        return [Steering(-1, condition=c, first=i) for i, c in enumerate(drawn)]

    return steer


def drawn_desired_rewards(ranges: RewardRanges, seed: int, iteration: int, samples: int) -> Steer:
    """Iterations of Rewards-in-Context: `samples`, each asked for rewards of its own."""

    def steer(prompt_id: str) -> list[Steering]:
        drawn = (
            draw_desired_rewards(ranges, seed, iteration, prompt_id, i) for i in range(samples)
        )
        return [Steering(-1, condition=c, first=i) for i, c in enumerate(drawn)]

    return steer


def grid_of(
    distribution: dict | None,
    grid: int | Sequence[Sequence[float]],
    conditions: Path | None,
    samples: int,
    curve_points: int,
    ranges: Path | None = None,
) -> list[Steering]:
    """What every validation prompt is asked for: directions, SteerLM's curve, or nothing.

    Of the curve as many conditions as the grid has directions, with the paper's `curve_points`. A
    policy that takes rewards is asked for a direction by the best of SteerLM's conditions, or by
    what Rewards-in-Context makes of it and the data's `ranges`.
    """
    if distribution is not None:
        directions = evaluation_directions(distribution, grid)
        asked: list[list[int]] | list[None] = [None] * len(directions)
        if conditions is not None:
            known = read_conditions(conditions)
            asked = [condition_for(known, v) for v in directions]
        elif ranges is not None:
            reach = read_ranges(ranges)
            asked = [desired_rewards(reach, v) for v in directions]
        return [
            Steering(i, direction=v, condition=c, samples=samples)
            for i, (v, c) in enumerate(zip(directions, asked, strict=True))
        ]
    if conditions is not None:
        curve = evaluated_conditions(read_conditions(conditions), grid_size(grid), curve_points)
        return [Steering(i, condition=c, samples=samples) for i, c in enumerate(curve)]
    return [Steering(-1, samples=samples)]


def request_for(
    prompt: Prompt,
    steering: Steering,
    chat: ChatTokenizer,
    names: Sequence[str],
    seed: int,
    iteration: int,
) -> Request:
    """The request that asks a policy for a prompt's samples under a steering.

    `names` are the objectives' names, `seed` the base seed. What users wrote becomes tokens in
    dpa.text.tokenization and nowhere else. Raises ConversationError as it does.
    """
    system = None
    if steering.condition is not None:
        system = condition_system_prompt(names, steering.condition)
    elif steering.direction is not None:
        system = direction_system_prompt(names, steering.direction)
    if system is not None:
        chat.check_system_prompt()
    first = sample_seed(seed, iteration, prompt.prompt_id, steering.direction_index, steering.first)
    ids = chat.prompt_ids(messages(prompt.prompt, system))
    return Request(ids, list(range(first, first + steering.samples)))


def shard_chunks(n_prompts: int, prompts_per_chunk: int, shard: int, shards: int) -> list[range]:
    """The chunks of a shard, as ranges of prompt numbers; whole, in order, evenly shared out.

    >>> shard_chunks(10, 3, 1, 2)
    [range(6, 9), range(9, 10)]
    """
    starts = range(0, n_prompts, prompts_per_chunk)
    mine = starts[shard * len(starts) // shards : (shard + 1) * len(starts) // shards]
    return [range(start, min(start + prompts_per_chunk, n_prompts)) for start in mine]


class Planned(NamedTuple):
    """A request to be made; its prompt's tokens packed, for a shard may have millions of them."""

    prompt: Prompt
    steering: Steering
    tokens: array
    seed: int

    def request(self) -> Request:
        seeds = range(self.seed, self.seed + self.steering.samples)
        return Request(self.tokens.tolist(), list(seeds))

    def records(self, completions: Sequence[Completion]) -> Iterator[Sample]:
        """The answers as records."""
        for number, completion in enumerate(completions):
            yield Sample(
                prompt_id=self.prompt.prompt_id,
                direction_index=self.steering.direction_index,
                direction=self.steering.direction,
                condition=self.steering.condition,
                sample_index=self.steering.first + number,
                seed=self.seed + number,
                response=completion.text,
                finish_reason=completion.finish_reason,
                prompt_tokens=len(self.tokens),
                response_tokens=completion.tokens,
                unseen=self.prompt.unseen,
            )


PlannedChunk = list[Planned]


def plan_shard(
    prompts: Sequence[Prompt],
    chunks: Iterable[range],
    steer: Steer,
    request: Callable[[Prompt, Steering], Request],
    max_prompt_tokens: int,
    row_counts: RowCounts,
) -> list[PlannedChunk]:
    """The requests of a shard's chunks, in order; chunks left without any are left out.

    A prompt that is over-long under any of its steerings, or that the chat template does not take,
    is dropped with all of them, and counted in `row_counts`. It keeps its place in the numbering,
    or chunks would differ between shardings.
    """
    plan = []
    for chunk in chunks:
        planned: PlannedChunk = []
        for prompt in (prompts[number] for number in chunk):
            row_counts.read += 1
            group = []
            try:
                for steering in steer(prompt.prompt_id):
                    ids, seeds = request(prompt, steering)
                    group.append(Planned(prompt, steering, array("I", ids), seeds[0]))
            except ConversationError as error:
                row_counts.drop(str(error))
                continue
            if any(len(item.tokens) > max_prompt_tokens for item in group):
                row_counts.drop(TOO_LONG)
            else:
                planned += group
        if planned:
            plan.append(planned)
    return plan


def sample_file(
    output: Path,
    *,
    policy: AnyModel,
    prompts: Path,
    steer: Steer,
    names: Sequence[str],
    sampling: SamplingConfig,
    seed: int,
    iteration: int,
    models: ModelsConfig | None = None,
    shard: int = 0,
    shards: int = 1,
    inputs: Sequence[Path] = (),
) -> None:
    """Sample a policy on a shard of a prompt file and write one Sample per response, with sidecar.

    Records are in the order of prompts, then of the steerings that `steer` gives a prompt, then of
    samples. For an evaluation `steer` gives every prompt the same grid:

        grid = [Steering(i, direction=v, samples=2) for i, v in enumerate(directions)]
        sample_file(..., steer=always(grid))

    `names` are the objectives', `seed` is
    the base seed, `iteration` sets the seeds of different files apart; `models` is how chats become
    tokens (None: as config.yaml says); `inputs` are files besides
    policy and prompts that `steer` was made from (for the sidecar). A run that was killed resumes
    after the last complete chunk if nothing that determines the content has changed.

    Raises InputError when more responses than `sampling.max_truncated_fraction` are truncated, and
    what `load_engine` raises.
    """
    ref = ModelRef.of(policy)
    if not 0 <= shard < shards:
        raise InputError(f"shard {shard} of {shards}: give a shard from 0 to {shards - 1}")
    chat = ChatTokenizer.load(ref, models)
    texts = read_prompts(prompts)
    row_counts = RowCounts()

    def plan_of(chunks: Iterable[range], counted: RowCounts) -> list[PlannedChunk]:
        return plan_shard(
            texts,
            chunks,
            steer,
            lambda prompt, steered: request_for(prompt, steered, chat, names, seed, iteration),
            sampling.max_prompt_tokens,
            counted,
        )

    plan = plan_of(shard_chunks(len(texts), sampling.prompts_per_chunk, shard, shards), row_counts)
    # A shard may lose all of its prompts, the file may not.
    in_file = RowCounts()
    if row_counts.read and not row_counts.kept and not plan_of([range(len(texts))], in_file):
        if set(in_file.dropped) == {TOO_LONG}:
            raise InputError(
                f"{prompts}: all {len(texts)} prompts are longer than sampling.max_prompt_tokens "
                f"({sampling.max_prompt_tokens}); raise it"
            )
        raise InputError(
            f"{prompts}: {ref.path} takes none of the prompts ({in_file}); choose a policy whose "
            "chat template does"
        )
    longest = max((len(item.tokens) for chunk in plan for item in chunk), default=0)
    log.info(
        "%d of %d prompts are longer than %d tokens (sampling.max_prompt_tokens) and left out; the "
        "longest of the others has %d",
        row_counts.dropped[TOO_LONG],
        row_counts.read,
        sampling.max_prompt_tokens,
        longest,
    )
    check_dropped(row_counts, str(prompts))
    escaped = chat.controls.log_escaped()
    sizes = [sum(item.steering.samples for item in chunk) for chunk in plan]
    known = fingerprint(
        [ref.path],
        policy=str(ref),
        sampling=sampling.model_dump(exclude={"max_truncated_fraction"}),
        requests=_digest_of_requests(plan),
    )
    writer = ChunkedWriter(output, Sample, sizes, known)
    tally = _Tally(sum(sizes), sampling.max_truncated_fraction, writer.partial)
    if writer.done < len(plan):
        download(ref)  # not under the watchdog: it may take an hour
        take_gpu()
        with Watchdog(f"sampling {output}") as watchdog:
            speed = _Speed(watchdog)
            engine = load_engine(
                sampling.engine,
                ref,
                temperature=sampling.temperature,
                max_new_tokens=sampling.max_new_tokens,
                max_model_len=sampling.max_prompt_tokens + sampling.max_new_tokens,
                rows_per_batch=sampling.rows_per_batch,
                kv_cache_dtype=sampling.kv_cache_dtype,
                models=models,
                on_tokens=speed.add,
            )
            with closing(engine):
                _run(engine, plan[writer.done :], writer, tally, speed)
    writer.finish(
        lambda: write_sidecar(
            output,
            [ref.path, prompts, *inputs],
            row_counts,
            responses=tally.responses,
            truncated=tally.truncated,
            response_tokens=tally.tokens,
            neutralised=escaped,
            **chat.details(),
        )
    )


class _Tally:
    """Counts of what was written so far, and the limit on truncated responses."""

    def __init__(self, expected: int, max_truncated_fraction: float, resumed: Path) -> None:
        self.expected, self.limit = expected, max_truncated_fraction
        self.responses = self.truncated = self.tokens = 0
        self.add(decode_lines(resumed, Sample))

    def add(self, records: Iterable[Sample]) -> None:
        """Count records. Raises InputError once too many are truncated, whatever is to come."""
        for record in records:
            self.responses += 1
            self.truncated += record.finish_reason == "length"
            self.tokens += record.response_tokens
        if self.truncated > self.limit * self.expected:
            raise InputError(
                f"{self.truncated} of {self.responses} responses were truncated at max_new_tokens, "
                f"more than sampling.max_truncated_fraction allows ({self.limit:g} of "
                f"{self.expected}); raise sampling.max_new_tokens, or the limit if the policy is "
                "meant to ramble"
            )


class _Speed:
    """Counts generated tokens, of unfinished responses too: signs of life, and tokens/s."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        self.tokens = 0
        self.start(lambda: None)

    def start(self, report: Callable[[], None]) -> None:
        """From now on time counts; `report` is called whenever there are tokens."""
        self.started, self.report = time.monotonic(), report

    def add(self, tokens: int) -> None:
        self.tokens += tokens
        self.watchdog.beat()
        self.report()

    def __str__(self) -> str:
        return f"{self.tokens / max(time.monotonic() - self.started, 1e-9):,.0f} tokens/s"


def _run(
    engine: Engine, plan: list[PlannedChunk], writer: ChunkedWriter, tally: _Tally, speed: _Speed
) -> None:
    """Generate and write the chunks of the plan."""
    progress = Progress(tally.expected, "responses", tally.responses)
    speed.start(lambda: progress.advance(0, f", {speed}, {tally.truncated} truncated"))
    requests = ([item.request() for item in chunk] for chunk in plan)
    for chunk, results in zip(plan, engine.generate(requests), strict=True):
        records = [
            record
            for item, completions in zip(chunk, results, strict=True)
            for record in item.records(completions)
        ]
        writer.write(records)
        tally.add(records)
        progress.advance(len(records), f", {speed}, {tally.truncated} truncated")


def _digest_of_requests(plan: list[PlannedChunk]) -> str:
    """Hash of all that a shard asks for."""
    digest = hashlib.sha256()
    for item in (item for chunk in plan for item in chunk):
        steering = (item.prompt.prompt_id, item.seed, *item.steering)
        digest.update(json.dumps(steering).encode() + item.tokens.tobytes())
    return digest.hexdigest()
