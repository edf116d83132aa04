"""From files of responses to files of scores: what the scoring scripts do. No torch here."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from dpa.cli import Progress, log
from dpa.config import Objective, Source
from dpa.errors import InputError
from dpa.gpus import claim_gpu
from dpa.objectives import objective_rewards
from dpa.prompts import Conversation
from dpa.provenance import (
    Losses,
    atomic,
    check_dropped,
    check_truncated,
    content_hash,
    write_sidecar,
)
from dpa.records import (
    Annotation,
    ChunkedWriter,
    Prompt,
    Rating,
    Sample,
    ScoredSample,
    check_finite,
    decode_lines,
    encode,
    read_prompts,
)
from dpa.sources import PlacedRow, Row, as_prompt, cell, read_placed_rows
from dpa.startup import import_models
from dpa.watchdog import Watchdog

Group = tuple[Conversation, Sequence[str]]

#: Prompts that are scored together, and that a killed job scores again. Scores depend on it in the
#: last decimals at most, on the number of shards never.
PROMPTS_PER_CHUNK = 16
#: Rows of a table that are scored together.
ROWS_PER_CHUNK = 512


class Survey(NamedTuple):
    """Different inputs that are to be scored, and how many of them are longer than the model holds.

    Known before anything is scored, and the same whatever a killed job had done already.
    """

    inputs: int
    cut: int

    def check(self, what: object) -> None:
        """Raise InputError when more than the run's limit would be cut."""
        check_truncated(self.cut, self.inputs, str(what))


class Scorer(Protocol):
    """What is needed of dpa.scoring.RewardModel."""

    names: list[str]

    def survey(self, groups: Iterable[Group]) -> Survey: ...

    def score_groups(self, groups: Iterable[Group]) -> Iterator[np.ndarray]: ...

    def score_chunk(self, groups: Sequence[Group]) -> list[np.ndarray]: ...


def named_scores(names: Sequence[str], scores: np.ndarray, place: str) -> dict[str, float]:
    """One response's outputs by name. Raises InputError naming the place when one is not finite."""
    attributes = dict(zip(names, scores.tolist(), strict=True))
    try:
        check_finite([], attributes)
    except ValueError as error:
        raise InputError(
            f"{place}: {error}; the reward model cannot rate this response: look at its training "
            "log, and at the response"
        ) from None
    return attributes


# --- Samples of a policy ---------------------------------------------------------------------


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
    objectives: Sequence[Objective],
    output: Path,
    fingerprint: str,
    sidecar: Callable[[], None],
) -> int:
    """Write a ScoredSample for each Sample, in the same order, and its `sidecar`; returns the
    number of records.

    Samples of a prompt are contiguous. Resumes behind the prompts that a killed job with the same
    fingerprint has scored. Raises InputError naming the line of a response whose scores are not
    finite.
    """
    samples, texts, per_prompt = checked
    sizes = [
        sum(per_prompt[i : i + PROMPTS_PER_CHUNK])
        for i in range(0, len(per_prompt), PROMPTS_PER_CHUNK)
    ]
    writer = ChunkedWriter(output, ScoredSample, sizes, fingerprint)
    done = sum(sizes[: writer.done])
    progress = Progress(sum(sizes), "responses", done)
    numbered = islice(enumerate(decode_lines(samples, Sample), 1), done, None)
    for size in sizes[writer.done :]:
        chunk = [list(group) for _, group in groupby(islice(numbered, size), _prompt_of)]
        groups = [
            (_text(texts, group[0], samples), [s.response for _, s in group]) for group in chunk
        ]
        writer.write(
            [
                _scored(sample, named_scores(model.names, row, f"{samples}:{line}"), objectives)
                for group, scores in zip(chunk, model.score_groups(groups), strict=True)
                for (line, sample), row in zip(group, scores, strict=True)
            ]
        )
        progress.advance(size)
    writer.finish(sidecar)
    return sum(sizes)


@contextmanager
def scorer(engine: str, path: str, revision: str | None, output: Path, **options: Any):
    """A reward model, see dpa.scoring.load_scorer; under a watchdog, and closed in the end."""
    if engine == "transformers":
        import_models()
    from dpa.scoring import load_scorer

    claim_gpu()
    with Watchdog(f"scoring {output}") as watchdog:
        model = load_scorer(engine, path, revision, **options)
        model.on_batch = watchdog.beat
        with closing(model):
            yield model


