"""Which samples of an iteration are rated: of each prompt some of the best, and some others."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from dpa.artefacts.jsonl import decode_lines
from dpa.directions import sample_direction, scalar_reward
from dpa.errors import InputError
from dpa.records import Prompt, ScoredSample, ToRate
from dpa.seeds import derive_seed


def response_hash(response: str) -> str:
    """Hash of a response as it is, 16 hexadecimal digits."""
    return hashlib.sha256(response.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ChoicePlan:
    """What is chosen of an iteration's samples."""

    distribution: dict
    seed: int
    iteration: int
    best: int
    at_random: int
    #: Prompts whose samples are rated; None: all.
    prompts: int | None = None


@dataclass
class ChoiceCounts:
    """What was chosen, and among how much."""

    samples: int = 0
    prompts: int = 0
    chosen: Counter[str] = field(default_factory=lambda: Counter(best=0, random=0))
    #: Samples that repeat another of their prompt, or one that was chosen in an iteration before.
    left_out: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict:
        """Counts for the sidecar."""
        return {
            "samples": self.samples,
            "prompts": self.prompts,
            "chosen": dict(sorted(self.chosen.items())),
            "left_out": dict(sorted(self.left_out.items())),
        }


def choose_to_rate(
    shards: Iterable[Path],
    prompts: Sequence[Prompt],
    held_out: Iterable[Prompt],
    before: Iterable[ToRate],
    plan: ChoicePlan,
    counts: ChoiceCounts,
) -> list[ToRate]:
    """The samples that go to the annotator, in the order of the prompts.

    Of each prompt, `plan.best` different ones: for as many random directions in turn the one with
    the highest v.r that is not chosen yet (among equals the first); then `plan.at_random` of the
    others. None that was chosen in an iteration `before`. A prompt's samples come in random order:
    nothing says which are thought to be the best. Raises InputError for a sample of a prompt that
    is not among `prompts`, and for a prompt that is held out.
    """
    position = {prompt.prompt_id: i for i, prompt in enumerate(prompts)}
    if shared := position.keys() & {prompt.prompt_id for prompt in held_out}:
        raise InputError(
            f"prompt {min(shared)} is for validation, whose prompts are never rated; "
            "delete data/prompts and rerun"
        )
    known = {(item.prompt_id, item.response_hash) for item in before}
    wanted = _wanted(prompts, plan)
    chosen: dict[int, list[ToRate]] = {}
    for path in shards:
        for prompt_id, group in groupby(decode_lines(path, ScoredSample), lambda s: s.prompt_id):
            if prompt_id not in position:
                raise InputError(
                    f"{path}: prompt {prompt_id} is not in the prompt file; "
                    "the shard belongs to other data: delete it and rerun"
                )
            if prompt_id in wanted:
                place = position[prompt_id]
                chosen[place] = _of_prompt(prompts[place], list(group), known, plan, counts)
    return [item for place in sorted(chosen) for item in chosen[place]]


def _wanted(prompts: Sequence[Prompt], plan: ChoicePlan) -> set[str]:
    ids = sorted(
        (prompt.prompt_id for prompt in prompts),
        key=lambda i: derive_seed(plan.seed, "feedback-prompts", plan.iteration, i),
    )
    return set(ids[: plan.prompts])


def _of_prompt(
    prompt: Prompt,
    samples: list[ScoredSample],
    known: set[tuple[str, str]],
    plan: ChoicePlan,
    counts: ChoiceCounts,
) -> list[ToRate]:
    samples.sort(key=lambda s: (s.direction_index, s.sample_index))
    counts.samples += len(samples)
    counts.prompts += 1
    left: dict[str, ScoredSample] = {}
    for sample in samples:
        left.setdefault(sample.response, sample)
    counts.left_out["repeats another sample of its prompt"] += len(samples) - len(left)
    different = len(left)
    left = {r: s for r, s in left.items() if (prompt.prompt_id, response_hash(r)) not in known}
    counts.left_out["chosen in an iteration before"] += different - len(left)
    chosen = [*_best(prompt, left, plan, counts), *_random(prompt, left, plan, counts)]
    order = _generator("feedback-order", prompt, plan).permutation(len(chosen))
    return [
        ToRate(
            prompt_id=prompt.prompt_id,
            response_hash=response_hash(chosen[i]),
            prompt=prompt.prompt,
            response=chosen[i],
        )
        for i in order
    ]


def _best(
    prompt: Prompt, left: dict[str, ScoredSample], plan: ChoicePlan, counts: ChoiceCounts
) -> Iterator[str]:
    """The best responses that are left, which they are not any more then."""
    seed = derive_seed(plan.seed, "feedback")  # or they would be those that were sampled under
    for index in range(min(plan.best, len(left))):
        direction = sample_direction(
            plan.distribution, seed, plan.iteration, prompt.prompt_id, index
        )
        best = max(left, key=lambda r: scalar_reward(direction, left[r].rewards))
        del left[best]
        counts.chosen["best"] += 1
        yield best


def _random(
    prompt: Prompt, left: dict[str, ScoredSample], plan: ChoicePlan, counts: ChoiceCounts
) -> Iterator[str]:
    """Some of the responses that are left."""
    responses = list(left)
    order = _generator("feedback-random", prompt, plan).permutation(len(responses))
    for i in order[: plan.at_random]:
        counts.chosen["random"] += 1
        yield responses[i]


def _generator(purpose: str, prompt: Prompt, plan: ChoicePlan) -> np.random.Generator:
    return np.random.default_rng(derive_seed(plan.seed, purpose, plan.iteration, prompt.prompt_id))
