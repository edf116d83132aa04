"""From raw data to the pipeline's inputs: ratings.jsonl and the three prompt files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.outputs import atomic
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.data import DataConfig, describe
from dpa.data.rated import Tally
from dpa.data.ratings import read_ratings, validation_prompt_ids
from dpa.data.splits import halve, trainable, unique_prompts
from dpa.records import Prompt, Rating
from dpa.runtime.log import log
from dpa.seeds import derive_seed


def prepare_data(
    data: DataConfig,
    seed: int,
    ratings: Path,
    d1: Path,
    d2: Path,
    validation: Path,
    judge_share: float = 0,
) -> None:
    """Write ratings and prompts with their sidecars, and log what was kept and dropped.

    Held out are the validation prompts, the unseen ones, and the prompts of the ratings' own
    validation files: their ratings are for validation, and they are in neither D1 nor D2. Unseen
    prompts are in the validation file, behind the others and marked. The ratings of `judge_share`
    of the other prompts are the judge's: the same in all data sets. Raises InputError for bad
    rows, and when more than `data.max_dropped_fraction` of a file is lost.
    """
    held, train = RowCounts(), RowCounts()
    validation_prompts = unique_prompts(data.validation_prompts, held)
    unseen_prompts = unique_prompts(data.unseen_prompts, held)
    for identity in validation_prompts.keys() & unseen_prompts.keys():
        held.drop("duplicate", asked_for=True)
        del unseen_prompts[identity]
    train_prompts = unique_prompts(data.train_prompts, train)
    held_out = validation_prompts.keys() | unseen_prompts.keys() | validation_prompt_ids(data)

    def is_judges(prompt_id: str) -> bool:
        return derive_seed(seed, "judge", prompt_id) < judge_share * 2**48

    tallies: dict[str, Tally] = {}
    rated: set[str] = set()
    original = data.original_responses
    halves: tuple[list[Prompt], list[Prompt]] = ([], [])
    # Ratings are in place once it is known that the prompts are in order, too.
    with atomic(ratings) as partial:
        write_jsonl(
            partial, _remember(read_ratings(data, held_out, tallies, is_judges), original, rated)
        )
        if data.train_prompts:
            kept = trainable(train_prompts.values(), held_out, rated, original, train)
            train.check(data.max_dropped_fraction, "data.train_prompts")
            halves = halve(kept, seed, data.prompts_per_half, train)
            held.check(data.max_dropped_fraction, "data.validation_prompts")
        assert held_out.isdisjoint(prompt.prompt_id for half in halves for prompt in half)

    held_out_files = [*data.validation_prompts, *data.unseen_prompts]
    rating_files = [s for r in data.ratings for s in (r.train, r.validation) if s is not None]
    write_sidecar(
        ratings,
        map(describe, [*rating_files, *held_out_files]),
        _total(tallies.values()),
        rows=sum(tally.row_counts.kept for tally in tallies.values()),
        data_sets={name: tally.as_dict() for name, tally in tallies.items()},
    )
    prompt_files = [*data.train_prompts, *held_out_files]
    prompt_inputs: list[Path | str] = [*map(describe, prompt_files), ratings]
    for path, prompts in zip((d1, d2), halves, strict=True):
        write_jsonl(path, prompts)
        counted: dict[str, Any] = {} if path == d1 else {"counted_in": d1.name}
        write_sidecar(path, prompt_inputs, train, prompts=len(prompts), **counted)
    unrated = len(validation_prompts.keys() - rated)
    harder: dict[str, Any] = {"unseen_prompts": len(unseen_prompts)} if unseen_prompts else {}
    marked = (msgspec.structs.replace(prompt, unseen=True) for prompt in unseen_prompts.values())
    write_jsonl(validation, [*validation_prompts.values(), *marked])
    write_sidecar(
        validation,
        [*map(describe, held_out_files), ratings],
        held,
        prompts=len(validation_prompts),
        **harder,
        without_rated_response=unrated,
    )

    for name, tally in tallies.items():
        log.info("ratings %s: %s", name, tally)
    if data.train_prompts:
        log.info("D1 and D2: %d prompts each; train_prompts: %s", len(halves[0]), train)
        log.info("validation prompts: %s; %d without a response in %s", held, unrated, original)


def _remember(ratings: Iterable[Rating], data_set: str, rated: set[str]) -> Iterator[Rating]:
    """The ratings, while the prompts of one data set are noted."""
    for rating in ratings:
        if rating.dataset == data_set:
            rated.add(rating.prompt_id)
        yield rating


def _total(tallies: Iterable[Tally]) -> RowCounts:
    total = RowCounts()
    for tally in tallies:
        total.read += tally.row_counts.read
        total.dropped += tally.row_counts.dropped
        total.asked_for += tally.row_counts.asked_for
    return total
