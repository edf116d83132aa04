"""RewardBench: its prompts as a generation benchmark (paper, appendix A), and its own pairs.

A policy's response is compared with a reference policy's response to the same prompt by a scalar
judge; ties are half a win. A reward model is tested on the benchmark's own pairs. Averages are
taken both ways: over subsets, as the paper's table 2 does, and over prompts. No torch here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pandas as pd

from dpa.cli import Progress, log
from dpa.config import BenchmarkSection, Objective, Source
from dpa.errors import InputError
from dpa.evaluation import Policy
from dpa.objectives import objective_rewards
from dpa.prompts import Conversation, prompt_id
from dpa.provenance import Losses, code_version, content_hash, write_sidecar
from dpa.records import (
    Choice,
    ChunkedWriter,
    JudgedSample,
    Prompt,
    Sample,
    ScoredChoice,
    decode_lines,
    read_jsonl,
    write_jsonl,
)
from dpa.score_files import Scorer, fingerprint, named_scores
from dpa.sources import as_prompt, as_response, cell, describe, read_placed_rows

#: Responses that are judged together, and that a killed job judges again.
RESPONSES_PER_CHUNK = 64
#: Choices that a reward model scores together.
CHOICES_PER_CHUNK = 16

Sections = Sequence[BenchmarkSection]


def subsets_of(sections: Sections) -> dict[str, int]:
    """Number of prompts of each subset."""
    return {name: count for section in sections for name, count in section.subsets.items()}


# --- Prompts ---------------------------------------------------------------------------------


def prepare(source: Source, sections: Sections, items: Path, prompts: Path) -> None:
    """Write the benchmark's rows, and its different prompts: subsets share some.

    Raises InputError when a subset does not have as many rows as `sections` says, or is not there.
    """
    expected = subsets_of(sections)
    found = list(_choices(source))
    counts = {name: sum(choice.subset == name for choice in found) for name in expected}
    unknown = sorted({choice.subset for choice in found} - set(expected))
    wrong = [
        f"{name}: {counts[name]}, not {n}" for name, n in expected.items() if counts[name] != n
    ]
    if unknown or wrong:
        raise InputError(
            f"{describe(source)}: the subsets are not those of rewardbench.sections: "
            + "; ".join(wrong + [f"{name}: not expected" for name in unknown])
        )
    unique: dict[str, Prompt] = {}
    for c in found:
        prompt = Prompt(prompt_id=c.prompt_id, prompt=c.prompt, source=describe(source))
        unique.setdefault(c.prompt_id, prompt)
    write_jsonl(items, found)
    write_jsonl(prompts, unique.values())
    write_sidecar(items, [describe(source)], Losses.none(len(found)))
    different = Losses.none(len(found))
    different.drop("prompt of another row", asked_for=True, rows=len(found) - len(unique))
    write_sidecar(prompts, [describe(source)], different)
    log.info("%d prompts of %d subsets, %d different", len(found), len(expected), len(unique))


def _choices(source: Source) -> Iterator[Choice]:
    for place, row in read_placed_rows(source):
        prompt = as_prompt(cell(row, "prompt", place), "prompt", place)
        if prompt is None:
            raise InputError(f"{place}: the prompt is empty")
        yield Choice(
            item_id=str(row.get("id", place)),
            subset=str(cell(row, "subset", place)),
            prompt_id=prompt_id(prompt),
            prompt=prompt,
            chosen=as_response(cell(row, "chosen", place), "chosen", place) or "",
            rejected=as_response(cell(row, "rejected", place), "rejected", place) or "",
        )


# --- Judging ---------------------------------------------------------------------------------


class ScalarScorer(Protocol):
    """What is needed of a judge: dpa.scalar_judge.ScalarJudge or GoldJudge."""

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        """A score for each (prompt, response)."""
        ...


class GoldJudge:
    """The quickstart's gold helpfulness behind the interface of a scalar judge."""

    def scores(self, pairs: Sequence[tuple[Conversation, str]]) -> list[float]:
        from dpa.world import gold_rewards

        return [round(gold_rewards(str(prompt), response)[0], 4) for prompt, response in pairs]


