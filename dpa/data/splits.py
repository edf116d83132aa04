"""Prompts: who is held out, and the two disjoint halves D1 and D2 (paper, section 3.1)."""

from collections.abc import Collection, Iterable
from typing import Any

from dpa.artefacts.row_counts import RowCounts
from dpa.config.data import SourceConfig
from dpa.data.hub import Row
from dpa.data.sources import as_prompt, missing_column, read_placed_rows
from dpa.errors import InputError
from dpa.records import Prompt
from dpa.runtime.log import log
from dpa.seeds import derive_seed
from dpa.text.prompts import Conversation, normalise, prompt_id

#: Prompts without a rated response that the log names; all are counted.
LOGGED_MISSES = 3


def unique_prompts(sources: Iterable[SourceConfig], row_counts: RowCounts) -> dict[str, Prompt]:
    """Unique prompts by identity, in file order; of equal ones (normalised) the first.

    Rows have a `prompt` (a string or chat turns) or, failing that, `messages`, whose prompt is all
    before the final answer. A `cluster` (text or a whole number) is kept. Raises InputError naming
    the place of a row that has neither, or another kind of cluster.
    """
    prompts: dict[str, Prompt] = {}
    for source in sources:
        for place, row in read_placed_rows(source):
            row_counts.read += 1
            text = _prompt(row, place)
            if text is None:
                row_counts.drop("empty prompt")
                continue
            if "\0" in normalise(text):
                row_counts.drop("NUL character in the prompt")
                continue
            identity = prompt_id(text)
            if identity in prompts:
                row_counts.drop("duplicate", asked_for=True)
                continue
            prompts[identity] = Prompt(
                prompt_id=identity,
                prompt=text,
                source=source.path,
                cluster=_cluster(row.get("cluster"), place),
            )
    return prompts


def _cluster(value: Any, place: str) -> str | None:
    """What prompts that are alike have in common; None where a prompt stands for itself."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{place}: cluster {value!r} is neither text nor a whole number")
    return str(value)


def _prompt(row: Row, place: str) -> Conversation | None:
    if "prompt" in row:
        return as_prompt(row["prompt"], "prompt", place)
    if "messages" not in row:
        raise missing_column(place, "prompt", row)
    turns = row["messages"]
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
        turns = turns[:-1] if turns[-1].get("role") == "assistant" else turns
    return as_prompt(turns, "messages", place)


def trainable(
    prompts: Iterable[Prompt],
    held_out: Collection[str],
    rated: Collection[str],
    data_set: str,
    row_counts: RowCounts,
) -> list[Prompt]:
    """The prompts that may be trained on: not held out, and with a rated response in `data_set`.

    Those responses are what SteerLM, DPO and the replay of original responses are made of; `rated`
    are the prompts that have one. Prompt data and ratings are published apart and joined on the
    normalised prompt: what finds no partner is dropped and counted, the first by name.
    """
    kept = []
    reason = f"no rated response in {data_set}"
    for prompt in prompts:
        if prompt.prompt_id in held_out:
            row_counts.drop("held out for validation", asked_for=True)
        elif prompt.prompt_id not in rated:
            if row_counts.dropped[reason] < LOGGED_MISSES:
                log.info("%s: %s: %.100r", prompt.source, reason, prompt.prompt)
            row_counts.drop(reason)
        else:
            kept.append(prompt)
    return kept


def halve(
    prompts: Collection[Prompt], seed: int, per_half: int | None, row_counts: RowCounts
) -> tuple[list[Prompt], list[Prompt]]:
    """D1 and D2: equally many of the prompts, disjoint, in seeded hash order.

    The order depends on seed and prompt alone, so adding a prompt moves few others. `per_half` None
    takes all but an odd one out. Raises InputError when there are fewer prompts than asked for.
    """
    size = len(prompts) // 2 if per_half is None else per_half
    if len(prompts) < 2 * size or not size:
        raise InputError(
            f"data.train_prompts: {len(prompts)} usable prompts are too few for two halves of "
            f"{per_half or 'at least 1'} (of {row_counts.read} read, dropped: "
            f"{dict(row_counts.dropped)}); give more prompts or lower data.prompts_per_half"
        )
    ordered = sorted(prompts, key=lambda p: (derive_seed(seed, "split", p.prompt_id), p.prompt_id))
    for _ in ordered[2 * size :]:
        row_counts.drop(
            "odd one out" if per_half is None else "beyond prompts_per_half", asked_for=True
        )
    return ordered[:size], ordered[size : 2 * size]
