"""From files of samples to scored samples, and of RewardBench's choices. No torch here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines
from dpa.artefacts.outputs import Fingerprint
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import fingerprint, write_sidecar
from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef
from dpa.objectives import objective_rewards
from dpa.records import Choice, Sample, ScoredChoice, ScoredSample
from dpa.reward.inputs import Group
from dpa.reward.load import open_scorer, read_reward_model
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import Progress, log
from dpa.text.prompts import Conversation, read_prompts

#: Prompts that are scored together, and that a killed job scores again. Scores depend on it in the
#: last decimals at most, on the number of shards never.
PROMPTS_PER_CHUNK = 16


class SamplesToScore(NamedTuple):
    """A file of samples that was read through: its prompts' texts, and samples per prompt."""

    samples: Path
    texts: dict[str, Conversation]
    per_prompt: list[int]


def check_samples(samples: Path, prompts: Path) -> SamplesToScore:
    """Read samples and prompts through, before a model is loaded.

    Raises InputError naming the line of a sample whose prompt is not in the prompt file.
    """
    texts = {prompt.prompt_id: prompt.prompt for prompt in read_prompts(prompts)}
    per_prompt = []
    for _, group in groupby(enumerate(decode_lines(samples, Sample), 1), _prompt_of):
        members = list(group)
        _text(texts, members[0], samples)
        per_prompt.append(len(members))
    return SamplesToScore(samples, texts, per_prompt)


def groups_of(checked: SamplesToScore) -> Iterator[Group]:
    """Each prompt's text with its responses."""
    samples, texts, _ = checked
    for prompt_id, group in groupby(decode_lines(samples, Sample), lambda s: s.prompt_id):
        yield texts[prompt_id], [sample.response for sample in group]


def score_samples(
    model: Scorer,
    checked: SamplesToScore,
    objectives: Sequence[ObjectiveConfig],
    output: Path,
    known: Fingerprint,
    sidecar: Callable[[], None],
) -> int:
    """Write a ScoredSample for each Sample, in the same order, and its `sidecar`; returns the
    number of records.

    Samples of a prompt are contiguous. Resumes after the prompts that a killed job with the same
    fingerprint `known` has scored. Raises InputError naming the line of a response whose
    scores are not finite.
    """
    samples, texts, per_prompt = checked
    sizes = [
        sum(per_prompt[i : i + PROMPTS_PER_CHUNK])
        for i in range(0, len(per_prompt), PROMPTS_PER_CHUNK)
    ]
    writer = ChunkedWriter(output, ScoredSample, sizes, known)
    done = sum(sizes[: writer.done])
    progress = Progress(sum(sizes), "responses", done)
    numbered = islice(enumerate(decode_lines(samples, Sample), 1), done, None)
    chunks = (
        [list(group) for _, group in groupby(islice(numbered, size), _prompt_of)]
        for size in sizes[writer.done :]
    )

    def groups_of_chunk(chunk: list[list[tuple[int, Sample]]]) -> list[Group]:
        return [(_text(texts, g[0], samples), [s.response for _, s in g]) for g in chunk]

    for chunk, scores in model.score_stream(chunks, groups_of_chunk, apart=True):
        records = [
            _scored(sample, named_scores(model.names, row, f"{samples}:{line}"), objectives)
            for group, array in zip(chunk, scores, strict=True)
            for (line, sample), row in zip(group, array, strict=True)
        ]
        writer.write(records)
        progress.advance(len(records))
    writer.finish(sidecar)
    return sum(sizes)


def score_sample_file(
    reward_model: AnyModel,
    samples: Path,
    prompts: Path,
    objectives: Sequence[ObjectiveConfig],
    output: Path,
    *,
    tokens_per_batch: int,
    attributes: Sequence[str] | None = None,
    engine: str = "transformers",
) -> None:
    """`score_samples` by a reward model, with the sidecar; `engine` runs it."""
    ref = ModelRef.of(reward_model)
    checked = check_samples(samples, prompts)
    inputs: list[Path | str] = [ref.path, samples, prompts]
    read = read_reward_model(ref, attributes=attributes, objectives=objectives)
    survey = read.inputs.survey(groups_of(checked), sum(checked.per_prompt))
    survey.check(output)
    known = fingerprint(
        inputs,
        reward_model=str(ref),
        names=read.names,
        objectives=[objective.model_dump() for objective in objectives],
        tokens_per_batch=tokens_per_batch,
        engine=engine,
    )

    def sidecar() -> None:
        row_counts = RowCounts.all_kept(sum(checked.per_prompt))
        write_sidecar(
            output,
            inputs,
            row_counts,
            rows=row_counts.read,
            scored=survey.inputs,
            cut=survey.truncated,
            neutralised=read.inputs.controls.log_escaped(),
        )

    with open_scorer(read, engine, output, tokens_per_batch=tokens_per_batch) as model:
        rows = score_samples(model, checked, objectives, output, known, sidecar)
    log.info(
        "scored %d responses (%d inputs truncated to %d tokens)",
        rows, survey.truncated, read.inputs.max_length,
    )  # fmt: skip


def _prompt_of(numbered: tuple[int, Sample]) -> str:
    return numbered[1].prompt_id


def _text(
    texts: dict[str, Conversation], numbered: tuple[int, Sample], samples: Path
) -> Conversation:
    line, sample = numbered
    if sample.prompt_id not in texts:
        raise InputError(
            f"{samples}:{line}: prompt {sample.prompt_id} is not in the prompt file; "
            "the samples belong to other data: delete them and rerun"
        )
    return texts[sample.prompt_id]


def _scored(
    sample: Sample, attributes: dict[str, float], objectives: Sequence[ObjectiveConfig]
) -> ScoredSample:
    return ScoredSample(
        **msgspec.structs.asdict(sample),
        attributes=attributes,
        rewards=objective_rewards(attributes, objectives),
    )


#: Choices that a reward model scores together.
CHOICES_PER_CHUNK = 16


def groups_of_choices(choices: Iterable[Choice]) -> list[Group]:
    """Each prompt with its two answers."""
    return [(choice.prompt, [choice.chosen, choice.rejected]) for choice in choices]


def score_choices(
    model: Scorer, items: Path, choices: Sequence[Choice], objectives: Sequence[ObjectiveConfig]
) -> Iterator[ScoredChoice]:
    """The reward model's scores of every choice, in order; `items` is where they are from."""
    progress = Progress(len(choices), "choices")
    starts = range(0, len(choices), CHOICES_PER_CHUNK)
    chunks = (choices[start : start + CHOICES_PER_CHUNK] for start in starts)
    number = 0
    for chunk, arrays in model.score_stream(chunks, groups_of_choices):
        for choice, array in zip(chunk, arrays, strict=True):
            number += 1
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