def judge_samples(
    judge: ScalarScorer,
    samples: Path,
    prompts: Path,
    output: Path,
    known: str,
    sidecar: Callable[[int], None],
) -> int:
    """Write a JudgedSample for each Sample, in the same order, and the `sidecar`, which is given
    their number; returns it.

    Resumes behind the chunks that a killed job with the same fingerprint `known` has judged.
    """
    texts = {p.prompt_id: p.prompt for p in decode_lines(prompts, Prompt)}
    records = read_jsonl(samples, Sample)
    if foreign := [r for r in records if r.prompt_id not in texts]:
        raise InputError(
            f"{samples}: prompt {foreign[0].prompt_id} is not in {prompts}; the samples belong to "
            "other data: delete them and rerun"
        )
    size = RESPONSES_PER_CHUNK
    chunks = [records[i : i + size] for i in range(0, len(records), size)]
    writer = ChunkedWriter(output, JudgedSample, [len(chunk) for chunk in chunks], known)
    progress = Progress(len(records), "responses", sum(map(len, chunks[: writer.done])))
    for chunk in chunks[writer.done :]:
        scores = judge.scores([(texts[r.prompt_id], r.response) for r in chunk])
        writer.write(
            [
                JudgedSample(**msgspec.structs.asdict(record), score=score)
                for record, score in zip(chunk, scores, strict=True)
            ]
        )
        progress.advance(len(chunk))
    writer.finish(lambda: sidecar(len(records)))
    return len(records)


def judge_file(
    samples: Path, prompts: Path, output: Path, *, gold: str | None, model: tuple[str, str | None]
) -> None:
    """`judge_samples` by the gold scorer, or by a model given as (path, revision); with sidecar."""
    judge: ScalarScorer
    inputs: list[Path | str] = [samples, prompts]
    if gold is not None:
        judge = GoldJudge()
        known = fingerprint(gold, code_version(), [content_hash(Path(i)) for i in inputs])
    else:
        from dpa.scalar_judge import ScalarJudge

        judge = ScalarJudge.load(*model)
        inputs.insert(0, model[0])
        known = fingerprint(*model, [content_hash(Path(i)) for i in inputs])

    def sidecar(rows: int) -> None:
        write_sidecar(output, inputs, Losses.none(rows), judge=gold or f"{model[0]}@{model[1]}")

    rows = judge_samples(judge, samples, prompts, output, known, sidecar)
    log.info("judged %d responses", rows)


def score_choices(
    model: Scorer, items: Path, choices: Sequence[Choice], objectives: Sequence[Objective]
) -> Iterator[ScoredChoice]:
    """The reward model's scores of every choice, in order; `items` is where they are from."""
    progress = Progress(len(choices), "choices")
    for start in range(0, len(choices), CHOICES_PER_CHUNK):
        chunk = choices[start : start + CHOICES_PER_CHUNK]
        arrays = model.score_chunk([(c.prompt, [c.chosen, c.rejected]) for c in chunk])
        for number, (choice, array) in enumerate(zip(chunk, arrays, strict=True), start + 1):
            chosen, rejected = (
                named_scores(model.names, row, f"{items}:{number}") for row in array
            )
            yield ScoredChoice(
                item_id=choice.item_id,
                subset=choice.subset,
                chosen=chosen,
                rejected=rejected,
                chosen_rewards=objective_rewards(chosen, objectives),
                rejected_rewards=objective_rewards(rejected, objectives),
            )
        progress.advance(len(chunk))


# --- Averages --------------------------------------------------------------------------------


class Rate(NamedTuple):
    """A share of wins with its standard error, on 0-1."""

    level: str
    name: str
    n: int
    wins: int
    ties: int
    rate: float
    error: float


def outcome(ours: float, theirs: float) -> float:
    """1 for a win, 0 for a loss, a half for a tie."""
    return 0.5 if ours == theirs else float(ours > theirs)


def rates(outcomes: Mapping[str, Sequence[float]], sections: Sections) -> list[Rate]:
    """Win rates by subset, by section and over all, from the outcomes of each subset.

    A `section` is the mean of its subsets, as in the paper. `average_macro` (the same) and
    `average_weighted` (every prompt counts once) are given for each section and for `all`.
    """
    subset = {name: _rate("subset", name, outcomes[name]) for name in subsets_of(sections)}
    groups = {section.name: list(section.subsets) for section in sections}
    macro, weighted = [], []
    for name, members in (groups | {"all": list(subset)}).items():
        macro.append(_macro("average_macro", name, [subset[m] for m in members]))
        pooled = [value for m in members for value in outcomes[m]]
        weighted.append(_rate("average_weighted", name, pooled))
    by_section = [rate._replace(level="section") for rate in macro[:-1]]
    return [*subset.values(), *by_section, *macro, *weighted]