def score_file(
    reward_model: tuple[str, str | None],
    samples: Path,
    prompts: Path,
    objectives: Sequence[Objective],
    output: Path,
    *,
    tokens_per_batch: int,
    attributes: Sequence[str] | None = None,
    engine: str = "transformers",
) -> None:
    """`score_samples` by a reward model given as (path, revision), with the sidecar.

    `engine` runs it: `transformers` or `vllm`.
    """
    path, revision = reward_model
    checked = check_samples(samples, prompts)
    inputs: list[Path | str] = [path, samples, prompts]
    with scorer(
        engine,
        path,
        revision,
        output,
        attributes=attributes,
        objectives=objectives,
        tokens_per_batch=tokens_per_batch,
    ) as model:
        settings = [
            path,
            revision,
            model.names,
            [objective.model_dump() for objective in objectives],
            tokens_per_batch,
            engine,
        ]
        known = fingerprint([content_hash(Path(item)) for item in inputs], settings)
        survey = model.survey(groups_of(checked))
        survey.check(output)

        def sidecar() -> None:
            losses = Losses.none(sum(checked.per_prompt))
            write_sidecar(
                output,
                inputs,
                losses,
                rows=losses.read,
                scored=survey.inputs,
                cut=survey.cut,
                neutralised=model.controls.log_neutralised(),
            )

        rows = score_samples(model, checked, objectives, output, known, sidecar)
    log.info("scored %d responses (%d inputs cut to %d tokens)", rows, survey.cut, model.max_length)


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
    sample: Sample, attributes: dict[str, float], objectives: Sequence[Objective]
) -> ScoredSample:
    return ScoredSample(
        **msgspec.structs.asdict(sample),
        attributes=attributes,
        rewards=objective_rewards(attributes, objectives),
    )


def fingerprint(*parts: Any) -> str:
    """Hash of whatever determines a file's content (JSON values), for ChunkedWriter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# --- Original responses ----------------------------------------------------------------------


#: A chunk: for each of its prompts the (line, rating) pairs of its original responses.
OriginalsChunk = list[list[tuple[int, Rating]]]


def original_responses(
    ratings: Path, prompts: Sequence[Path], dataset: str, shard: int, shards: int
) -> list[OriginalsChunk]:
    """A data set's original responses to a shard's prompts, in prompt order.

    Shard s of S gets a contiguous run of whole chunks of the prompts (of all files, in order), so
    the shards one after the other are the same for every S. Raises InputError when the shard has
    prompts, and none of them a response in the data set.
    """
    ids = list(dict.fromkeys(p.prompt_id for path in prompts for p in decode_lines(path, Prompt)))
    chunks = [ids[i : i + PROMPTS_PER_CHUNK] for i in range(0, len(ids), PROMPTS_PER_CHUNK)]
    mine = chunks[shard * len(chunks) // shards : (shard + 1) * len(chunks) // shards]
    originals: dict[str, list[tuple[int, Rating]]] = {i: [] for chunk in mine for i in chunk}
    for line, rating in enumerate(decode_lines(ratings, Rating), 1):
        if rating.dataset == dataset and rating.prompt_id in originals:
            originals[rating.prompt_id].append((line, rating))
    if originals and not any(originals.values()):
        raise InputError(
            f"{ratings}: no original responses to the prompts of shard {shard} under --dataset "
            f"{dataset}; correct data.original_responses"
        )
    return [[originals[i] for i in chunk] for chunk in mine]


def annotate(
    model: Scorer,
    ratings: Path,
    chunks: Sequence[OriginalsChunk],
    objectives: Sequence[Objective],
    losses: Losses,
    output: Path,
    fingerprint: str,
    sidecar: Callable[[], None],
) -> int:
    """Write annotations of the original responses, in order, and their `sidecar`; returns their
    number.

    Prompts without a response are counted in `losses`. `ratings` is where they are from. Resumes
    behind the chunks that a killed job with the same fingerprint has scored.
    """
    losses.read += sum(map(len, chunks))
    losses.dropped["no original responses"] += sum(not g for chunk in chunks for g in chunk)
    check_dropped(losses, str(output))
    plan = [found for chunk in chunks if (found := [group for group in chunk if group])]
    sizes = [sum(map(len, groups)) for groups in plan]
    writer = ChunkedWriter(output, Annotation, sizes, fingerprint)
    progress = Progress(sum(sizes), "responses", sum(sizes[: writer.done]))
    for groups in plan[writer.done :]:
        scores = model.score_chunk([(g[0][1].prompt, [r.response for _, r in g]) for g in groups])
        writer.write(
            [
                _annotation(rating, named_scores(model.names, row, f"{ratings}:{line}"), objectives)
                for group, array in zip(groups, scores, strict=True)
                for (line, rating), row in zip(group, array, strict=True)
            ]
        )
        progress.advance(sum(map(len, groups)))
    writer.finish(sidecar)
    return sum(sizes)


def groups_of_originals(chunks: Sequence[OriginalsChunk]) -> Iterator[Group]:
    """Each prompt's text with its original responses; prompts without any left out."""
    for group in (group for chunk in chunks for group in chunk if group):
        yield group[0][1].prompt, [rating.response for _, rating in group]


def _annotation(
    rating: Rating, attributes: dict[str, float], objectives: Sequence[Objective]
) -> Annotation:
    return Annotation(
        prompt_id=rating.prompt_id,
        prompt=rating.prompt,
        response=rating.response,
        attributes=attributes,
        rewards=objective_rewards(attributes, objectives),
        split=rating.split,
    )