def _rate(level: str, name: str, values: Sequence[float]) -> Rate:
    n = len(values)
    wins, ties = sum(v == 1 for v in values), sum(v == 0.5 for v in values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Rate(level, name, n, wins, ties, float(np.mean(values)), error)


def _macro(level: str, name: str, members: Sequence[Rate]) -> Rate:
    """The mean of subsets, which are independent."""
    return Rate(
        level,
        name,
        sum(m.n for m in members),
        sum(m.wins for m in members),
        sum(m.ties for m in members),
        float(np.mean([m.rate for m in members])),
        math.sqrt(sum(m.error**2 for m in members)) / len(members),
    )


# --- Tables ----------------------------------------------------------------------------------


def win_rates(
    judged: Sequence[Path],
    reference: Path,
    items: Path,
    sections: Sections,
    names: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of win_rates.csv for one seed: every direction of every policy against the reference.

    A file's stem names its policy. Raises InputError when a prompt lacks a response.
    """
    choices = read_jsonl(items, Choice)
    theirs: dict[str, float] = {}
    for record in decode_lines(reference, JudgedSample):
        if record.direction is not None or record.condition is not None:
            raise InputError(f"{reference}: the reference is a policy that takes no direction")
        theirs[record.prompt_id] = record.score
    rows = []
    for path in judged:
        policy = Policy.parse(path.stem)
        scores: dict[int, dict[str, float]] = {}
        directions: dict[int, list[float] | None] = {}
        for record in decode_lines(path, JudgedSample):
            scores.setdefault(record.direction_index, {})[record.prompt_id] = record.score
            directions[record.direction_index] = record.direction
        for index, ours in sorted(scores.items()):
            outcomes = _outcomes(choices, ours, theirs, path, reference)
            weights: Sequence[float | None] = directions[index] or [None] * len(names)
            for rate in rates(outcomes, sections):
                rows.append(
                    {
                        "method": policy.method,
                        "iteration": policy.iteration,
                        "seed": seed,
                        "direction_index": index,
                        **{f"v_{name}": v for name, v in zip(names, weights, strict=True)},
                        "reference": reference.stem,
                        "level": rate.level,
                        "name": rate.name,
                        "n": rate.n,
                        "wins": rate.wins,
                        "ties": rate.ties,
                        "win_rate": round(100 * rate.rate, 4),
                        "standard_error": round(100 * rate.error, 4),
                    }
                )
    return rows


def _outcomes(
    choices: Sequence[Choice],
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    path: Path,
    reference: Path,
) -> dict[str, list[float]]:
    outcomes: dict[str, list[float]] = {}
    for choice in choices:
        for file, scores in ((path, ours), (reference, theirs)):
            if choice.prompt_id not in scores:
                raise InputError(
                    f"{file}: no response to a prompt of {choice.subset}, {choice.prompt!r:.80}; "
                    "it is longer than sampling.max_prompt_tokens: raise it"
                )
        won = outcome(ours[choice.prompt_id], theirs[choice.prompt_id])
        outcomes.setdefault(choice.subset, []).append(won)
    return outcomes


def accuracies(
    scored: Path, sections: Sections, names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Rows of reward_model_accuracy.csv for one seed: chosen against rejected by objective."""
    choices = read_jsonl(scored, ScoredChoice)
    rows = []
    for i, objective in enumerate(names):
        outcomes: dict[str, list[float]] = {}
        for choice in choices:
            won = outcome(choice.chosen_rewards[i], choice.rejected_rewards[i])
            outcomes.setdefault(choice.subset, []).append(won)
        for rate in rates(outcomes, sections):
            rows.append(
                {
                    "objective": objective,
                    "seed": seed,
                    "level": rate.level,
                    "name": rate.name,
                    "n": rate.n,
                    "accuracy": round(100 * rate.rate, 4),
                    "standard_error": round(100 * rate.error, 4),
                }
            )
    return rows


def as_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table whose iterations are whole numbers."""
    table = pd.DataFrame(list(rows))
    return table.astype({"iteration": "Int64"}) if "iteration" in table else table