def held_out_groups(ratings: Path, losses: Losses) -> list[list[Rating]]:
    """Each validation prompt's ratings; those for training are counted in `losses`."""
    groups: dict[str, list[Rating]] = {}
    for rating in decode_lines(ratings, Rating):
        losses.read += 1
        if rating.split == "validation":
            groups.setdefault(rating.prompt_id, []).append(rating)
        else:
            losses.drop("for training", asked_for=True)
    if not groups:
        raise InputError(
            f"{ratings}: no ratings with split validation; give data.ratings a validation file"
        )
    return list(groups.values())


def score_held_out(
    model: Scorer, ratings: Path, groups: Sequence[list[Rating]]
) -> Iterator[tuple[list[Rating], np.ndarray]]:
    """Groups of ratings with their scores (responses, outputs), of which `ratings` is the file."""
    progress = Progress(len(groups), "prompts")
    waiting = iter(groups)
    while chunk := list(islice(waiting, PROMPTS_PER_CHUNK)):
        scores = model.score_chunk([(g[0].prompt, [r.response for r in g]) for g in chunk])
        for group, array in zip(chunk, scores, strict=True):
            for rating, row in zip(group, array, strict=True):
                named_scores(model.names, row, f"{ratings}: prompt {rating.prompt_id}")
            yield group, array
        progress.advance(len(chunk))


# --- A user's table --------------------------------------------------------------------------


def score_table(
    model: Scorer, source: Path, output: Path, prompt_column: str, response_column: str
) -> int:
    """Write a table's rows, in file order, with one column more per output; returns their number.

    Formats follow from the suffixes. Raises InputError naming the place of a row without prompt or
    response, or whose columns include an output's name already.
    """
    table = Source(path=str(source))

    def pair(placed: PlacedRow) -> tuple[Conversation, str]:
        return _pair(placed, prompt_column, response_column, model.names)

    def scored() -> Iterator[Row]:
        rows = read_placed_rows(table)
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            scores = score_pairs(model, [pair(placed) for placed in chunk])
            for (place, row), outputs in zip(chunk, scores, strict=True):
                yield row | named_scores(model.names, outputs, place)
            progress.advance(len(chunk))

    # All rows are looked at first: a bad one at the end should not cost the work before it.
    progress = Progress(sum(1 for _ in map(pair, read_placed_rows(table))), "rows")
    return write_rows(output, scored(), like=source, added=model.names)


def score_pairs(model: Scorer, pairs: Sequence[tuple[Conversation, str]]) -> list[np.ndarray]:
    """The outputs of each (prompt, response), in order; responses to equal prompts share work."""
    groups: dict[bytes, list[int]] = {}
    for i, (prompt, _) in enumerate(pairs):
        groups.setdefault(msgspec.json.encode(prompt), []).append(i)
    members = list(groups.values())
    arrays = model.score_chunk([(pairs[g[0]][0], [pairs[i][1] for i in g]) for g in members])
    scores = {
        i: row
        for group, array in zip(members, arrays, strict=True)
        for i, row in zip(group, array, strict=True)
    }
    return [scores[i] for i in range(len(pairs))]


def _pair(
    placed: PlacedRow, prompt_column: str, response_column: str, names: Sequence[str]
) -> tuple[Conversation, str]:
    place, row = placed
    prompt, response = cell(row, prompt_column, place), cell(row, response_column, place)
    if not isinstance(prompt, str):
        prompt = as_prompt(prompt, prompt_column, place)
    if prompt is None or not isinstance(response, str):
        empty = prompt_column if prompt is None else response_column
        raise InputError(f"{place}: column {empty!r} has no text; remove the row or fill it in")
    if taken := sorted(set(names) & set(row)):
        raise InputError(f"{place}: the table has columns {taken} already; rename them")
    return prompt, response


def write_rows(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> int:
    """Write a table atomically in the format of its suffix; returns the number of rows.

    A parquet file made from a parquet file `like` keeps its column types; `added` names the float
    columns that come on top. In CSV, values that are not scalars are JSON.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"{path}: unknown kind of file; known: {', '.join(WRITERS)}")
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    with atomic(path) as partial:
        WRITERS[path.suffix](partial, counted(), like, added)
    return count


def _write_jsonl(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> None:
    with open(path, "wb") as file:
        file.writelines(map(encode, rows))


def _write_csv(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            try:
                writer.writerow({key: _csv_cell(value) for key, value in row.items()})
            except ValueError as error:
                raise InputError(f"{path}: {error}; write .jsonl, whose rows may differ") from None


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _write_parquet(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = None
    if like.suffix == ".parquet":
        schema = pyarrow.parquet.read_schema(like)
        for name in added:
            schema = schema.append(pyarrow.field(name, pyarrow.float64()))
    writer = None
    waiting = iter(rows)
    try:
        while some := list(islice(waiting, ROWS_PER_CHUNK)):
            table = pyarrow.Table.from_pylist(some, schema=schema)
            if writer is None:
                schema = table.schema
                writer = pyarrow.parquet.ParquetWriter(path, schema)
            writer.write_table(table)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: {error}; write .jsonl, whose rows may differ") from None
    finally:
        if writer is not None:
            writer.close()


#: Suffix -> writer of rows.
WRITERS: dict[str, Callable[[Path, Iterable[Row], Path, Sequence[str]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
